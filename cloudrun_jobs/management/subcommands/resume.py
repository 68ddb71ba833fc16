"""Resume the schedules of a job."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from cloudrun_jobs.management import pausing

HELP = "Resume the paused schedules of a job."
add_arguments = pausing.add_arguments


def run(command: BaseCommand, **options: Any) -> None:
    pausing.set_paused(command, options["job"], paused=False)
