"""Check the deployment, and show the fix for each finding."""

from __future__ import annotations

import shutil
import sys
from argparse import ArgumentParser
from collections.abc import Collection, Iterator, Mapping
from itertools import groupby
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError

from cloudrun_jobs.doctor import Finding
from cloudrun_jobs.exceptions import ServiceError
from cloudrun_jobs.management.exits import ERROR, FAILED
from cloudrun_jobs.management.finding import unknown_job
from cloudrun_jobs.management.output import add_json_option, next_command, write_json, write_message
from cloudrun_jobs.management.selection import add_command_option, cloudrun_backend
from cloudrun_jobs.registry import find_jobs
from cloudrun_jobs.suggestions import did_you_mean
from cloudrun_jobs.terminal import escape

if TYPE_CHECKING:
    from cloudrun_jobs.doctor.facts import Facts

HELP = "Check Google's services, the database and the lock server, and show the fix for each finding."
MAX_COLUMNS = 120
PROJECT = "The project"  # The heading of findings that do not belong to one job.


def add_arguments(parser: ArgumentParser) -> None:
    add_command_option(parser)
    parser.add_argument(
        "--execute",
        action="store_true",
        help="Also run `manage.py check` in the container of each job, as an execution.",
    )
    parser.add_argument(
        "--skip", action="extend", nargs="+", default=[], metavar="ID", help="Leave out findings with these ids."
    )
    add_json_option(parser)


def run(command: BaseCommand, **options: Any) -> None:
    backend = cloudrun_backend()
    # Google's clients take most of a second to import.
    from cloudrun_jobs.doctor.examination import check_connection, examine
    from cloudrun_jobs.doctor.facts import Facts
    from cloudrun_jobs.doctor.table import EXECUTION_FAILED

    _check_ids(options["skip"])
    found = find_jobs()
    commands = options["commands"]
    for name in commands or ():
        if name not in {**found.jobs, **found.unreadable}:
            raise unknown_job(name, found.jobs)
    jobs = [job for name, job in found.jobs.items() if commands is None or name in commands]
    unreadable = {n: error for n, error in found.unreadable.items() if commands is None or n in commands}
    facts = Facts(backend, jobs, unreadable=unreadable, commands=commands)
    try:
        check_connection(facts)
    except ServiceError as error:
        raise CommandError(str(error), returncode=ERROR) from error
    if not options["json"]:
        _write_account(command, facts)
    findings, not_checked = examine(facts, options["skip"])
    if options["execute"] and EXECUTION_FAILED not in options["skip"]:
        findings += _check_containers(command, facts, [*findings], not_checked)
    _write(command, findings, options)
    _write_notes(command, facts, not_checked)
    missing = {id_ for ids in not_checked.values() for id_ in ids}
    if not options["json"]:
        write_message(command, _summary(findings, jobs, len(missing)))
    if findings or missing:
        sys.exit(FAILED if findings else ERROR)


def _check_ids(ids: Collection[str]) -> None:
    from cloudrun_jobs.doctor.table import IDS

    for id_ in ids:
        if id_ not in IDS:
            raise CommandError(f"--skip: unknown id {id_!r}. {did_you_mean(id_, IDS)}".strip(), returncode=ERROR)


def _check_containers(
    command: BaseCommand, facts: Facts, found: list[Finding], not_checked: dict[str, list[str]]
) -> Iterator[Finding]:
    from cloudrun_jobs.doctor.execution import check_containers
    from cloudrun_jobs.doctor.table import EXECUTION_FAILED

    write_message(command, "Running `manage.py check` in the containers of the jobs.")
    for result in check_containers(facts, found):
        if isinstance(result, Finding):
            yield result
        else:
            not_checked.setdefault(str(result), []).append(EXECUTION_FAILED)


def _write_account(command: BaseCommand, facts: Facts) -> None:
    try:
        account = facts.account() or "an account that cannot be determined"
    except ServiceError as error:
        account = f"an account that cannot be determined ({error})"
    write_message(command, f"Checking {facts.project}, {facts.region}, as {account}.")


def _write(command: BaseCommand, findings: list[Finding], options: dict[str, Any]) -> None:
    if options["json"]:
        write_json(command, [finding._asdict() for finding in findings], indent=2)
        return
    columns = min(shutil.get_terminal_size().columns, MAX_COLUMNS)
    by_job = sorted(findings, key=lambda finding: finding.job or "")
    for number, (job, group) in enumerate(groupby(by_job, key=lambda finding: finding.job)):
        command.stdout.write("\n" * bool(number) + escape(job or PROJECT))
        for finding in group:
            command.stdout.write(f"  {command.style.ERROR(finding.id)}")
            for line in wrap(escape(finding.message), columns - 4, break_on_hyphens=False, break_long_words=False):
                command.stdout.write(f"    {line}")
            command.stdout.write(f"    {command.style.SUCCESS(escape(finding.fix))}")


def _write_notes(command: BaseCommand, facts: Facts, not_checked: Mapping[str, Collection[str]]) -> None:
    from cloudrun_jobs.doctor.checks.jobs import unchecked_images
    from cloudrun_jobs.doctor.checks.schedules import paused
    from cloudrun_jobs.doctor.checks.service import unchecked_url

    for message, ids in not_checked.items():
        write_message(command, f"Not checked: {', '.join(ids)}. {message}", command.style.WARNING)
    try:
        for image in unchecked_images(facts):
            write_message(command, f"Not checked: the image {image} is not in Artifact Registry.")
        if url := unchecked_url(facts):
            hint = "as an audience, by `gcloud run services update NAME --add-custom-audiences=URL`."
            write_message(command, f"Not checked: the service at {url}. It is found if it names this URL {hint}")
        for name, scheduler_job in paused(facts):
            hint = f"{next_command('resume', name)} resumes it."
            write_message(command, f"{scheduler_job} was paused by hand. {hint}")
    except ServiceError:
        pass  # It is already in the list above.


def _summary(findings: list[Finding], jobs: Collection[object], missing: int) -> str:
    if not findings:
        count = f"{len(jobs)} job{'s' * (len(jobs) != 1)}"
        but = f", but {missing} check{'s' * (missing > 1)} could not run" if missing else ""
        return f"No findings in {count}{but}. {next_command('list')} lists the jobs."
    count = f"{len(findings)} finding{'s' * (len(findings) > 1)}"
    return f"{count}. Run the commands above, then {next_command('doctor')} again."
