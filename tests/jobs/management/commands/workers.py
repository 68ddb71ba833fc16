"""A job that spreads its work over processes."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from django.core.management.base import CommandParser

from cloudrun_jobs import CloudRunJobs

NUMBERS = range(4)


def square(number: int) -> int:
    return number * number


class Command(CloudRunJobs):
    help = "Square numbers in other processes"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("pool", choices=["Pool", "ProcessPoolExecutor"])
        parser.add_argument("start_method", choices=multiprocessing.get_all_start_methods())

    def run(self, *args: Any, **options: Any) -> str:
        context = multiprocessing.get_context(options["start_method"])
        if options["pool"] == "Pool":
            with context.Pool(2) as pool:
                return str(pool.map(square, NUMBERS))
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            return str(list(executor.map(square, NUMBERS)))
