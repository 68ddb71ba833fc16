"""The same work, with its locks renewed by another process."""

from __future__ import annotations

from tests.locks.project.management.commands import work


class Command(work.Command):
    """A job that may hold the interpreter's lock for as long as it likes."""

    help = "Work for some seconds without letting other threads run"
    heartbeat = "process"
    timeout = 60
