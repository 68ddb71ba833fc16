"""Run a command in this process, with the arguments of a command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cloudrun_jobs import argv
from cloudrun_jobs.argv import reading
from cloudrun_jobs.exceptions import JobFailed, JobInterrupted
from cloudrun_jobs.execution.outcome import exit_code_of

if TYPE_CHECKING:
    from cloudrun_jobs.execution.active import ActiveRun
    from cloudrun_jobs.spec.command import JobCommand


def execute(worker: JobCommand, active: ActiveRun, arguments: Sequence[str]) -> Any:
    """Run the command as `manage.py` would, and return its result in JSON form.

    `arguments` are those after `manage.py`.
    """
    parser = argv.parser_of(worker)
    reading.remember(worker, parser)
    options = argv.parse(parser, arguments[1:])
    if "skip_checks" in options:
        options["skip_checks"] = True  # As call_command() does: the checks of this process have run.
    try:
        worker.execute(*options.pop("args", ()), **options)
    except JobInterrupted:
        raise  # SIGTERM is for the whole process.
    except SystemExit as error:
        if code := exit_code_of(error.code):
            message = f"{worker.command_name}: run() called sys.exit({error.code!r})."
            raise JobFailed(message, code=code) from error
    return active.result
