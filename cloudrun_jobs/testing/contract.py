"""The tests that every backend passes: what callers of `delay()` and `reserve()` rely on."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings
from django.core.checks import ERROR, CheckMessage
from django.db import connections, transaction
from django.test import override_settings

from cloudrun_jobs import backends
from cloudrun_jobs.backends import Backend
from cloudrun_jobs.exceptions import (
    InvalidArguments,
    InvalidSettings,
    JobCancelled,
    JobFailed,
    ServiceError,
)
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.operations import Operation
from cloudrun_jobs.runs import dispatch
from cloudrun_jobs.runs.reconcile import reconcile
from cloudrun_jobs.testing.management.commands.backend_contract import VARIABLE, Command

AWKWARD = ["", "-x --y", "two\nlines", "é 猫", "a'b\"c", "$HOME *"]
CLEANUP_SECONDS = 5.0  # On top of `send_deadline`.


class BackendContract:
    """The tests of a backend. Subclass it, and configure the backend in an autouse fixture.

    The settings need `cloudrun_jobs.testing` in INSTALLED_APPS, an ENVIRONMENT other than "local" and "test", and
    the backend as BACKEND, or as the one that ROUTES name for the job `backend_contract`. The tests use
    pytest-django, and a database that the backend's processes share with them. A test of what the backend's flags
    exclude checks that the call is refused, and is skipped if nothing can be refused.
    """

    pytestmark = pytest.mark.django_db(transaction=True)

    #: The seconds that a test waits for the end of a run.
    timeout = 30.0

    def work(self) -> None:
        """Run what has been submitted, if the backend's workers do not do so by themselves."""

    def outage(self) -> AbstractContextManager[object] | None:
        """Return a context manager in which the backend's service is unavailable; None to skip those tests.

        Set `send_deadline` to a second or two.
        """
        return None

    @pytest.fixture(autouse=True)
    def _installed_job(self) -> None:
        if not apps.is_installed("cloudrun_jobs.testing"):
            pytest.fail("Add 'cloudrun_jobs.testing' to INSTALLED_APPS in the settings of the tests.")

    @pytest.fixture
    def backend(self) -> Backend:
        """The backend of the job."""
        return backends.for_job(Command().spec)

    @pytest.fixture
    def log(self, tmp_path: Path) -> Path:
        """A file with a line for each call of `run()`."""
        return tmp_path / "calls"

    def test_flags_are_consistent(self, backend: Backend) -> None:
        """What is running can be ended: the heartbeat follows a cancellation only in a worker."""
        assert backend.runs_in_process or backend.supports_terminate or not backend.tracks_executions

    def test_run_has_a_handle(self, backend: Backend) -> None:
        """`delay()` records the run, and returns a handle that another process can get from the record."""
        operation = Command().delay()
        self.work()
        run, again = operation.run, operation.run.operation

        assert (str(run.pk), run.backend, run.command) == (operation.run_id, backend.alias, "backend_contract")
        assert again.run_id == operation.run_id
        if not backend.runs_in_process:
            assert run.execution_name == operation.execution_name == again.execution_name != ""
            assert run.execution == run.execution_name.rpartition("/")[2]

    def test_result(self) -> None:
        """After a success, every handle returns what `run()` returned."""
        operation = Command().delay(value=["a"])
        self.work()

        assert operation.result(timeout=self.timeout)["value"] == ["a"]
        assert _ending(operation) == (True, False, False)
        assert operation.exception() is None
        run = operation.run
        assert (run.status, run.succeeded_count, run.operation.result()["value"]) == (Status.SUCCEEDED, 1, ["a"])

    def test_failure(self, backend: Backend) -> None:
        """An error in `run()` reaches the caller of a backend in process; otherwise, the handle raises it."""
        if backend.runs_in_process:
            with pytest.raises(ValueError, match="raised by the job"):
                Command().delay(ending="raise")
            operation = JobRun.objects.get().operation
        else:
            operation = Command().delay(ending="raise")
            self.work()

        with pytest.raises(JobFailed, match="raised by the job"):
            operation.result(timeout=self.timeout)
        assert isinstance(operation.exception(), JobFailed)
        assert _ending(operation) == (True, False, False)
        run = operation.run
        assert (run.status, run.error_class, run.failed_count) == (Status.FAILED, "ValueError", 1)

    def test_arguments_arrive_unchanged(self) -> None:
        """Nothing between the call and `run()` splits, quotes or drops an argument."""
        operation = Command().delay(value=AWKWARD)
        self.work()

        assert operation.result(timeout=self.timeout)["value"] == AWKWARD

    def test_variables_are_set(self) -> None:
        """The variables of `using(env=...)` are in the environment of the run, and of no earlier one."""
        values = []
        for job in (Command(), Command().using(env={VARIABLE: "given"})):
            operation = job.delay()
            self.work()
            values.append(operation.result(timeout=self.timeout)["variable"])

        assert values == [None, "given"]

    def test_callbacks_are_called(self) -> None:
        """A callback is called with the handle once the run has ended."""
        operation, called = Command().delay(), Event()
        operation.add_done_callback(lambda ended: called.set() if ended is operation else None)
        self.work()

        assert called.wait(self.timeout)

    def test_submitted_after_the_commit(self, backend: Backend, log: Path) -> None:
        """A run that is requested in a transaction starts after its commit."""
        _skip_if(backend.runs_in_process, "It runs the job during the call.")
        with transaction.atomic():
            operation = Command().delay(log=log)
            self.work()
            assert not log.exists()
            assert operation.run.status == Status.PENDING
        self.work()

        operation.result(timeout=self.timeout)
        assert _calls(log) == 1

    def test_rollback_submits_nothing(self, backend: Backend, log: Path) -> None:
        """A run whose transaction is rolled back is neither recorded nor submitted."""
        _skip_if(backend.runs_in_process, "It runs the job during the call.")
        with transaction.atomic():
            Command().delay(log=log)
            transaction.set_rollback(True)
        self.work()

        assert not JobRun.objects.exists()
        assert not log.exists()

    def test_cancelled_before_it_is_submitted(self, backend: Backend, log: Path) -> None:
        """A run that is cancelled before the commit is not submitted."""
        _skip_if(backend.runs_in_process, "It runs the job during the call.")
        with transaction.atomic():
            operation = Command().delay(log=log)
            assert operation.cancel()
        self.work()

        with pytest.raises(JobCancelled):
            operation.result(timeout=self.timeout)
        assert _ending(operation) == (True, False, True)
        assert operation.cancel() is False
        assert (operation.run.status, log.exists()) == (Status.CANCELLED, False)

    def test_cancelled_while_it_runs(self, backend: Backend) -> None:
        """`cancel()` interrupts `run()`: at once if the backend can, otherwise at the next `progress()`."""
        _skip_if(backend.runs_in_process, "It runs the job during the call.")
        operation = Command().delay(ending="wait")
        canceller = Thread(target=_cancel_once_running, args=(operation.run_id, self.timeout))
        canceller.start()
        self.work()
        canceller.join()

        with pytest.raises(JobCancelled):
            operation.result(timeout=self.timeout)
        assert _ending(operation) == (True, False, True)
        assert (operation.run.status, operation.run.reason) == (Status.CANCELLED, "cancelled")

    def test_repeated_submission(self, backend: Backend, log: Path) -> None:
        """A run is found if it was submitted, or may be submitted twice: `run()` is called once."""
        _skip_if(backend.runs_in_process, "It runs the job during the call.")
        operation = Command().delay(log=log)
        request = dispatch.request_of(operation.run)
        if backend.tracks_executions:
            found = backend.find(request, timeout=self.timeout)
            assert found is not None
            assert found.execution_name == operation.execution_name
        else:
            again = backend.submit(operation.run, request, timeout=self.timeout)
            assert again.execution_name == operation.execution_name
        self.work()

        operation.result(timeout=self.timeout)
        if not backend.tracks_executions:
            backend.submit(operation.run, request, timeout=self.timeout)
            self.work()
        assert (_calls(log), operation.run.tasks.get().attempt) == (1, 0)

    def test_unknown_run_is_not_found(self, backend: Backend) -> None:
        """`find()` returns nothing for a run that was not submitted."""
        _skip_if(backend.runs_in_process or not backend.tracks_executions, "It tracks no executions.")
        Command().delay()
        unsent = dispatch.request_of(JobRun(command="backend_contract", argv=["backend_contract"]))

        assert backend.find(unsent, timeout=self.timeout) is None

    @pytest.mark.parametrize(("ending", "status"), [("return", Status.SUCCEEDED), ("raise", Status.FAILED)])
    def test_state(self, backend: Backend, ending: str, status: Status) -> None:
        """`get_state()` reports the end of the execution, and how many of its tasks succeeded."""
        _skip_if(backend.runs_in_process or not backend.tracks_executions, "It tracks no executions.")
        operation = Command().delay(ending=ending)
        self.work()
        operation.exception(timeout=self.timeout)
        state = _wait(lambda: _ended_state(backend, operation), self.timeout)

        succeeded = int(status == Status.SUCCEEDED)
        assert (state.status, state.task_count) == (status, 1)
        assert (state.succeeded_count, state.failed_count) == (succeeded, 1 - succeeded)

    def test_reservation(self, backend: Backend, log: Path) -> None:
        """A reserved run waits, and can be cancelled; in process, it runs at once."""
        if not backend.supports_reserve:
            with pytest.raises(InvalidSettings, match=r"reserve\(\): expected .*, got \w+"):
                Command().reserve(3600)
            assert not JobRun.objects.exists()
            return
        operation = Command().reserve(3600, log=log)
        self.work()
        if backend.runs_in_process:
            assert operation.run.status == Status.SUCCEEDED
            return
        run = operation.run

        assert (run.status, operation.done(), log.exists()) == (Status.PENDING, False, False)
        assert run.scheduled_for is not None
        assert run.cancel()
        self.work()
        assert operation.cancelled()
        assert not log.exists()

    def test_tasks(self, backend: Backend) -> None:
        """A run has as many tasks as `using(tasks=...)` says, each with its index."""
        job = Command().using(tasks=2)
        if not backend.supports_tasks:
            with pytest.raises(InvalidArguments, match=r"using\(tasks=2\): expected .*, got \w+"):
                job.delay()
            assert not JobRun.objects.exists()
            return
        _skip_if(backend.runs_in_process, "It does not enforce the number of tasks.")
        operation = job.delay(value=["a"])
        self.work()

        found = [(result["index"], result["value"]) for result in operation.results(timeout=self.timeout)]
        assert found == [(0, ["a"]), (1, ["a"])]
        assert operation.run.succeeded_count == 2

    def test_elements(self, backend: Backend) -> None:
        """`delay_many()` starts one run with a task for each element; a failure is that of its element."""
        elements: list[dict[str, Any]] = [{"value": ["a"]}, {"ending": "raise"}, {"value": ["b"]}]
        if not backend.supports_tasks:
            with pytest.raises(InvalidArguments, match=r"delay_many\(\): expected .*, got \w+"):
                Command().delay_many(elements)
            assert not JobRun.objects.exists()
            return
        operation = Command().delay_many(elements)
        self.work()
        first, failed, last = operation.results(timeout=self.timeout)

        assert (first["value"], type(failed), last["value"]) == (["a"], JobFailed, ["b"])
        assert (operation.run.status, operation.run.succeeded_count) == (Status.FAILED, 2)

    def test_unknown_options_are_refused(self, backend: Backend) -> None:
        """An option that the backend does not have is an error of the call."""
        configured: Any = settings.CLOUDRUN_JOBS
        options: dict[str, Any] = {"OPTIONS": {"no_such_option": 1}}
        if backend.alias:
            entry = {**configured["BACKENDS"][backend.alias], **options}
            options = {"BACKENDS": {**configured["BACKENDS"], backend.alias: entry}}
        refused = pytest.raises(InvalidSettings, match="no option 'no_such_option'")
        with override_settings(CLOUDRUN_JOBS={**configured, **options}), refused:
            Command().delay()

        assert not JobRun.objects.exists()

    def test_checks_find_no_error(self, backend: Backend) -> None:
        """The configuration of the tests passes the backend's own checks."""
        found = [*backend.check(), *backend.check_jobs([Command().spec])]

        assert all(isinstance(message, CheckMessage) for message in found)
        assert [message for message in found if message.level >= ERROR] == []

    def test_outage(self, backend: Backend) -> None:
        """Outside a transaction, `delay()` raises within `send_deadline`, and the run has failed."""
        outage = self.outage()
        if outage is None:
            pytest.skip("The test class has no outage().")
        started = time.monotonic()
        with outage, pytest.raises(ServiceError):
            Command().delay()

        assert time.monotonic() - started < backend.send_deadline + CLEANUP_SECONDS
        run = JobRun.objects.get()
        assert run.status == Status.FAILED
        assert run.reason in dispatch.UNDISPATCHED_REASONS

    def test_outage_after_a_transaction(self, backend: Backend) -> None:
        """A run that is requested in a transaction waits for `reconcile`."""
        outage = self.outage()
        if outage is None:
            pytest.skip("The test class has no outage().")
        with outage, transaction.atomic():
            operation = Command().delay(value=["a"])
        assert operation.run.status == Status.PENDING

        JobRun.objects.update(sending_until=Now())  # The lease of the dispatcher has expired.
        results = reconcile(backend)
        self.work()

        assert results["sent"] == 1
        assert operation.result(timeout=self.timeout)["value"] == ["a"]


def _skip_if(condition: bool, reason: str) -> None:
    if condition:
        pytest.skip(reason)


def _cancel_once_running(run_id: str, timeout: float) -> None:
    try:
        _wait(JobRun.objects.filter(pk=run_id, status=Status.RUNNING).first, timeout).cancel()
    finally:
        connections.close_all()  # This thread's.


def _ending(operation: Operation) -> tuple[bool, bool, bool]:
    return operation.done(), operation.running(), operation.cancelled()


def _calls(log: Path) -> int:
    return len(log.read_text().splitlines())


def _ended_state(backend: Backend, operation: Operation) -> Any:
    state = backend.get_state(operation.run)
    return state if state.status is not None else None


def _wait(probe: Callable[[], Any], timeout: float) -> Any:
    deadline = time.monotonic() + timeout
    while (value := probe()) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return value
