"""The web console at ``/``: the resources and the output of executions, and buttons that start and stop them.

The buttons act on the resources directly, not by calls: permissions and faults do not apply to them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from datetime import UTC
from functools import cached_property
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from google.cloud import run_v2, scheduler_v1
from google.logging.type import log_severity_pb2
from google.protobuf import json_format
from google.rpc import code_pb2

from cloudrun_jobs.emulator import names
from cloudrun_jobs.emulator.engine.executions import CONSOLE_PREFIX
from cloudrun_jobs.emulator.errors import ServiceError
from cloudrun_jobs.emulator.service import ANONYMOUS
from cloudrun_jobs.emulator.web import Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from jinja2 import Environment

    from cloudrun_jobs.emulator.engine.core import Engine
    from cloudrun_jobs.emulator.server import Emulator
    from cloudrun_jobs.emulator.service import Caller

MAX_ROWS = 50  # Newest executions, or first tasks.
MAX_LINES = 200  # Newest lines of output.
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
RUN_ID_VARIABLE = "CLOUDRUN_JOBS_RUN_ID"
MASK = "********"
SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASS|PWD|CREDENTIAL|AUTH(?!OR(?!I))|PRIVATE|SIGNATURE|COOKIE|SESSION|DSN|SALT|WEBHOOK"
    r"|(?<!PARTITION_)(?<!PRIMARY_)(?<!FOREIGN_)(?<!SORT_)KEY(?!SPACE|BOARD|WORD)",
    re.IGNORECASE,
)
SECRET_VALUE = re.compile(
    r"://\S*@"  # A URL with a user: its password may contain any character.
    r"|(?:pass(?:word|wd|phrase)?|pwd|token|secret|key|sig(?:nature)?|credentials?)[\"']?\s*[=:]"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY|\b(?:Bearer|Basic) \S"
    r"|\b(?:ya29\.|gh[a-z]_|github_pat_|glpat-|xox[a-z]-|xapp-|sk[-_]|rk_|AKIA|AIza|GOCSPX-|npm_|pypi-|hf_|SG\.)"
    r"|\beyJ[\w-]+\.eyJ|\bhooks\.|/webhooks?/",
    re.IGNORECASE,
)
# Reload once a second, unless the reader uses a control or selects text.
REFRESH = (
    "setInterval(() => { if (document.activeElement === document.body && !String(getSelection())) "
    "location.reload() }, 1000)"
)
REFRESH_HASH = base64.b64encode(hashlib.sha256(REFRESH.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    f"script-src 'sha256-{REFRESH_HASH}'; frame-ancestors 'none'; base-uri 'none'",
    "Cache-Control": "no-store",
}


class Console:
    def __init__(self, emulator: Emulator, engine: Engine) -> None:
        self._emulator = emulator
        self._engine = engine
        scheduler = emulator.scheduler
        # By the last part of the path. Each takes the name of a resource and returns the path of the next page.
        self._actions: dict[str, Callable[[str], Any]] = {
            "execute": self._execute,
            "cancel": lambda name: engine.executions.cancel(run_v2.CancelExecutionRequest(name=name)),
            "pause": lambda name: scheduler.pause(scheduler_v1.PauseJobRequest(name=name)),
            "resume": lambda name: scheduler.resume(scheduler_v1.ResumeJobRequest(name=name)),
            "run": lambda name: scheduler.run(scheduler_v1.RunJobRequest(name=name)),
        }

    def overview(self, _: Request, __: Caller) -> Response:
        store = self._engine.store
        with store.changed:
            content: dict[str, Any] = {
                "jobs": [run_v2.Job(job) for job in store.jobs.values()],
                "found": _newest(list(store.executions.values())),
                "services": list(store.services.values()),
                "worker_pools": list(store.worker_pools),
                "refresh": any(not record.done for record in store.executions.values()),
            }
        tasks = self._emulator.cloud_tasks
        return self._page(
            "overview.html",
            **content,
            scheduled=[entry.job for entry in list(self._emulator.scheduler.entries.values())],
            queues=list(tasks.queues.values()) if tasks else [],
        )

    def job(self, _: Request, __: Caller, name: str) -> Response:
        store = self._engine.store
        with store.changed:
            if name not in store.jobs:
                return self._error(404, "This job does not exist.")
            records = store.executions_of(name)
            content: dict[str, Any] = {"job": run_v2.Job(store.jobs[name]), "found": _newest(records)}
        return self._page("job.html", **content, refresh=any(not record.done for record in records))

    def execution(self, request: Request, _: Caller, name: str) -> Response:
        """Show the tasks and the output of an execution, or the output of one task of it."""
        with self._engine.store.changed:
            record = self._engine.store.executions.get(name)
            if record is None:
                return self._error(404, "This execution does not exist.")
            execution = run_v2.Execution(record.execution)
            tasks = [run_v2.Task(task) for task in record.tasks[:MAX_ROWS]]
        task = request.args.get("task", "")
        variables = {variable.name: variable.value for variable in execution.template.containers[0].env}
        return self._page(
            "execution.html",
            execution=execution,
            job=execution.name.partition("/executions/")[0],
            run_id=variables.get(RUN_ID_VARIABLE, ""),
            environment=[_masked(variable) for variable in execution.template.containers[0].env],
            tasks=tasks,
            task=task,
            output=self._output(names.short(name), task),
            refresh=not record.done,
        )

    def act(self, request: Request, _: Caller, action: str) -> Response:
        """Carry out the action of a button, and redirect to a page that shows its effect."""
        origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "same-origin")
        if origin != f"http://{request.host}" or site != "same-origin":
            return self._error(403, "Only the buttons of the console do this. Open the console, and use them.")
        name = request.form.get("name", "")
        try:
            result = self._actions[action](name)
        except ServiceError as error:
            return self._error(error.http_status, error.message)
        location = "/#schedules"
        if action in ("execute", "cancel"):
            location = CONSOLE_PREFIX + (result if action == "execute" else name)
        return Response(status=303, headers={"Location": location})

    def _execute(self, job: str) -> str:
        """Run a job, and return the name of its execution."""
        operation = self._engine.executions.run(run_v2.RunJobRequest(name=job), ANONYMOUS)
        return str(run_v2.Execution.deserialize(operation.metadata.value).name)

    def _output(self, execution_id: str, task: str) -> list[dict[str, str]]:
        wanted = {"run.googleapis.com/execution_name": execution_id}
        if task:
            wanted["run.googleapis.com/task_index"] = task
        entries = [
            entry
            for entry in self._emulator.logs.all()
            if all(entry.labels.get(name) == value for name, value in wanted.items())
        ]
        return [_log_line(entry) for entry in entries[-MAX_LINES:]]

    def _error(self, status: int, message: str) -> Response:
        return self._page("error.html", status=status, message=message)

    def _page(self, template: str, *, status: int = 200, **content: Any) -> Response:
        text = self._templates.get_template(template).render(script=REFRESH, **content)
        return Response(text, status, HEADERS, mimetype="text/html")

    @cached_property
    def _templates(self) -> Environment:
        # Imported late: most emulators show no page, and all would wait for it.
        from jinja2 import Environment, PackageLoader

        templates = Environment(
            loader=PackageLoader("cloudrun_jobs.emulator.frontends"),
            autoescape=True,
            trim_blocks=True,
        )
        templates.filters |= {
            "arguments": lambda resource: shlex.join(_container(resource).args),
            "command": lambda resource: shlex.join(_container(resource).command) or "the image's own",
            "duration": self._duration,
            "last_attempt": _last_attempt,
            "location": lambda name: names.location_of(name).region,
            "message": _message,
            "short": names.short,
            "state": _state,
            "utc": _utc,
            "zoned": _zoned,
        }
        return templates

    def _duration(self, resource: run_v2.Execution | run_v2.Task) -> str:
        if not resource.start_time:
            return ""
        end = resource.completion_time or self._emulator.clock.now()
        return f"{(end - resource.start_time).total_seconds():.1f} s"


def _newest(records: list[Any]) -> list[run_v2.Execution]:
    return [run_v2.Execution(record.execution) for record in records[: -MAX_ROWS - 1 : -1]]


def _container(resource: run_v2.Execution | run_v2.ExecutionTemplate) -> run_v2.Container:
    container: run_v2.Container = resource.template.containers[0]
    return container


def _masked(variable: run_v2.EnvVar) -> tuple[str, str]:
    """Return a variable and its value, without what is or could be a secret."""
    reference = variable.value_source.secret_key_ref
    if reference.secret:
        return variable.name, f"secret {reference.secret}, version {reference.version or 'latest'}"
    secret = SECRET_NAME.search(variable.name) or SECRET_VALUE.search(variable.value)
    return variable.name, MASK if secret and variable.value else variable.value


def _zoned(time: datetime | None, zone: str) -> str:
    if not time:
        return "never"
    try:
        return f"{time.astimezone(ZoneInfo(zone)):{TIME_FORMAT}} {zone}"
    except (ZoneInfoNotFoundError, ValueError):  # UTC, whose name may be "utc", or a system without time zones.
        return _utc(time)


def _utc(time: datetime | None) -> str:
    return f"{time.astimezone(UTC):{TIME_FORMAT}} UTC" if time else "never"


def _last_attempt(job: scheduler_v1.Job) -> str:
    if not job.last_attempt_time:
        return "none"
    status = job.status
    outcome = f"{code_pb2.Code.Name(status.code)} {status.message}".strip()
    return f"{outcome}, {_zoned(job.last_attempt_time, job.time_zone)}"


def _state(resource: run_v2.Execution | run_v2.Task) -> str:
    if not resource.completion_time:
        return "running" if resource.start_time else "waiting"
    completed = next((c for c in resource.conditions if c.type_ == "Completed"), run_v2.Condition())
    if completed.state == run_v2.Condition.State.CONDITION_SUCCEEDED:
        return "succeeded"
    cancelled = completed.execution_reason == run_v2.Condition.ExecutionReason.CANCELLED
    return "cancelled" if cancelled else "failed"


def _message(resource: run_v2.Execution | run_v2.Task) -> str:
    return next((condition.message for condition in resource.conditions if condition.type_ == "Completed"), "")


def _log_line(entry: Any) -> dict[str, str]:
    """Return the severity of an entry, and a line of its time, task, severity and message."""
    severity = log_severity_pb2.LogSeverity.Name(entry.severity) if entry.severity else ""
    time, task = f"{entry.timestamp.ToDatetime():%H:%M:%S}", entry.labels["run.googleapis.com/task_index"]
    return {"severity": severity, "text": f"{time} task {task}  {severity:8} {_payload(entry)}"}


def _payload(entry: Any) -> str:
    if not entry.HasField("json_payload"):
        return str(entry.text_payload)
    fields = json_format.MessageToDict(entry.json_payload)
    texts = [text for name in ("message", "stack_trace") if isinstance(text := fields.get(name), str)]
    return "\n".join(texts) or json.dumps(fields, ensure_ascii=False)
