"""The transactions of a TestCase are not those of the project: a request does not wait for their end."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from django.db import connections, transaction
from django.test import TestCase
from pytest_django import Settings

from cloudrun_jobs.models import JobRun, Status
from tests.backends.server import CloudRun
from tests.jobs.management.commands import echo
from tests.runs.conftest import cloud

__all__ = ["cloud"]


class TransactionsOfTests(TestCase):
    """Each test is in a transaction of two databases."""

    databases = {"default", "orders"}
    cloud: CloudRun

    @classmethod
    def setUpClass(cls) -> None:
        path = Path(cls.enterClassContext(TemporaryDirectory())) / "orders"
        connections.settings["orders"] = {**connections.settings["default"], "NAME": str(path)}
        super().setUpClass()

    @classmethod
    def tearDownClass(cls) -> None:
        super().tearDownClass()
        connections["orders"].close()
        del connections["orders"], connections.settings["orders"]

    @pytest.fixture(autouse=True)
    def _cloud(self, cloud: CloudRun, settings: Settings) -> None:
        self.cloud = cloud

    def test_a_request_is_sent_at_once(self) -> None:
        operation = echo.Command().delay()

        assert len(self.cloud.requests) == 1
        assert operation.run.status == Status.SENT

    def test_a_block_in_the_records_database(self) -> None:
        with self.captureOnCommitCallbacks(execute=True) as callbacks, transaction.atomic():
            echo.Command().delay()
            assert (self.cloud.requests, JobRun.objects.count()) == ([], 1)

        assert (len(callbacks), len(self.cloud.requests)) == (1, 1)

    def test_a_block_in_another_database(self) -> None:
        with self.captureOnCommitCallbacks(using="orders", execute=True), transaction.atomic(using="orders"):
            echo.Command().delay()
            assert (self.cloud.requests, JobRun.objects.count()) == ([], 0)

        assert (len(self.cloud.requests), JobRun.objects.get().status) == (1, Status.SENT)

    def test_a_block_that_nothing_commits(self) -> None:
        with transaction.atomic(using="orders"):
            operation: Any = echo.Command().delay()

        assert (self.cloud.requests, JobRun.objects.count()) == ([], 0)
        assert not operation.done()
