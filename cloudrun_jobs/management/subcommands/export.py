"""Writes what jobs declare for Terraform, for gcloud, or as YAML."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from cloudrun_jobs.backends.cloudrun import CloudRunBackend
from cloudrun_jobs.deploy import jobs as job_declarations
from cloudrun_jobs.deploy import schedules
from cloudrun_jobs.deploy.export import FORMATS, Declarations
from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.management.selection import ERROR, add_commands, cloudrun_backend, selected_jobs

HELP = "Write the jobs and schedules for Terraform, for gcloud, or as YAML, to stdout."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--format", choices=FORMATS, required=True, help="What to write.")
    parser.add_argument("--image", help="The image of all jobs whose class names none.")
    add_commands(parser)


def run(command: BaseCommand, **options: Any) -> None:
    try:
        declarations = _declarations(cloudrun_backend(), options)
    except CloudRunJobsError as error:
        raise CommandError(str(error), returncode=ERROR) from error
    command.stdout.write(FORMATS[options["format"]](declarations), ending="")
    _tell_rest(command, declarations, options["format"])


def _declarations(backend: CloudRunBackend, options: dict[str, Any]) -> Declarations:
    jobs = selected_jobs(options["commands"])
    settings = backend.settings
    return Declarations(
        project=settings.project,
        region=settings.region,
        scheduler_region=backend.scheduler_region or settings.region,
        jobs=job_declarations.declared(jobs, backend, image=options["image"]),
        schedules=schedules.declared(jobs, backend),
    )


def _tell_rest(command: BaseCommand, declarations: Declarations, format: str) -> None:  # noqa: A002
    """Say on stderr what is not in it."""
    if format == "terraform":
        for label in declarations.ungranted:
            words = f"{label}: names no service_account, so nobody is granted the secrets that it reads."
            command.stderr.write(command.style.WARNING(words), str)
    elif format == "yaml" and declarations.schedules:
        words = "The schedules are not in it: YAML is for the jobs. --format gcloud has both."
        command.stderr.write(command.style.WARNING(words), str)
