"""Run the emulator: ``manage.py cloudrun_emulator``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand

from cloudrun_jobs.emulator import cli

if TYPE_CHECKING:
    from argparse import ArgumentParser


class Command(BaseCommand):
    help = "Serve a local Cloud Run and Cloud Scheduler for the Google clients and gcloud"
    # Tasks run in their own processes, which run the system checks that they need.
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        cli.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        status = cli.run(options)
        if status:
            sys.exit(status)
