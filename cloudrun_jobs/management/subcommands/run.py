"""Run a job."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from cloudrun_jobs import command_line
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.management.local_execution import LocalExecution, Output
from cloudrun_jobs.management.output import write_message
from cloudrun_jobs.management.selection import selected_jobs

HELP = "Run a job. Its own arguments follow `--`."
USAGE = "%(prog)s [-h] [--local] [--tasks N] job [-- ARGUMENT ...]"
MAX_LOCAL_TASKS = 1000  # Processes on one machine.
INTERRUPTED = 130  # exit status


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
    [job] = selected_jobs([options["job"]])
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
        raise CommandError(f"--tasks: expected 1 to {MAX_LOCAL_TASKS} with --local, got {count}.")
    validated = command_line.validate(job, (job.command_name, *arguments), {})
    execution = LocalExecution(job.spec, validated, count, Output(command.stdout, command.stderr))
    try:
        execution.wait()
    except KeyboardInterrupt:
        raise CommandError("Interrupted: all tasks have ended.", returncode=INTERRUPTED) from None
    run = execution.run
    shown = f" `manage.py cloudrun_jobs show {str(run.pk)[:8]}` shows the run." if run else ""
    if failed := execution.failed:
        tasks_failed = ", ".join(map(str, failed[:20])) + (" ..." if len(failed) > 20 else "")
        raise CommandError(f"{len(failed)} of {count} tasks failed: {tasks_failed}.{shown}")
    if run is not None and run.status == "failed":
        raise CommandError(f"The run failed: {run.error_message or run.reason}.{shown}")
    write_message(command, f"{count} tasks have ended: {run.status if run else 'without a record'}.{shown}")
