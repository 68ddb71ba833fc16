"""SIGCONT: Cloud Run has moved the process, and its connections may be dead."""

from __future__ import annotations

import signal

from django.db import connections, transaction

from cloudrun_jobs.execution import lease_watch
from cloudrun_jobs.models import JobRun
from tests.runs.conftest import request


def test_a_transaction_survives_sigcont(database: str) -> None:
    """A transaction that is open at that time is committed, and ends without an error."""
    with transaction.atomic(using=database):
        run = request()
        lease_watch.on_sigcont(signal.SIGCONT, None)

    assert connections[database].get_autocommit()
    assert JobRun.objects.get() == run


def test_a_dead_connection_is_replaced_after_sigcont(database: str) -> None:
    """The next query finds that the connection is dead, and uses another one."""
    run, connection = request(), connections[database]
    alive, connection.is_usable = connection.is_usable, lambda: False
    old = connection.connection
    lease_watch.on_sigcont(signal.SIGCONT, None)

    assert JobRun.objects.get() == run
    assert connection.connection is not old
    connection.is_usable = alive
