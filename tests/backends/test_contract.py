"""Every backend passes the contract: ours, and two that are written as a user would."""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import Any

import grpc
import pytest
from celery import Celery
from django.core.management import get_commands
from google.cloud import run_v2
from pytest_django import Settings

from cloudrun_jobs.backends import Backend
from cloudrun_jobs.exceptions import JobInterrupted
from cloudrun_jobs.execution.delivery import deliver, receive
from cloudrun_jobs.models import JobRun, TaskRun
from cloudrun_jobs.registry import find_job
from cloudrun_jobs.testing import BackendContract
from cloudrun_jobs.testing.management.commands.backend_contract import Command
from tests.backends import own
from tests.backends.server import CloudRun
from tests.servers.process import free_port

app = Celery("contract")
ACCOUNT = "app-jobs@acme.iam.gserviceaccount.com"
ENDED = "2026-01-02T00:00:00Z"
LOCKS = {"BACKEND": "cloudrun_jobs.locks.local.LocalLocks"}


@pytest.fixture(autouse=True)
def _contract_app(settings: Settings) -> Iterator[None]:
    """Install the job of the contract, as the settings of a user's tests do."""
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "cloudrun_jobs.testing"]
    get_commands.cache_clear()
    yield
    get_commands.cache_clear()


def use(settings: Settings, backend: type[Backend], alias: str = "", **options: Any) -> None:
    """Configure the backend as the default one, or under an alias that the job is routed to."""
    entry = {"BACKEND": f"{backend.__module__}.{backend.__qualname__}", "OPTIONS": options}
    named = {"BACKENDS": {alias: entry}, "ROUTES": {"backend_*": alias}, "PROJECT": "acme", "REGION": "asia-east1"}
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production", "LOCKS": LOCKS, **(named if alias else entry)}


class TestInline(BackendContract):
    @pytest.fixture(autouse=True)
    def _configured(self, settings: Settings) -> None:
        settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test"}


class TestCloudRun(BackendContract):
    """The server of the tests starts no container, so `work()` is one."""

    @pytest.fixture(autouse=True)
    def _configured(self, settings: Settings, cloud_run: CloudRun, monkeypatch: pytest.MonkeyPatch) -> None:
        options = {**settings.CLOUDRUN_JOBS["OPTIONS"], "service_account": ACCOUNT}
        settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "OPTIONS": options}
        self.cloud_run, self.monkeypatch, self.started = cloud_run, monkeypatch, 0
        cloud_run.on_cancel = lambda: os.kill(os.getpid(), signal.SIGTERM)

    def work(self) -> None:
        for request in self.cloud_run.requests[self.started :]:
            self.started += 1
            self._run(request)

    def _run(self, request: run_v2.RunJobRequest) -> None:
        """Run the tasks of a request, each in a container, and report their outcome."""
        [overrides] = request.overrides.container_overrides
        count, name = request.overrides.task_count or 1, self.cloud_run.execution.name
        variables = {variable.name: variable.value for variable in overrides.env}
        variables["CLOUD_RUN_JOB"] = request.name.rpartition("/")[2]
        variables["CLOUD_RUN_EXECUTION"], variables["CLOUD_RUN_TASK_COUNT"] = name.rpartition("/")[2], str(count)
        codes = [
            self._exit_code([*overrides.args], {**variables, "CLOUD_RUN_TASK_INDEX": str(index)})
            for index in range(count)
        ]
        cancelled = count if name in self.cloud_run.cancelled else 0
        succeeded = codes.count(0)
        self.cloud_run.execution = run_v2.Execution(
            name=name,
            task_count=count,
            succeeded_count=succeeded,
            cancelled_count=cancelled,
            failed_count=count - succeeded - cancelled,
            completion_time=ENDED,
        )

    def _exit_code(self, arguments: list[str], variables: dict[str, str]) -> int:
        with self.monkeypatch.context() as patched:
            for name, value in variables.items():
                patched.setenv(name, value)
            patched.setattr(sys, "argv", ["manage.py", *arguments])
            patched.setattr(Command, "requires_system_checks", [])
            try:
                Command().run_from_argv(sys.argv)
            except (ValueError, JobInterrupted, SystemExit):
                return 1
            finally:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)  # As a new process has it.
        return 0

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.cloud_run.errors = [(grpc.StatusCode.UNAVAILABLE, "an outage")] * 100
        self.cloud_run.errors_of_searches = list(self.cloud_run.errors)
        yield
        self.cloud_run.errors, self.cloud_run.errors_of_searches = [], []
        self.started = len(self.cloud_run.requests)


class TestCelery(BackendContract):
    """The messages are taken from a real broker; `work()` is the worker."""

    @pytest.fixture(autouse=True)
    def _configured(self, settings: Settings, redis_url: str) -> Iterator[None]:
        from cloudrun_jobs.backends.celery import CeleryBackend

        app.conf.broker_url = redis_url
        name = f"{__name__}.app"
        use(settings, CeleryBackend, alias="celery", app=name, queues=["contract"], send_deadline=1)
        with app.connection_for_read() as broker:
            self.queue = broker.SimpleQueue("contract")
            self.queue.clear()
            yield
            self.queue.clear()

    def work(self) -> None:
        while message := self._next():
            task_id, [[run_id], *_] = message.headers["id"], message.payload
            run, index = JobRun.objects.filter(pk=run_id).first(), int(task_id.partition(".")[2] or 0)
            if run is not None:
                deliver(find_job(run.command), receive(run, index, "celery@here/1"))
            message.ack()

    def _next(self) -> Any:
        try:
            return self.queue.get(block=False)
        except Empty:
            return None

    @contextmanager
    def outage(self) -> Iterator[None]:
        app.conf.broker_url, url = f"redis://127.0.0.1:{free_port()}/0", app.conf.broker_url
        yield
        app.conf.broker_url = url


class TestThreads(BackendContract):
    """A backend of a user that declares no flag but one."""

    @pytest.fixture(autouse=True)
    def _configured(self, settings: Settings) -> Iterator[None]:
        use(settings, own.ThreadBackend, alias="threads")
        yield
        while own.ThreadBackend.threads:
            own.ThreadBackend.threads.pop().join(30)


def test_an_attempt_is_recorded_with_its_process(settings: Settings, transactional_db: None) -> None:
    """The contract's job, run by a user's backend, says where it ran."""
    use(settings, own.ThreadBackend)
    Command().delay().result(timeout=30)

    assert TaskRun.objects.get().process == f"threads/{os.getpid()}"


def test_the_page_has_the_backend_of_the_tests() -> None:
    """The example of the documentation passes the contract."""
    page = (Path(__file__).parents[2] / "docs" / "backends.md").read_text()

    assert inspect.getsource(own.ThreadBackend) + "\n\n" + inspect.getsource(own.work) in page
