"""Do the work of benchmarks/celery.py that needs Django: python -m benchmarks.celery_worker WORK."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

# After the app: it configures Django.
from django.core.management import call_command
from django.db import connection

from benchmarks.celery_app import app, empty, redis, stamped
from benchmarks.celery_jobs.management.commands import queued, queued_locked, started
from benchmarks.measuring import timed
from cloudrun_jobs.backends.celery import CeleryBackend
from cloudrun_jobs.backends.cloudrun import CloudRunBackend
from cloudrun_jobs.models import JobRun, Status

CALLS, STARTS = 400, 200
RUNS, ROUNDS = 1000, 2

Samples = dict[str, list[float]]


def prepare() -> None:
    call_command("migrate", verbosity=0)


def send() -> None:
    """Time `delay()` as a whole, and the part that sends."""
    spent = {"celery": 0.0, "cloud run": 0.0}
    submit = CeleryBackend.submit

    def timed_submit(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        operation = submit(*args, **kwargs)
        spent["celery"] = time.perf_counter() - start
        return operation

    def instead_of_google(backend: Any, run: Any, request: Any, **rest: Any) -> Any:
        start = time.perf_counter()
        operation = _execution(backend, run, request)
        spent["cloud run"] = time.perf_counter() - start
        return operation

    CeleryBackend.submit, CloudRunBackend.submit = timed_submit, instead_of_google  # type: ignore[method-assign]

    def celery() -> dict[str, float]:
        whole = timed(lambda: queued.Command().delay(number=7))
        return {"delay()": whole, "its send": spent["celery"], "beside it": whole - spent["celery"]}

    def cloud_run() -> dict[str, float]:
        whole = timed(lambda: started.Command().delay(number=7))
        return {"beside run_job": whole - spent["cloud run"]}

    sides: list[Callable[[], dict[str, float]]] = [
        celery,
        cloud_run,
        lambda: {"task.delay()": timed(empty.delay)},
        lambda: {"repeated": timed(empty.delay)},
    ]
    for _ in range(20):
        for side in sides:
            side()
    found = _rounds(sides, CALLS)
    redis().flushdb()
    JobRun.objects.all().delete()  # No worker has run them.
    print(f"\nSending, medians of {CALLS} calls of each, in turn")
    _print(found)
    _ratio(found, "delay()", "task.delay()", 4.0)
    _ratio(found, "its send", "task.delay()", 1.3)
    _ratio(found, "beside it", "beside run_job", 1.1)


def _execution(backend: Any, run: Any, request: Any) -> Any:
    from google.cloud.run_v2 import Execution

    from cloudrun_jobs.backends.cloudrun.operation import CloudRunOperation

    name = f"projects/acme/locations/asia-northeast1/jobs/{request.job}/executions/{request.run_id}"
    return CloudRunOperation(request.run_id, backend, execution=Execution(name=name))


def start() -> None:
    """Time the start of a run: from the send of its message to the first line of `run()`."""
    sent = [0.0]
    submit = CeleryBackend.submit

    def timed_submit(*args: Any, **kwargs: Any) -> Any:
        sent[0] = time.monotonic()
        return submit(*args, **kwargs)

    CeleryBackend.submit = timed_submit  # type: ignore[method-assign]

    def task() -> dict[str, float]:
        sent[0] = time.monotonic()
        stamped.delay()
        return {"task.delay()": _stamp() - sent[0]}

    def job() -> dict[str, float]:
        begun = time.monotonic()
        queued.Command().delay(stamp=True)
        stamp = _stamp()
        return {"delay()": stamp - sent[0], "with its record": stamp - begun}

    def repeated() -> dict[str, float]:
        return {"repeated": task()["task.delay()"]}

    sides = [task, job, repeated]
    for _ in range(30):
        for side in sides:
            side()
    found = _rounds(sides, STARTS)
    print(f"\nFrom the send to the first line of the work, medians of {STARTS} starts of each, in turn")
    _print(found)
    _ratio(found, "delay()", "task.delay()", 1.5)


def _stamp() -> float:
    popped: Any = redis().blpop(["stamps"], timeout=30)
    return float(popped[1])


def drain() -> None:
    """Time 1 000 empty runs on 4 processes of a worker."""
    sides = {
        "tasks": empty.delay,
        "tasks, repeated": empty.delay,
        "runs": lambda: queued.Command().delay(),
        "runs with locks": None,
    }
    rounds: list[dict[str, float]] = []
    for number in range(ROUNDS + 1):
        taken = {name: _drain(name, number) for name in random.sample(list(sides), len(sides))}
        rounds += [taken] if number else []
    print(f"\n{RUNS} on 4 processes: medians of {ROUNDS} rounds, and of the rounds' ratios (at most 3)")
    for name in sides:
        seconds, ratio = (
            median(values)
            for values in zip(*((one[name], one[name] / one["tasks"]) for one in rounds), strict=True)
        )
        print(f"  {seconds:7.2f} s   {ratio:5.2f}   {name}")


def _drain(side: str, number: int) -> float:
    app.control.cancel_consumer("bench", reply=True)
    for index in range(RUNS):
        if side.startswith("tasks"):
            empty.delay()
        elif side == "runs":
            queued.Command().delay()
        else:
            queued_locked.Command().delay(number=number * RUNS + index)
    connection.close()
    started = time.monotonic()
    app.control.add_consumer("bench", reply=True)
    while redis().llen("bench") or redis().hlen("unacked"):
        time.sleep(0.005)
    seconds = time.monotonic() - started
    assert not JobRun.objects.exclude(status=Status.SUCCEEDED).exists(), "A run has not succeeded."
    return seconds


def _rounds(sides: list[Callable[[], dict[str, float]]], rounds: int) -> Samples:
    found: Samples = {}
    for _ in range(rounds):
        for side in random.sample(sides, len(sides)):
            for name, seconds in side().items():
                found.setdefault(name, []).append(seconds)
    return found


def _print(found: Samples) -> None:
    for name, seconds in found.items():
        print(f"  {median(seconds) * 1000:7.2f} ms   {name}")


def _ratio(found: Samples, name: str, base: str, limit: float) -> None:
    ratio = median(ours / theirs for ours, theirs in zip(found[name], found[base], strict=True))
    print(f"  ratio {ratio:.2f}, at most {limit}: {name} against {base}")


{"prepare": prepare, "send": send, "start": start, "drain": drain}[sys.argv[1]]()
