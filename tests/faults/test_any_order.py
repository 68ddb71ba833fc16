"""Failures in any order: no run is lost, done twice or left unfinished."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from typing import ClassVar

import pytest
from google.api_core.exceptions import FailedPrecondition
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.models.statuses import UNFINISHED
from tests.emulator.cloud import PLACE, eventually, job
from tests.faults.conftest import PROGRAM, Scene

# For each line, calls delay() and prints the run's id or the name of an error.
SENDER = """
from django.db import transaction
import contextlib, json, sys
from cloudrun_jobs.exceptions import CloudRunJobsError
for line in sys.stdin:
    number, within = json.loads(line)
    try:
        with transaction.atomic() if within else contextlib.nullcontext():
            operation = Command().delay(number=number)
        print(operation.run_id, flush=True)
    except CloudRunJobsError as error:
        print(type(error).__name__, flush=True)
"""
CODES = ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "ABORTED", "RESOURCE_EXHAUSTED"]
STEPS = 200 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 60
REFUSALS = ["PERMISSION_DENIED", "NOT_FOUND", "INVALID_ARGUMENT"]


class Failures(RuleBasedStateMachine):
    """Callers, one job, and failures."""

    scene: ClassVar[Scene]

    def __init__(self) -> None:
        super().__init__()
        self.scene.clear()
        self.number = 0
        self.refused: set[int] = set()  # Calls that raised, or whose dispatch is refused: they must not be done.
        self.sender = self._sender()

    def _sender(self) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        environment = {**os.environ, **self.scene.environment, "SEND_DEADLINE": "2"}
        program = [sys.executable, "-c", PROGRAM + SENDER]
        sender = subprocess.Popen(program, env=environment, stdin=pipe, stdout=pipe, text=True)
        self.scene.senders.append(sender)
        return sender

    def _request(self, *, within: bool = False) -> None:
        self.number += 1
        self.sender.stdin.write(f"[{self.number}, {str(within).lower()}]\n")
        self.sender.stdin.flush()

    def _send(self, *, within: bool = False) -> None:
        self._request(within=within)
        if self.sender.stdout.readline().strip().isalpha():
            self.refused.add(self.number)
        self.scene.emulator.faults.clear()

    @rule(within=st.booleans())
    def no_failure(self, within: bool) -> None:
        self._send(within=within)

    @rule(code=st.sampled_from(CODES), times=st.integers(1, 3), within=st.booleans())
    def error_before_the_start(self, code: str, times: int, within: bool) -> None:
        self.scene.emulator.faults.fail("Jobs.RunJob", code, times=times)
        self._send(within=within)

    @rule(code=st.sampled_from(CODES), times=st.integers(1, 2), within=st.booleans())
    def lost_reply(self, code: str, times: int, within: bool) -> None:
        self.scene.emulator.faults.fail_after("Jobs.RunJob", code, times=times)
        self._send(within=within)

    @rule(code=st.sampled_from(CODES), within=st.booleans())
    def lost_reply_and_failing_search(self, code: str, within: bool) -> None:
        self.scene.emulator.faults.fail_after("Jobs.RunJob", code)
        self.scene.emulator.faults.fail("Executions.ListExecutions", "UNAVAILABLE", times=2)
        self._send(within=within)

    @rule(code=st.sampled_from(REFUSALS), within=st.booleans())
    def refused_request(self, code: str, within: bool) -> None:
        self.scene.emulator.faults.fail("Jobs.RunJob", code)
        self._send(within=within)
        if within:
            self.refused.add(self.number)

    @rule(within=st.booleans())
    def long_outage(self, within: bool) -> None:
        self.scene.emulator.faults.fail("Jobs.RunJob", "UNAVAILABLE", times=None)
        self._send(within=within)

    @rule()
    def killed_sender(self) -> None:
        self.scene.emulator.faults.delay("Jobs.RunJob", 30, times=1)
        before = len(self.scene.executions())
        self._request()
        eventually(lambda: len(self.scene.executions()) > before)
        self.sender.kill()
        self.sender = self._sender()
        self.scene.emulator.faults.clear()

    @rule()
    def out_of_memory(self) -> None:
        self.scene.emulator.faults.out_of_memory()
        self._request()
        self.sender.stdout.readline()

    @rule()
    def infrastructure_failure(self) -> None:
        self.scene.emulator.faults.infrastructure_retry()
        self._request()
        self.sender.stdout.readline()

    @rule()
    def cancelled_execution(self) -> None:
        self._send()
        name = JobRun.objects.filter(argv__contains=f"--number={self.number}").values_list("execution_name")
        for (execution,) in name:
            with suppress(FailedPrecondition):  # It has ended.
                self.scene.emulator.clients.executions.cancel_execution(name=execution)

    def teardown(self) -> None:
        self.scene.over()
        self.scene.reconcile()
        self.scene.over()
        self.scene.reconcile()
        self.check()
        note(f"{self.number} failures")

    def check(self) -> None:
        done = [int(line.split()[0]) for line in self.scene.journal()]
        assert len(done) == len(set(done)), "done twice"
        assert not self.refused.intersection(done), "done, although the call was refused"
        assert not JobRun.objects.filter(status__in=UNFINISHED).exists(), "unfinished"
        succeeded = JobRun.objects.filter(status=Status.SUCCEEDED).values_list("argv", flat=True)
        assert {int(argv[1].partition("=")[2]) for argv in succeeded} <= set(done), "succeeded without work"
        assert JobRun.objects.count() == self.number, "lost"


def deploy(scene: Scene) -> None:
    declared = job(sys.executable, "-m", "django", retries=1, env={**scene.environment, "RETRIES": "1"})
    scene.emulator.clients.jobs.create_job(parent=PLACE, job=declared, job_id="work-production").result()


@pytest.mark.faults
def test_failures_in_any_order(scene: Scene) -> None:
    """After any failures and a reconciler, each run was done once or says why not."""
    deploy(scene)
    Failures.scene = scene
    run_state_machine_as_test(
        Failures,
        settings=settings(
            max_examples=2,
            stateful_step_count=STEPS,
            deadline=None,
            phases=[Phase.generate],
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
