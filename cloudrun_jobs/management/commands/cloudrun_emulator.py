"""Run the emulator: `manage.py cloudrun_emulator`. It needs Google's libraries, which are imported late."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand

if TYPE_CHECKING:
    from argparse import ArgumentParser


class Command(BaseCommand):
    help = "Serve a local Cloud Run, Cloud Scheduler and Cloud Tasks to Google's clients and gcloud."
    # Tasks run in their own processes, which run the system checks that they need.
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        from cloudrun_jobs.emulator import cli

        cli.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        from cloudrun_jobs.emulator import cli

        if status := cli.run(options):
            sys.exit(status)
