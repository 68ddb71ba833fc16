"""Declare one of each kind of argument."""

from __future__ import annotations

import argparse
from datetime import date
from typing import Any

from django.core.management.base import CommandParser

from cloudrun_jobs import CloudRunJobs


class Command(CloudRunJobs):
    help = "Return the options it was given"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("source")
        parser.add_argument("words", nargs="*")
        parser.add_argument("--day", type=date.fromisoformat)
        parser.add_argument("--many", nargs="+")
        parser.add_argument("--tag", action="append")
        parser.add_argument("--shop", action="extend", nargs="+", type=int)
        parser.add_argument("--dry-run", action="store_true")
        parser.add_argument("--wet", action="store_false")
        parser.add_argument("--mode", action="store_const", const="fast")
        parser.add_argument("--mail", action=argparse.BooleanOptionalAction)
        parser.add_argument("--size", choices=["s", "m"])
        parser.add_argument("-l", "--level", action="count", default=0)

    def run(self, *args: Any, **options: Any) -> Any:
        base = {"verbosity", "settings", "pythonpath", "traceback", "no_color", "force_color", "skip_checks"}
        return {name: value for name, value in options.items() if name not in base}
