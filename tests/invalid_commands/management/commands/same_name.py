"""One of two jobs with the same Cloud Run name."""

from __future__ import annotations

from tests.jobs.base import NightlyJob


class Command(NightlyJob):
    help = "Do what the other does"
