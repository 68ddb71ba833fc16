"""Workers with the prefork pool."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from cloudrun_jobs.backends.celery import messages
from cloudrun_jobs.models import JobRun, Status, TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.spec.overrides import Overrides
from tests.celery_workers.cluster import Cluster, Worker, ended, is_alive, sent_run
from tests.celery_workers.project.celery_app import app
from tests.celery_workers.project.management.commands.step import Command
from tests.waiting import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("worker")]


@pytest.fixture(scope="module")
def worker(cluster: Cluster) -> Worker:
    return cluster.start("prefork")


def start(command: Any = Command, **options: Any) -> JobRun:
    return command().delay(**options).run


def test_a_run_succeeds(cluster: Cluster) -> None:
    """The worker records the result, names its process, and acknowledges the message."""
    run = ended(start())
    task = run.tasks.get()

    assert (run.status, run.result, cluster.events(run)) == (Status.SUCCEEDED, "attempt 1", ["begin", "end"])
    assert task.process == f"{cluster.workers[0].name}/{cluster.entries(run)[0].pid}"
    wait_for(lambda: cluster.is_idle("prefork"))


def test_a_failure_is_retried(cluster: Cluster) -> None:
    """A `run()` that raises is called again, after a pause, in a new attempt of the same task."""
    run = ended(start(failures=1))

    assert (run.status, run.result, run.retried_count) == (Status.SUCCEEDED, "attempt 2", 1)
    assert cluster.events(run) == ["begin", "begin", "end"]


def test_the_last_failure_ends_the_run(cluster: Cluster) -> None:
    """After `max_retries` + 1 attempts the run has failed, and no message is left."""
    run = ended(start(failures=5))

    assert (run.status, run.reason, run.error_message) == (Status.FAILED, "error", "attempt 2 fails")
    wait_for(lambda: cluster.is_idle("prefork"))


def test_a_killed_process_is_replaced(cluster: Cluster) -> None:
    """The worker records the death of the process, and another one makes the next attempt at once."""
    run = ended(start(deaths=1), seconds=20)

    assert (run.status, run.result) == (Status.SUCCEEDED, "attempt 2")
    assert len({entry.pid for entry in cluster.entries(run)}) == 2


def test_a_process_that_always_dies_ends_the_run(cluster: Cluster) -> None:
    """Celery would deliver the message for ever; the record counts the attempts."""
    run = ended(start(deaths=9), seconds=20)

    assert (run.status, run.reason, run.tasks.get().exit_code) == (Status.FAILED, "process_died", 137)
    assert "SIGKILL" in run.error_message
    assert cluster.events(run) == ["begin", "begin"]
    wait_for(lambda: cluster.is_idle("prefork"))


def test_the_timeout_interrupts_the_job(cluster: Cluster) -> None:
    """The soft limit raises `JobInterrupted` in `run()`; each attempt has a timeout of its own."""
    run = ended(Command().using(timeout=1).delay(until="never").run)

    assert (run.status, run.reason) == (Status.FAILED, "timeout")
    assert cluster.events(run) == ["begin", "interrupted: timeout", "cleaned"] * 2


def test_a_job_that_does_not_react_is_killed(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hard limit ends the process, the worker records the timeout, and another process makes an attempt."""
    monkeypatch.setattr(messages, "CLEANUP_SECONDS", 1)
    run = ended(Command().using(timeout=1).delay(hang=True).run)

    assert (run.status, run.result, cluster.events(run)) == (
        Status.SUCCEEDED,
        "attempt 2",
        ["begin", "begin", "end"],
    )


def test_cancel_interrupts_the_job(cluster: Cluster) -> None:
    """The process gets SIGTERM; the record says that the run was cancelled."""
    run = start(until="never")
    process = cluster.begun(run).pid
    run.cancel()
    run = ended(run)

    wait_for(lambda: not is_alive(process))  # Celery takes its later death for this one.
    assert (run.status, run.reason) == (Status.CANCELLED, "cancelled")
    assert cluster.events(run) == ["begin", "interrupted: interrupted", "cleaned"]
    wait_for(lambda: cluster.is_idle("prefork"))


def test_a_revocation_cancels_the_run(cluster: Cluster) -> None:
    """Flower, or the command line of Celery, revokes the task without touching the record."""
    run = start(until="never")
    cluster.begun(run)
    app.control.revoke(str(run.pk), terminate=True)

    assert ended(run).status == Status.CANCELLED


def test_a_revocation_before_the_start_cancels_the_run(cluster: Cluster) -> None:
    """The worker drops the message, so the record has to end."""
    run = sent_run()
    app.control.revoke(str(run.pk))
    wait_for(lambda: f"Tasks flagged as revoked: {run.pk}" in cluster.workers[0].text())
    cluster.send("prefork", str(run.pk), str(run.pk))

    assert ended(run).status == Status.CANCELLED
    assert not cluster.entries(run)


def test_the_process_enforces_the_timeout_itself(cluster: Cluster) -> None:
    """The message has no time limits, or the worker's signal was lost."""
    overrides = Overrides(timeout=timedelta(seconds=1)).encode()
    run = sent_run(argv=["step", "--until=never"], overrides=overrides)
    cluster.send("prefork", str(run.pk), str(run.pk))

    assert ended(run).reason == "timeout"


def test_a_duplicate_message_has_no_effect(cluster: Cluster) -> None:
    """The second message finds the run running, and after that finished."""
    over = cluster.folder / str(uuid4())
    run = start(until=str(over))
    cluster.begun(run)
    cluster.send("prefork", str(run.pk), str(run.pk))
    wait_for(
        lambda: not cluster.client.llen("prefork") and f"its run {run.pk} is running" in cluster.workers[0].text()
    )
    over.touch()
    ended(run)
    cluster.send("prefork", str(run.pk), str(run.pk))
    wait_for(lambda: cluster.is_idle("prefork"))

    assert cluster.events(run) == ["begin", "end"]


@pytest.mark.parametrize(
    ("task_id", "arguments", "options"),
    [
        ("no id", ["no id"], {}),
        ("{run}", [], {}),
        ("{run}", ["{run}", "2"], {}),
        ("{run}", ["{run}"], {"extra": 1}),
        ("{run}.7", ["{run}"], {}),
        ("{run}.-1", ["{run}"], {}),
        ("{other}", ["{other}"], {}),
        ("{foreign}", ["{foreign}"], {}),
        ("\x00\n", ["\x00\n"], {}),
    ],
)
def test_a_message_by_hand_is_rejected(cluster: Cluster, task_id: str, arguments: list[str], options: Any) -> None:
    """It is logged and acknowledged, starts nothing, and the worker continues."""
    run, foreign = sent_run(), sent_run(environment="staging")
    names = {"run": run.pk, "other": uuid4(), "foreign": foreign.pk}
    log = cluster.workers[0].text()
    cluster.send("prefork", task_id.format(**names), *(each.format(**names) for each in arguments), **options)
    wait_for(lambda: "was rejected" in cluster.workers[0].text().removeprefix(log))

    wait_for(lambda: cluster.is_idle("prefork"))
    assert set(JobRun.objects.filter(pk__in=(run.pk, foreign.pk)).values_list("status", flat=True)) == {
        Status.SENT
    }


def test_the_message_of_an_unknown_command_waits_for_a_newer_worker(cluster: Cluster) -> None:
    """It goes back to the queue for five seconds at a time."""
    run = sent_run(command="vanished")
    cluster.send("prefork", str(run.pk), str(run.pk))
    wait_for(lambda: "Retry in 5s" in cluster.workers[0].text())
    JobRun.objects.filter(pk=run.pk).update(command="step", argv=["step"])

    assert ended(run).status == Status.SUCCEEDED


def test_a_run_of_an_unknown_command_fails_after_an_hour(cluster: Cluster) -> None:
    """The reason is `unknown_command`, and no message is left."""
    run = sent_run(command="vanished", reason="unknown_command", sending_until=Now() - timedelta(minutes=1))
    cluster.send("prefork", str(run.pk), str(run.pk))
    run = ended(run)

    assert (run.status, run.reason) == (Status.FAILED, "unknown_command")
    wait_for(lambda: cluster.is_idle("prefork"))


def test_a_signal_without_a_cause_changes_nothing(cluster: Cluster) -> None:
    """SIGUSR1 is Celery's soft limit, and this package's wakeup: the clock decides."""
    over = cluster.folder / str(uuid4())
    run = start(until=str(over))
    os.kill(cluster.begun(run).pid, signal.SIGUSR1)
    over.touch()

    assert ended(run).status == Status.SUCCEEDED
    assert TaskRun.objects.get(run=run).attempt == 0
