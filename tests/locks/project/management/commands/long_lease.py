"""The same work, with a lease that is longer than the lock backend's."""

from __future__ import annotations

from tests.locks.project.management.commands import work


class Command(work.Command):
    """A job that may hold the GIL for longer than the lock backend's lease."""

    help = "Work for some seconds under a lease of two minutes"
    lock_lease = 120
