"""Start, cancel and rerun runs for a caller of the HTTP API or a user of the pages, and audit it."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from cloudrun_jobs import enqueue
from cloudrun_jobs.exceptions import (
    CloudRunJobsError,
    InvalidArguments,
    JobInterrupted,
    LeaseLost,
    RerunRefused,
    ServiceError,
)
from cloudrun_jobs.http.audit import audit
from cloudrun_jobs.http.authentication import Caller
from cloudrun_jobs.models import JobRun, Status, Trigger
from cloudrun_jobs.operations import Operation
from cloudrun_jobs.runs import dispatch
from cloudrun_jobs.runs.handle import configured
from cloudrun_jobs.runs.requester import requested_by

if TYPE_CHECKING:
    from django.http import HttpRequest

    from cloudrun_jobs.command import CloudRunJobs


def start(
    caller: Caller,
    enqueue_run: Callable[..., tuple[Operation, JobRun, bool]],
    *,
    action: str = "start",
    over_http: bool = False,
) -> tuple[JobRun, bool]:
    """Enqueue a run for the caller; return it and True, or the run of an earlier request with the key and False.

    Raises `CloudRunJobsError`. The failure of a job that runs in this process is in its record.
    """
    run_id, is_new, trigger = str(uuid4()), True, Trigger.HTTP if over_http else Trigger.MANUAL
    try:
        with requested_by(caller.name):
            _, run, is_new = enqueue_run(run_id=run_id, trigger=trigger)
    except (InvalidArguments, ServiceError):
        raise
    except (Exception, JobInterrupted, LeaseLost):
        # In the environments "local" and "test" the job has run, and failed: its record says so.
        failed = JobRun.objects.filter(pk=run_id, finished_at__isnull=False).first()
        if failed is None:
            raise
        run = failed
    if is_new:
        audit(caller, action, run, over_http=over_http)
    return run, is_new


def rerun(
    caller: Caller,
    run: JobRun,
    job: CloudRunJobs,
    *,
    failed_only: bool = False,
    key: str | None = None,
    over_http: bool = False,
) -> tuple[JobRun, bool]:
    """Start a new run with the recorded arguments of this one; with `failed_only`, of its failed tasks and items.

    Return it as `start()` does. Raises `CloudRunJobsError`, of which `RerunRefused` if there is nothing to rerun.
    """
    arguments = (run.argv or [])[1:]

    def enqueue_again(**given: Any) -> tuple[Operation, JobRun, bool]:
        return enqueue.request_run_argv(configured(job, run, failed_only=failed_only), arguments, key=key, **given)

    try:
        return start(caller, enqueue_again, action="rerun", over_http=over_http)
    except RerunRefused:
        # The run that repeats the failed tasks may be that of an earlier request with the same key.
        earlier = key and dispatch.find_by_key(run.command, job.spec.environment, key)
        if not earlier:
            raise
        return earlier, False


def cancel(caller: Caller, run: JobRun, *, over_http: bool = False) -> bool:
    """Cancel the run, and reload it; return False if it has ended otherwise. Raises `ServiceError`."""
    is_requested = run.cancel_requested_at is not None
    try:
        is_cancelled = run.cancel()
    except CloudRunJobsError:
        # The tasks read the request from the record all the same.
        if not is_requested and run.cancel_requested_at is not None:
            audit(caller, "cancel", run, over_http=over_http)
        raise
    run.refresh_from_db()
    if run.is_finished and run.status != Status.CANCELLED:
        return False
    # Otherwise another caller was faster, or the request is in the history.
    if is_cancelled if run.is_finished else not is_requested:
        audit(caller, "cancel", run, over_http=over_http)
    return True


def form_key(request: HttpRequest) -> UUID | None:
    """Return the key of a form, with which a second submission returns the run of the first; None without one."""
    try:
        return UUID(request.POST.get("key", ""))
    except ValueError:
        return None


def own_key(caller: Caller, key: object) -> str:
    """Return an idempotency key that no other caller has."""
    # A digest: names are of any length, and may contain what looks like a key.
    return f"{sha256(caller.name.encode()).hexdigest()} {key}"
