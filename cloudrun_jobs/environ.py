"""Identify the task and the execution of this process from its environment variables.

The variables are those of https://cloud.google.com/run/docs/container-contract#jobs-env-vars.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from io import TextIOWrapper
from typing import Any, NamedTuple

from cloudrun_jobs import conf
from cloudrun_jobs.conf import EXECUTION_KEYS, PREFIX
from cloudrun_jobs.exceptions import InvalidSettings

# The run id; the schedule, an encoded `ScheduleTick`; the time of a reservation in ISO 8601; the number of
# elements of `delay_many()`; "1" for an execution that only calls `reduce()`; and the user of `run --local`.
EXECUTION_VARIABLES = tuple(PREFIX + key for key in EXECUTION_KEYS)
RUN_ID_VARIABLE, SCHEDULE_VARIABLE, RESERVED_VARIABLE, ELEMENTS_VARIABLE, *_OTHERS = EXECUTION_VARIABLES
REDUCE_VARIABLE, LOCAL_VARIABLE = _OTHERS

# Cloud Run sets these for each task.
INDEX_VARIABLE, COUNT_VARIABLE = "CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT"
ATTEMPT_VARIABLE = "CLOUD_RUN_TASK_ATTEMPT"

# "host:port" of the emulator that started this process: every call to Google's services goes there.
EMULATOR_VARIABLE = "CLOUDRUN_EMULATOR_HOST"

# The databases of the test that started this process on an emulator: a JSON object of settings by alias.
DATABASES_VARIABLE = "CLOUDRUN_EMULATOR_DATABASES"
DATABASE_KEYS = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT")


_setting_variables = threading.RLock()

_pool_process: int | None = None  # The id of this process; a fork of it is none.


class CloudRunTask(NamedTuple):
    """One attempt of one task of an execution."""

    #: The name of the Cloud Run Job.
    job: str
    #: The short name of the execution, such as "refresh-token-production-x7k2p".
    execution: str
    #: The number of the task, from 0.
    index: int  # type: ignore[assignment]  # hides a tuple's method
    #: The number of the attempt, from 0; a retry is one more.
    attempt: int
    #: The number of tasks in the execution; for `delay_many()`, of elements.
    count: int  # type: ignore[assignment]  # hides a tuple's method
    #: The UUID of the run; empty for an execution that a schedule or a person at the console started.
    run_id: str
    #: The time of a reserved run, in ISO 8601; empty for other runs.
    reserved_for: str = ""
    #: The schedule that started the execution, as `ScheduleTick.encode()` writes it; empty for other runs.
    schedule: str = ""
    #: Whether the execution only calls `reduce()`: another execution has run the tasks.
    only_reduces: bool = False
    #: The worker process of a queue that runs the task, such as "celery@host/1234"; empty on Cloud Run.
    process: str = ""

    @property
    def in_worker(self) -> bool:
        """True if a queue worker runs the task, in a process that runs other tasks too."""
        return bool(self.process)


# A worker may run several tasks at once, in threads.
_worker_task: ContextVar[CloudRunTask | None] = ContextVar("cloudrun_jobs_worker_task", default=None)


@contextmanager
def task_set(task: CloudRunTask) -> Iterator[None]:
    """Make this the current task of the block, in a worker."""
    token = _worker_task.set(task)
    try:
        yield
    finally:
        _worker_task.reset(token)


def current_task(environ: Mapping[str, str] = os.environ) -> CloudRunTask | None:
    """Return the task that this process or thread runs, or None outside Cloud Run and workers."""
    if (task := _worker_task.get()) is not None:
        return task
    if not in_container(environ):
        return None
    return CloudRunTask(
        job=environ.get("CLOUD_RUN_JOB", ""),
        execution=environ["CLOUD_RUN_EXECUTION"],
        index=int(environ.get(INDEX_VARIABLE, "0")),
        attempt=int(environ.get(ATTEMPT_VARIABLE, "0")),
        count=int(environ.get(ELEMENTS_VARIABLE) or environ.get(COUNT_VARIABLE, "1")),
        run_id=environ.get(RUN_ID_VARIABLE, ""),
        reserved_for=environ.get(RESERVED_VARIABLE, ""),
        schedule=environ.get(SCHEDULE_VARIABLE, ""),
        only_reduces=environ.get(REDUCE_VARIABLE) == "1",
    )


def in_container(environ: Mapping[str, str] = os.environ) -> bool:
    """Return True if Cloud Run started this process."""
    return bool(environ.get("CLOUD_RUN_EXECUTION"))


def local_endpoint(options: Mapping[str, Any]) -> str | None:
    """Return the "host:port" that replaces Google's services, from the backend's options or the environment.

    Raises `InvalidSettings` for another machine: calls to the endpoint have no encryption and no credentials.
    """
    endpoint, name = options.get("endpoint"), conf.setting_name("OPTIONS", "endpoint")
    if endpoint is None:
        endpoint, name = os.environ.get(EMULATOR_VARIABLE) or None, EMULATOR_VARIABLE
    if endpoint is None:
        return None
    host, _, port = str(endpoint).rpartition(":")
    if not port.isdecimal() or not _is_loopback(host.strip("[]")):
        raise InvalidSettings(
            f"{name}: expected 'host:port' of this machine, got {endpoint!r}.",
            hint="Example: '127.0.0.1:8491'. Leave it out for the real service.",
        )
    return str(endpoint)


def _is_loopback(host: str) -> bool:
    import ipaddress  # Only with an endpoint, which a container does not have.

    with suppress(ValueError):
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    return False


def in_cloud() -> bool:
    """Return True in a Cloud Run task, or in an instance of a service or worker pool; not with `run --local`."""
    environ = os.environ
    if environ.get("CLOUD_RUN_EXECUTION"):
        return LOCAL_VARIABLE not in environ
    return bool(environ.get("K_SERVICE") or environ.get("CLOUD_RUN_WORKER_POOL"))


def enter_pool_process() -> None:
    """Mark this process as one of a worker's pool: it runs one job at a time, and is replaced when it exits."""
    global _pool_process
    _pool_process = os.getpid()


def in_pool_process() -> bool:
    """Return True in a process of a worker's pool, but not in the worker's own process or thread."""
    return _pool_process is not None and _pool_process == os.getpid()


@contextmanager
def variables_set(variables: Mapping[str, str]) -> Iterator[None]:
    """Set these environment variables of this process during the block; one block at a time."""
    if not variables:
        yield
        return
    with _setting_variables:
        before = {name: os.environ.get(name) for name in variables}
        try:
            os.environ.update(variables)
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def line_buffer_output() -> None:
    """Write each line of output at once: what is in a buffer is invisible, and lost if the process is killed."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(line_buffering=True)


def use_test_databases() -> None:
    """Replace the databases in the settings with those of the test that started this process, if any."""
    if EMULATOR_VARIABLE in os.environ and (given := os.environ.get(DATABASES_VARIABLE)):
        from django.db import connections

        for alias, values in json.loads(given).items():
            declared = connections.settings.get(alias, connections.settings["default"])
            options = declared["OPTIONS"] if declared["ENGINE"] == values["ENGINE"] else {}
            connections.settings[alias] = {**declared, **values, "OPTIONS": options}
            with suppress(AttributeError):  # An app may have connected already.
                del connections[alias]
