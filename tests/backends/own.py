"""Backends as users write them, with public names only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

from django.db import connections

from cloudrun_jobs.backends import Backend, Request
from cloudrun_jobs.backends.recorded import RecordOperation
from cloudrun_jobs.execution.delivery import Result, deliver, receive
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.operations import ExecutionState
from cloudrun_jobs.registry import find_job

MANAGE = Path(__file__).parents[1] / "manage.py"


class ThreadBackend(Backend):
    """Runs jobs in threads of the calling process."""

    tracks_executions = False
    threads: ClassVar[list[Thread]] = []

    def submit(self, run: JobRun, request: Request, *, timeout: float | None = None) -> RecordOperation:
        thread = Thread(target=work, args=(request.run_id,))
        self.threads.append(thread)
        thread.start()
        return RecordOperation(run, self)


def work(run_id: str) -> None:
    """Run what the record says, as often as the job's `max_retries` allow."""
    result = Result.RETRY
    while result == Result.RETRY:
        run = JobRun.objects.get(pk=run_id)
        job: Any = find_job(run.command)
        result = deliver(job, receive(run, 0, process=f"threads/{os.getpid()}")).result
    connections.close_all()


class ProcessBackend(Backend):
    """Runs jobs in processes on this machine."""

    supports_terminate = True
    processes: ClassVar[dict[str, subprocess.Popen[bytes]]] = {}

    def submit(self, run: JobRun, request: Request, *, timeout: float | None = None) -> RecordOperation:
        name = f"process-{request.run_id}"
        env = {**os.environ, **request.env, "CLOUD_RUN_JOB": request.job, "CLOUD_RUN_EXECUTION": name}
        self.processes[name] = subprocess.Popen([sys.executable, MANAGE, *request.argv], env=env)
        return RecordOperation(run, self, name)

    def find(self, request: Request, *, timeout: float) -> RecordOperation | None:
        name = f"process-{request.run_id}"
        run = JobRun.objects.filter(pk=request.run_id).first()
        return RecordOperation(run, self, name) if run and name in self.processes else None

    def get_state(self, run: JobRun) -> ExecutionState:
        process = self.processes.get(run.execution or "")
        if process is None:
            return ExecutionState(status="lost", reason="deleted")
        code = process.poll()
        if code is None:
            return ExecutionState(status=None)
        if code == 0:
            return ExecutionState(status="succeeded", succeeded_count=1)
        return ExecutionState(status="failed", reason="exit_code", message=f"exit code {code}", failed_count=1)

    def terminate(self, run: JobRun, *, timeout: float) -> None:
        if process := self.processes.get(run.execution or ""):
            process.send_signal(signal.SIGTERM)
