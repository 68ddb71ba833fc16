"""The same work, with two executions at once."""

from __future__ import annotations

from tests.locks.project.management.commands import work


class Command(work.Command):
    """A job that two executions may run at once."""

    help = "Work for some seconds, at most twice at once"
    overlap = "allow"
    parallelism = 2
