"""Export the declared jobs and schedules to other tools."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.urls import Resolver404, resolve

from cloudrun_jobs import conf
from cloudrun_jobs.backends.cloudrun import CloudRunBackend
from cloudrun_jobs.backends.cloudrun.targets import HEALTH_PATH
from cloudrun_jobs.deploy import jobs as job_declarations
from cloudrun_jobs.deploy import schedules, workers
from cloudrun_jobs.deploy.export import FORMATS, Declarations
from cloudrun_jobs.deploy.export.alerts import Alerts, channel_name, uptime_check
from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.management.exits import ERROR
from cloudrun_jobs.management.output import write_message
from cloudrun_jobs.management.selection import add_command_option, cloudrun_backend, selected_jobs

HELP = "Print the jobs and schedules for Terraform, for gcloud, or as YAML."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--format", choices=FORMATS, required=True, help="The format of the output.")
    parser.add_argument("--image", help="The image of the jobs whose class names none.")
    parser.add_argument(
        "--notification-channel",
        action="append",
        default=[],
        dest="channels",
        help="The notification channel of the alerts: its name or number. Can be repeated.",
    )
    parser.add_argument("--no-alerts", action="store_true", help="Print no alert policies.")
    add_command_option(parser)


def run(command: BaseCommand, **options: Any) -> None:
    try:
        declarations = _declarations(options)
        command.stdout.write(FORMATS[options["format"]](declarations), ending="")
    except CloudRunJobsError as error:
        raise CommandError(str(error), returncode=ERROR) from error
    for warning in _warnings(declarations, options["format"]):
        write_message(command, warning, command.style.WARNING)


def _declarations(options: dict[str, Any]) -> Declarations:
    backend = cloudrun_backend()
    jobs = selected_jobs(options["commands"])
    return Declarations(
        project=backend.settings.project,
        region=backend.settings.region,
        scheduler_region=backend.scheduler_region or backend.settings.region,
        jobs=job_declarations.desired(jobs, backend, image=options["image"]),
        schedules=schedules.desired(jobs, backend),
        worker_pools=workers.desired(backend, image=options["image"]) if options["commands"] is None else (),
        alerts=None if options["no_alerts"] else _alerts(backend, options["channels"]),
    )


def _alerts(backend: CloudRunBackend, channels: list[str]) -> Alerts:
    return Alerts(
        environment=backend.settings.environment,
        service_url=backend.service_url,
        channels=[channel_name(channel, backend.settings.project) for channel in channels],
    )


def _warnings(declarations: Declarations, output_format: str) -> list[str]:
    """Return what the output does not contain."""
    warnings = []
    if declarations.alerts and uptime_check(declarations.alerts) and output_format != "yaml":
        warnings += _health_warnings()
    if output_format == "terraform":
        message = "{}: names no service_account, so no account gets access to its secrets."
        return [*warnings, *(message.format(label) for label in declarations.jobs_without_access)]
    if output_format == "yaml" and declarations.schedules:
        warnings.append("YAML contains only the jobs. Use --format gcloud for the schedules.")
    if declarations.worker_pools:
        warnings.append("The output has no worker pools. Use --format terraform for those of Celery.")
    return warnings


def _health_warnings() -> list[str]:
    from cloudrun_jobs.http import credentials  # A project without the HTTP API need not import it.

    try:
        resolve(HEALTH_PATH)
    except Resolver404:
        return [
            f"The uptime check fails: this project has no URL {HEALTH_PATH}. Include cloudrun_jobs.urls there."
        ]
    if credentials.load().has_public_health:
        return []
    setting = conf.setting_name("HTTP", "HEALTH")
    return [f'The uptime check of health/ fails, because it sends no credentials. Set {setting} to "public".']
