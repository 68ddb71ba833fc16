"""Starts executions of Cloud Run jobs.

The only package that imports Google's clients, and only when one is first used: they cost most of a second and
60 MB, which a container that merely runs a job must not pay.
"""

from __future__ import annotations

import re
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

from cloudrun_jobs import conf
from cloudrun_jobs.backends.base import Backend, Request
from cloudrun_jobs.conf import Settings
from cloudrun_jobs.exceptions import InvalidSettings
from cloudrun_jobs.spec.reservation import CLOUD_SCHEDULER, CLOUD_TASKS

if TYPE_CHECKING:
    from cloudrun_jobs.backends.cloudrun.operation import CloudRunOperation
    from cloudrun_jobs.deploy.cloudrun.jobs import Jobs
    from cloudrun_jobs.deploy.cloudrun.schedules import Schedules
    from cloudrun_jobs.models import JobRun
    from cloudrun_jobs.operations import ExecutionState
    from cloudrun_jobs.spec.reservation import Reservation


class CloudRunBackend(Backend):
    """Calls `JobsClient.run_job` with the arguments of this one execution.

    Options: `endpoint`, the "host:port" of a server on this machine that stands in for Google's, spoken to
    without encryption or credentials; `rpc_timeout`, the seconds after which a call that got no answer gives up;
    `send_deadline`, the seconds after which `delay()` does; `runs_per_minute`, how many executions a process
    starts at most, below the project's quota of "Job run requests per minute per region".
    `service_account`, which jobs run as that name none; `scheduler_service_account`, which Cloud Scheduler starts
    them as; `scheduler_region`, if it does not serve REGION; `service_url`, of the web service, for commands that
    run there. `reservations`, which service keeps what `reserve()` makes, "cloud_scheduler" or "cloud_tasks";
    `tasks_queue`, the name of the queue of Cloud Tasks, in REGION.
    """

    supports_reserve = True

    def __init__(
        self,
        settings: Settings,
        *,
        endpoint: str | None = None,
        rpc_timeout: float = 30.0,
        send_deadline: float = 20.0,
        runs_per_minute: int = 50,
        service_account: str | None = None,
        scheduler_service_account: str | None = None,
        scheduler_region: str | None = None,
        service_url: str | None = None,
        reservations: str = CLOUD_SCHEDULER,
        tasks_queue: str | None = None,
    ) -> None:
        super().__init__(settings)
        _check_place(settings)
        if endpoint is not None:
            _check_loopback(endpoint)
        _check_number("rpc_timeout", rpc_timeout)
        _check_number("send_deadline", send_deadline)
        _check_number("runs_per_minute", runs_per_minute)
        self.endpoint = endpoint
        self.rpc_timeout = rpc_timeout
        self.send_deadline = send_deadline
        self.runs_per_minute = int(runs_per_minute)
        self.service_account = _text("service_account", service_account)
        self.scheduler_service_account = _text("scheduler_service_account", scheduler_service_account)
        self.scheduler_region = _text("scheduler_region", scheduler_region)
        self.service_url = _text("service_url", service_url)
        self.reservations = _text("reservations", reservations)
        self.tasks_queue = _text("tasks_queue", tasks_queue)
        if reservations == CLOUD_TASKS and tasks_queue is None:
            hint = "Create one: gcloud tasks queues create NAME --location=REGION"
            words = f"{conf.setting_name('OPTIONS', 'tasks_queue')}: required for Cloud Tasks, not set."
            raise InvalidSettings(words, hint=hint)

    def wait_for_quota(self) -> float:
        """Wait while this process has started as many executions in the last minute as it may."""
        from cloudrun_jobs.backends.cloudrun.executions import turns

        before = time.monotonic()
        turns(self.runs_per_minute).wait_for_quota()
        return time.monotonic() - before

    def submit(self, run: JobRun, request: Request, *, timeout: float | None = None) -> CloudRunOperation:
        """Start an execution. It exists in Cloud Run once this returns."""
        from cloudrun_jobs.backends.cloudrun.executions import run_job

        return run_job(self, request, min(timeout or self.rpc_timeout, self.rpc_timeout))

    def find(self, request: Request, *, timeout: float) -> CloudRunOperation | None:
        """Look for an execution that was started for the request, though no answer said so."""
        from cloudrun_jobs.backends.cloudrun.executions import find_execution

        return find_execution(self, request, min(timeout, self.rpc_timeout))

    def reserve(self, request: Request, reservation: Reservation, *, timeout: float) -> str:
        """Make an entry of Cloud Scheduler that is due once, or a task."""
        if self.reservations == CLOUD_TASKS:
            from cloudrun_jobs.backends.cloudrun.tasks_reservations import reserve
        else:
            from cloudrun_jobs.backends.cloudrun.reservations import reserve

        return reserve(self, request, reservation, timeout=min(timeout, self.rpc_timeout))

    def unreserve(self, entry: str) -> None:
        """Delete it, wherever it was made: of the two names, a task's alone has parts."""
        if "/" in entry:
            from cloudrun_jobs.backends.cloudrun.tasks_reservations import unreserve
        else:
            from cloudrun_jobs.backends.cloudrun.reservations import unreserve

        unreserve(self, entry)

    def check_reserve(self) -> None:
        """Raise `InvalidSettings` unless there are an account to start runs as, and a client if it is an extra."""
        self.reserving_account()
        if self.reservations == CLOUD_TASKS and find_spec("google.cloud.tasks_v2") is None:
            hint = 'pip install "django-cloudrun-jobs[tasks]"'
            raise InvalidSettings("reserve(): google-cloud-tasks is not installed.", hint=hint)

    def reserving_account(self) -> str:
        """Return the service account as which reserved runs are started, or raise."""
        account = self.scheduler_service_account or self.service_account
        if account is None:
            raise InvalidSettings(
                "reserve(): no service account to start the run as.",
                hint=f"Set {conf.setting_name('OPTIONS', 'scheduler_service_account')}.",
            )
        return account

    @property
    def place(self) -> str:
        """Where the jobs are, and the queue of Cloud Tasks."""
        return f"projects/{self.settings.project}/locations/{self.settings.region}"

    @property
    def scheduler_parent(self) -> str:
        """Where the entries of Cloud Scheduler are."""
        return f"projects/{self.settings.project}/locations/{self.scheduler_region or self.settings.region}"

    def operation(self, run: JobRun) -> CloudRunOperation:
        """Return the handle on a run's execution, which may not be there yet."""
        from google.cloud.run_v2 import Execution

        from cloudrun_jobs.backends.cloudrun.operation import CloudRunOperation

        execution = Execution(name=run.execution_name or self._name(run), log_uri=run.log_uri)
        return CloudRunOperation(str(run.pk), self, execution=execution)

    def get_state(self, run: JobRun) -> ExecutionState:
        """Ask Cloud Run what became of a run's execution."""
        return self.operation(run).get_state()

    def _name(self, run: JobRun) -> str:
        """Return the full name of an execution that nobody of us started, and that told its short one."""
        return f"{self.place}/jobs/{run.job}/executions/{run.execution}" if run.execution else ""

    def jobs(self) -> Jobs:
        """Return the Cloud Run Jobs."""
        from cloudrun_jobs.deploy.cloudrun.jobs import Jobs

        return Jobs(self)

    def schedules(self) -> Schedules:
        """Return the entries of Cloud Scheduler."""
        from cloudrun_jobs.deploy.cloudrun.schedules import Schedules

        return Schedules(self)


def _check_place(settings: conf.Settings) -> None:
    missing = [key for key, value in (("PROJECT", settings.project), ("REGION", settings.region)) if not value]
    if missing:
        where = " and ".join(f"CLOUDRUN_JOBS[{key!r}]" for key in missing)
        variables = " and ".join(f"{conf.PREFIX}{key}" for key in missing)
        hint = f"Set them there, or as {variables} in the environment."
        raise InvalidSettings(f"{where}: required by CloudRunBackend, not set.", hint=hint)


def _check_number(option: str, value: object) -> None:
    """All of them are limits that nobody sets beyond ten thousand."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 10_000:
        raise InvalidSettings(
            f"{conf.setting_name('OPTIONS', option)}: expected a number from 1 to 10000, got {value!r}."
        )


TEXTS = {
    "service_account": (r"[\w.+-]+@[\w.-]+", "the e-mail address of a service account"),
    "scheduler_service_account": (r"[\w.+-]+@[\w.-]+", "the e-mail address of a service account"),
    "scheduler_region": conf.PATTERNS["REGION"],
    "reservations": (f"{CLOUD_SCHEDULER}|{CLOUD_TASKS}", f"{CLOUD_SCHEDULER!r} or {CLOUD_TASKS!r}"),
    "tasks_queue": (r"[A-Za-z0-9-]{1,100}", "the name of a queue: letters, digits and hyphens"),
    "service_url": (r"https://[\w.-]+(:[0-9]+)?/?", "a URL such as 'https://web-abc123.a.run.app'"),
}


def _text(option: str, value: str | None) -> str | None:
    """Return an option's value, checked."""
    pattern, expected = TEXTS[option]
    if value is not None and not (isinstance(value, str) and re.fullmatch(pattern, value)):
        raise InvalidSettings(f"{conf.setting_name('OPTIONS', option)}: expected {expected}, got {value!r}.")
    return value


def _check_loopback(endpoint: object) -> None:
    """Credentials and encryption are off towards the endpoint, so it may only be this machine."""
    host, _, port = str(endpoint).rpartition(":")
    if not port.isdecimal() or not _is_loopback(host.strip("[]")):
        raise InvalidSettings(
            f"{conf.setting_name('OPTIONS', 'endpoint')}: expected 'host:port' of this machine, got {endpoint!r}.",
            hint="Example: '127.0.0.1:8086'. Leave it out for the real service.",
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    import ipaddress  # Of no use to a container, which has no endpoint.

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
