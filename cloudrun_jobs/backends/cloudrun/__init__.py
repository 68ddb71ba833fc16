"""The backend that runs jobs as executions of Cloud Run.

Importing Google's clients takes most of a second and 60 MB, so the modules that use them are imported late: a
container that runs a job needs none.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from cloudrun_jobs import conf
from cloudrun_jobs.backends.base import Backend, Request, check_number
from cloudrun_jobs.backends.cloudrun.server import Server
from cloudrun_jobs.conf import Settings
from cloudrun_jobs.environ import local_endpoint
from cloudrun_jobs.exceptions import InvalidSettings
from cloudrun_jobs.spec.reservation import CLOUD_SCHEDULER, CLOUD_TASKS

if TYPE_CHECKING:
    from cloudrun_jobs.backends.cloudrun.operation import CloudRunOperation
    from cloudrun_jobs.backends.log_entries import LogEntry, LogQuery
    from cloudrun_jobs.models import JobRun
    from cloudrun_jobs.operations import ExecutionState
    from cloudrun_jobs.spec.reservation import Reservation


class CloudRunBackend(Backend):
    """Starts executions with `JobsClient.run_job`, each with its own arguments.

    Options: `endpoint`, "host:port" of a server on this machine to call instead of Google's, without encryption or
    credentials (default: the environment variable CLOUDRUN_EMULATOR_HOST); `access_token`, which identifies the
    caller to that server; `rpc_timeout`, the timeout of a call in seconds; `send_deadline`, the timeout of
    `delay()` in seconds; `runs_per_minute`, the most executions that a process starts in a minute, below the
    project's quota of "Job run requests per minute per region".
    `service_account` of jobs that name none; `scheduler_service_account`, as which Cloud Scheduler starts them;
    `scheduler_region`, if Cloud Scheduler does not serve REGION; `service_url`, the URL of the web service, for
    commands that run in it. `reservations`, the service that `reserve()` uses, "cloud_scheduler" or "cloud_tasks";
    `tasks_queue`, the name of the queue of Cloud Tasks, in REGION.
    """

    supports_reserve = True
    supports_terminate = True
    supports_tasks = True
    keeps_logs = True

    def __init__(
        self,
        settings: Settings,
        *,
        endpoint: str | None = None,
        access_token: str | None = None,
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
        _check_location(settings)
        check_number("rpc_timeout", rpc_timeout)
        check_number("send_deadline", send_deadline)
        check_number("runs_per_minute", runs_per_minute)
        # A task of the emulator never calls Google.
        self.endpoint = local_endpoint({"endpoint": endpoint})
        self.server = Server(self.endpoint, _access_token(access_token, self.endpoint))
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
            message = f"{conf.setting_name('OPTIONS', 'tasks_queue')}: required for Cloud Tasks, not set."
            raise InvalidSettings(message, hint=hint)

    def wait_for_quota(self) -> float:
        """Wait until this process may start another execution; return the seconds waited."""
        from cloudrun_jobs.backends.cloudrun.executions import run_quota

        before = time.monotonic()
        run_quota(self.runs_per_minute).wait()
        return time.monotonic() - before

    def submit(self, run: JobRun, request: Request, *, timeout: float | None = None) -> CloudRunOperation:
        """Start an execution. It exists in Cloud Run once this returns."""
        from cloudrun_jobs.backends.cloudrun.executions import run_job

        return run_job(self, request, min(timeout or self.rpc_timeout, self.rpc_timeout))

    def find(self, request: Request, *, timeout: float) -> CloudRunOperation | None:
        """Return the execution that an earlier, unanswered submission of the request started, if any."""
        from cloudrun_jobs.backends.cloudrun.executions import find_execution

        return find_execution(self, request, min(timeout, self.rpc_timeout))

    def reserve(self, request: Request, reservation: Reservation, *, timeout: float) -> str:
        """Create a Scheduler job that is due once, or a task of Cloud Tasks."""
        from cloudrun_jobs.backends.cloudrun.reservations import reserve

        return reserve(self, request, reservation, timeout=min(timeout, self.rpc_timeout))

    def unreserve(self, key: str, *, timeout: float) -> None:
        from cloudrun_jobs.backends.cloudrun.reservations import unreserve

        unreserve(self, key, timeout=min(timeout, self.rpc_timeout))

    def check_reserve(self) -> None:
        """Raise `InvalidSettings` if there is no account to start runs as, or Cloud Tasks' client is missing."""
        self.reservation_account()
        if self.reservations == CLOUD_TASKS and find_spec("google.cloud.tasks_v2") is None:
            hint = 'pip install "django-cloudrun-jobs[tasks]"'
            raise InvalidSettings("reserve(): google-cloud-tasks is not installed.", hint=hint)

    def reservation_account(self) -> str:
        """Return the service account that starts reserved runs. Raises `InvalidSettings` if there is none."""
        account = self.scheduler_service_account or self.service_account
        if account is None:
            raise InvalidSettings(
                "reserve(): no service account to start the run as.",
                hint=f"Set {conf.setting_name('OPTIONS', 'scheduler_service_account')}.",
            )
        return account

    @property
    def parent(self) -> str:
        """The parent resource of the jobs, and of the queue of Cloud Tasks."""
        return f"projects/{self.settings.project}/locations/{self.settings.region}"

    @property
    def scheduler_parent(self) -> str:
        """The parent resource of the Scheduler jobs."""
        return f"projects/{self.settings.project}/locations/{self.scheduler_region or self.settings.region}"

    def operation(self, run: JobRun) -> CloudRunOperation:
        """Return the handle on a run's execution, which may not exist yet."""
        from google.cloud.run_v2 import Execution

        from cloudrun_jobs.backends.cloudrun.operation import CloudRunOperation

        # Executions that Cloud Scheduler or an operator started report only their short name.
        reported = f"{self.parent}/jobs/{run.job}/executions/{run.execution}" if run.execution else ""
        execution = Execution(name=run.execution_name or reported, log_uri=run.log_uri)
        return CloudRunOperation(str(run.pk), self, execution=execution)

    def read_log(self, run: JobRun, query: LogQuery) -> Iterable[LogEntry]:
        """Read the entries of the run's execution, or those of a service or worker pool with the run's label."""
        from cloudrun_jobs.backends.cloudrun.entries import read_entries

        return read_entries(self, run, query)

    def get_state(self, run: JobRun) -> ExecutionState:
        return self.operation(run).get_state()


def _check_location(settings: Settings) -> None:
    missing = [key for key, value in (("PROJECT", settings.project), ("REGION", settings.region)) if not value]
    if missing:
        where = " and ".join(f"CLOUDRUN_JOBS[{key!r}]" for key in missing)
        variables = " and ".join(f"{conf.PREFIX}{key}" for key in missing)
        hint = f"Set them there, or as {variables} in the environment."
        raise InvalidSettings(f"{where}: required by CloudRunBackend, not set.", hint=hint)


def _access_token(value: str | None, endpoint: str | None) -> str | None:
    """Return the option's value. Raises `InvalidSettings` for a token that Google's services would get."""
    where = conf.setting_name("OPTIONS", "access_token")
    if value is not None and not (isinstance(value, str) and re.fullmatch(r"[!-~]+", value)):
        raise InvalidSettings(f"{where}: expected printable ASCII characters without spaces, got another value.")
    if value is not None and endpoint is None:
        hint = "Leave it out: calls to Google use the application default credentials."
        raise InvalidSettings(f"{where}: only for a server on this machine, but no endpoint is set.", hint=hint)
    return value


PORT = "[0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
TEXT_PATTERNS = {
    "service_account": (r"[\w.+-]+@[\w.-]+", "the e-mail address of a service account"),
    "scheduler_service_account": (r"[\w.+-]+@[\w.-]+", "the e-mail address of a service account"),
    "scheduler_region": conf.PATTERNS["REGION"],
    "reservations": (f"{CLOUD_SCHEDULER}|{CLOUD_TASKS}", f"{CLOUD_SCHEDULER!r} or {CLOUD_TASKS!r}"),
    "tasks_queue": (r"[A-Za-z0-9-]{1,100}", "the name of a queue: letters, digits and hyphens"),
    "service_url": (
        rf"(https://[\w.-]+|http://(localhost|127\.0\.0\.1))(:({PORT}))?/?",
        "an HTTPS URL such as 'https://web-abc123.a.run.app', or an HTTP URL of this machine",
    ),
}


def _text(option: str, value: str | None) -> str | None:
    """Return the option's value. Raises `InvalidSettings` if it does not match the option's pattern."""
    pattern, expected = TEXT_PATTERNS[option]
    if value is not None and not (isinstance(value, str) and re.fullmatch(pattern, value)):
        raise InvalidSettings(f"{conf.setting_name('OPTIONS', option)}: expected {expected}, got {value!r}.")
    return value
