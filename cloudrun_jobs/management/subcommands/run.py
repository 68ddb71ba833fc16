"""Run a job."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from cloudrun_jobs import command_line
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.exceptions import sentence
from cloudrun_jobs.management.exits import ERROR, INTERRUPTED
from cloudrun_jobs.management.finding import find_job
from cloudrun_jobs.management.local_execution import LocalExecution, Output
from cloudrun_jobs.management.output import write_message
from cloudrun_jobs.models import JobRun, Status

HELP = "Run a job. Its own arguments follow `--`."
USAGE = "%(prog)s [-h] [--local] [--tasks N] job [-- ARGUMENT ...]"
MAX_LOCAL_TASKS = 1000  # Processes on one machine.
MAX_LISTED = 20  # failed tasks
MAX_ERROR = 500  # characters


def add_arguments(parser: ArgumentParser) -> None:
    parser.usage = USAGE
    parser.add_argument("job", help="The command.")
    parser.add_argument(
        "--local",
        action="store_true",
        help="Run each task as a process on this machine, with the variables that Cloud Run would set.",
    )
    parser.add_argument("--tasks", type=int, metavar="N", help="The number of tasks. Default: `tasks` of the job.")
    parser.set_defaults(takes_job_arguments=True)


def run(command: BaseCommand, **options: Any) -> None:
    job = find_job(options["job"])
    arguments, tasks = options["job_arguments"], options["tasks"]
    if options["local"]:
        _run_locally(command, job, arguments, tasks)
        return
    started = (job if tasks is None else job.using(tasks=tasks)).delay_argv(arguments)
    command.stdout.write(started.run_id)
    write_message(command, f"`manage.py cloudrun_jobs show {started.run_id[:8]}` shows the run.")


def _run_locally(command: BaseCommand, job: CloudRunJobs, arguments: Sequence[str], tasks: int | None) -> None:
    count = job.spec.tasks if tasks is None else tasks
    if not 1 <= count <= MAX_LOCAL_TASKS:
        message = f"--tasks: expected 1 to {MAX_LOCAL_TASKS} with --local, got {count}."
        raise CommandError(message, returncode=ERROR)
    validated = command_line.validate(job, (job.command_name, *arguments), {})
    execution = LocalExecution(job.spec, validated, count, Output(command.stdout, command.stderr))
    try:
        execution.wait()
    except KeyboardInterrupt:
        run = execution.run
        again = f" {_next_command(run, 'rerun', '--failed')} does the rest." if run else ""
        raise CommandError(f"Interrupted: all tasks have ended.{again}", returncode=INTERRUPTED) from None
    run = execution.run
    shown = f"{_next_command(run, 'show')} shows the run." if run else ""
    if failed := execution.failed:
        listed = ", ".join(task.prefix.strip() for task in failed[:MAX_LISTED])
        listed += ", ..." if len(failed) > MAX_LISTED else ""
        raise CommandError(_joined(f"{len(failed)} of {count} tasks failed: {listed}.", _error_of(run), shown))
    if run is not None and run.status == Status.FAILED:
        raise CommandError(_joined(f"The run failed ({run.reason}).", _error_of(run), shown))
    write_message(
        command, _joined(f"{count} tasks have ended: {run.status if run else 'without a record'}.", shown)
    )


def _joined(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def _next_command(run: JobRun, subcommand: str, *options: str) -> str:
    return f"`{' '.join(['manage.py cloudrun_jobs', subcommand, str(run.pk)[:8], *options])}`"


def _error_of(run: JobRun | None) -> str:
    """Return the recorded error as a sentence, shortened."""
    error = ": ".join(filter(None, (run.error_class, run.error_message))) if run else ""
    return sentence(error if len(error) <= MAX_ERROR else f"{error[:MAX_ERROR]}…")
