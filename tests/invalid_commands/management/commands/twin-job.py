"""One of two jobs that differ only in what Cloud Run's names lose."""

from __future__ import annotations

from tests.jobs.base import NightlyJob


class Command(NightlyJob):
    help = "Do what the other does"
