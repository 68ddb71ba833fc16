"""A job whose declarations and run() are those of an abstract class."""

from __future__ import annotations

from tests.jobs.base import NightlyJob


class Command(NightlyJob):
    help = "Do the nightly work"
    max_retries = 1

    def work(self) -> str:
        return "worked"
