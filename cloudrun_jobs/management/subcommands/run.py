"""Run a job."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Sequence
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from cloudrun_jobs import command_line
from cloudrun_jobs.backends.log_entries import LogQuery
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.exceptions import InvalidArguments
from cloudrun_jobs.management.exits import ERROR, FAILED, INTERRUPTED
from cloudrun_jobs.management.finding import find_job
from cloudrun_jobs.management.following import check_outcome, error_of, follow, state_text
from cloudrun_jobs.management.local_execution import Cancelled, LocalExecution
from cloudrun_jobs.management.log_sources import source_of
from cloudrun_jobs.management.output import next_command, write_message
from cloudrun_jobs.management.starting import start
from cloudrun_jobs.management.subcommands.logs import EntryWriter, not_kept
from cloudrun_jobs.models import JobRun, Status

HELP = "Run a job. Its own arguments follow `--`."
USAGE = "%(prog)s [-h] [--local] [--wait] [--follow] [--tasks N] [--env NAME=VALUE] job [-- ARGUMENT ...]"
MAX_LOCAL_TASKS = 1000  # Processes on one machine.
MAX_LISTED = 20  # failed tasks


def add_arguments(parser: ArgumentParser) -> None:
    parser.usage = USAGE
    parser.add_argument("job", help="The command.")
    parser.add_argument(
        "--local",
        action="store_true",
        help="Run each task as a process on this machine, with the variables that Cloud Run would set.",
    )
    parser.add_argument(
        "--wait", action="store_true", help="Wait for the end of the run; exit with 1 if it failed."
    )
    parser.add_argument("--follow", action="store_true", help="As --wait, and print its log.")
    parser.add_argument(
        "--tasks", type=_tasks, metavar="N", help="The number of tasks. Default: `tasks` of the job."
    )
    parser.add_argument(
        "--env",
        type=_variable,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="An environment variable of this run. Can be repeated.",
    )
    parser.set_defaults(takes_job_arguments=True)


def _tasks(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ArgumentTypeError("expected a whole number") from None


def _variable(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise ArgumentTypeError("expected NAME=VALUE")  # Without the text, which may be a secret.
    return name, value


def run(command: BaseCommand, **options: Any) -> None:
    job = find_job(options["job"])
    arguments, tasks, env = options["job_arguments"], options["tasks"], dict(options["env"])
    if options["local"]:
        _run_locally(command, _using(job, env=env), arguments, tasks, env)
        return
    configured = _using(job, tasks=tasks, env=env)
    started = start(job.command_name, partial(configured.delay_argv, arguments))
    command.stdout.write(started.run_id)
    command.stdout.flush()
    if options["wait"] or options["follow"]:
        _wait(command, started.run_id, with_log=options["follow"])
    else:
        write_message(command, f"{next_command('show', started.run_id)} shows the run.")


def _using(job: CloudRunJobs, *, tasks: int | None = None, env: dict[str, str]) -> CloudRunJobs:
    """Return the job with the options of this run. Raises `InvalidArguments`, which names the option."""
    if tasks is None and not env:
        return job
    try:
        return job.using(tasks=tasks, env=env or None)
    except InvalidArguments as error:
        message = str(error.args[0]).replace(f"{job.command_name}: using(): ", "--", 1)
        raise InvalidArguments(message, hint=error.hint) from None


def _wait(command: BaseCommand, run_id: str, *, with_log: bool) -> None:
    found = JobRun.objects.get(pk=run_id)
    source = source_of(found, LogQuery()) if with_log else None
    if with_log and source is None:
        write_message(command, not_kept(found))
    ended = follow(command, found, source, EntryWriter(command, found).write)
    check_outcome(ended)
    write_message(command, f"{state_text(ended)}. {next_command('show', run_id)} shows it.")


def _run_locally(
    command: BaseCommand, job: CloudRunJobs, arguments: Sequence[str], tasks: int | None, env: dict[str, str]
) -> None:
    count = job.spec.tasks if tasks is None else tasks
    if not 1 <= count <= MAX_LOCAL_TASKS:
        message = f"--tasks: expected 1 to {MAX_LOCAL_TASKS} with --local, got {count}."
        raise CommandError(message, returncode=ERROR)
    validated = command_line.validate(job, (job.command_name, *arguments), {})
    execution = LocalExecution(job.spec, validated, count, (command.stdout, command.stderr), env)
    try:
        execution.wait()
    except KeyboardInterrupt:
        message = _joined("Interrupted: the run is cancelled, and its tasks have ended.", _rest(execution.run))
        raise CommandError(message, returncode=INTERRUPTED) from None
    except Cancelled:
        message = _joined("The run was cancelled, and its tasks have ended.", _rest(execution.run))
        raise CommandError(message, returncode=FAILED) from None
    run = execution.run
    shown = f"{next_command('show', run.pk)} shows the run." if run else ""
    if failed := execution.failed:
        listed = ", ".join(task.prefix.strip() for task in failed[:MAX_LISTED])
        listed += ", ..." if len(failed) > MAX_LISTED else ""
        raise CommandError(_joined(f"{len(failed)} of {count} tasks failed: {listed}.", error_of(run), shown))
    if run is not None and run.status == Status.FAILED:
        raise CommandError(_joined(f"The run failed ({run.reason}).", error_of(run), shown))
    write_message(
        command, _joined(f"{count} tasks have ended: {run.status if run else 'without a record'}.", shown)
    )


def _rest(run: JobRun | None) -> str:
    """Return the command that runs the tasks that are not done: in this process, without `--local`."""
    return f"{next_command('rerun', run.pk, '--failed')} runs the rest in one process." if run else ""


def _joined(*sentences: str) -> str:
    return " ".join(filter(None, sentences))
