"""The web console at ``/``: jobs, executions, tasks and logs in plain HTML that refreshes itself."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

from google.cloud import run_v2
from google.logging.type import log_severity_pb2
from google.protobuf import json_format

from cloudrun_jobs.emulator import names
from cloudrun_jobs.emulator.engine.executions import CONSOLE_PREFIX
from cloudrun_jobs.emulator.web import Request, Response

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cloudrun_jobs.emulator.engine.core import Engine
    from cloudrun_jobs.emulator.logs.store import LogStore
    from cloudrun_jobs.emulator.scheduler.jobs import ScheduledJobs
    from cloudrun_jobs.emulator.service import Caller

MAX_ROWS = 50  # Newest executions, or first tasks.
MAX_LINES = 200  # Newest lines of output.
HTML_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="1">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ddd; vertical-align: top }}
pre {{ background: #f5f5f5; padding: 1rem; overflow-x: auto }}
a {{ color: #0b57d0 }}
.succeeded {{ color: #146c2e }} .failed, .cancelled {{ color: #b3261e }} .running {{ color: #7a4f01 }}
.notice {{ color: #146c2e }} .warning {{ color: #7a4f01 }}
.error, .critical, .alert, .emergency {{ color: #b3261e }}
</style></head><body>
"""


class Console:
    def __init__(self, engine: Engine, scheduler: ScheduledJobs, logs: LogStore) -> None:
        self._engine = engine
        self._scheduler = scheduler
        self._logs = logs

    def overview(self, _: Request, __: Caller) -> Response:
        with self._engine.store.changed:
            jobs = _table(("Job", "Location", "Executions", "Image"), map(_job, self._engine.store.jobs.values()))
            newest = list(self._engine.store.executions.values())[: -MAX_ROWS - 1 : -1]
            executions = _table(
                ("Execution", "State", "Tasks", "Created", "Message"),
                (_execution(record.execution) for record in newest),
            )
        scheduled = [_scheduled(entry.job) for entry in list(self._scheduler.entries.values())]
        schedules = _table(("Scheduler job", "State", "Schedule", "Next"), scheduled)
        body = f"<h1>Cloud Run emulator</h1><h2>Jobs</h2>{jobs}<h2>Executions</h2>{executions}"
        return _html("Cloud Run emulator", f"{body}<h2>Schedules</h2>{schedules}")

    def execution(self, request: Request, _: Caller, name: str) -> Response:
        """Show the tasks and the output of the execution whose full name is in the path, or of one task of it."""
        with self._engine.store.changed:
            record = self._engine.store.executions.get(name)
            if record is None:
                return _html("Not found", "<h1>This execution does not exist.</h1>", 404)
            summary = _table(("Execution", "State", "Tasks", "Created", "Message"), [_execution(record.execution)])
            tasks = _table(("Task", "State", "Retried", "Message"), map(_task, record.tasks[:MAX_ROWS]))
        title = escape(names.short(name))
        task = request.args.get("task", "")
        heading = f"Output of task {escape(task)}" if task else "Output"
        body = f'<p><a href="/">All</a></p><h1>{title}</h1>{summary}<h2>Tasks</h2>{tasks}<h2>{heading}</h2>'
        return _html(title, f"{body}<pre>{self._output(names.short(name), task)}</pre>")

    def _output(self, execution_id: str, task: str) -> str:
        wanted = {"run.googleapis.com/execution_name": execution_id}
        if task:
            wanted["run.googleapis.com/task_index"] = task
        entries = [entry for entry in self._logs.all() if wanted.items() <= dict(entry.labels).items()]
        return "\n".join(_log_line(entry) for entry in entries[-MAX_LINES:])


def _job(job: run_v2.Job) -> Sequence[str]:
    images = ", ".join(container.image for container in job.template.template.containers)
    cells = (names.short(job.name), str(names.location_of(job.name)), job.execution_count, images)
    return [escape(str(cell)) for cell in cells]


def _execution(execution: run_v2.Execution) -> Sequence[str]:
    counts = f"{execution.succeeded_count} of {execution.task_count} succeeded"
    link = f'<a href="{CONSOLE_PREFIX}{escape(execution.name)}">{escape(names.short(execution.name))}</a>'
    created = escape(f"{execution.create_time:%Y-%m-%d %H:%M:%S}")
    return [link, _state(execution), counts, created, escape(_message(execution))]


def _task(task: run_v2.Task) -> Sequence[str]:
    return [escape(str(task.index)), _state(task), escape(str(task.retried)), escape(_message(task))]


def _scheduled(job: Any) -> Sequence[str]:
    due = f"{job.schedule_time:%Y-%m-%d %H:%M:%S}" if job.schedule_time else "never"
    return [
        escape(text) for text in (names.short(job.name), job.state.name, f"{job.schedule} {job.time_zone}", due)
    ]


def _state(resource: run_v2.Execution | run_v2.Task) -> str:
    state = _state_name(resource)
    return f'<span class="{state}">{state}</span>'


def _state_name(resource: run_v2.Execution | run_v2.Task) -> str:
    if not resource.completion_time:
        return "running" if resource.start_time else "waiting"
    completed = next((c for c in resource.conditions if c.type_ == "Completed"), run_v2.Condition())
    if completed.state == run_v2.Condition.State.CONDITION_SUCCEEDED:
        return "succeeded"
    cancelled = completed.execution_reason == run_v2.Condition.ExecutionReason.CANCELLED
    return "cancelled" if cancelled else "failed"


def _message(resource: run_v2.Execution | run_v2.Task) -> str:
    return next((condition.message for condition in resource.conditions if condition.type_ == "Completed"), "")


def _log_line(entry: Any) -> str:
    """Return an entry in HTML: its time, task, severity and message, and its traceback."""
    severity = log_severity_pb2.LogSeverity.Name(entry.severity) if entry.severity else ""
    time, task = f"{entry.timestamp.ToDatetime():%H:%M:%S}", entry.labels["run.googleapis.com/task_index"]
    line = escape(f"{time} task {task}  {severity:8} {_payload(entry)}")
    return f'<span class="{severity.lower()}">{line}</span>' if severity else line


def _payload(entry: Any) -> str:
    if not entry.HasField("json_payload"):
        return str(entry.text_payload)
    fields = json_format.MessageToDict(entry.json_payload)
    texts = [text for name in ("message", "stack_trace") if isinstance(text := fields.get(name), str)]
    return "\n".join(texts) or json.dumps(fields, ensure_ascii=False)


def _table(headings: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """Render a table from cells that are already HTML."""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    if not body:
        return "<p>None yet.</p>"
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html(title: str, body: str, status: int = 200) -> Response:
    page = f"{HTML_HEAD.format(title=title)}{body}</body></html>\n"
    return Response(page, status, mimetype="text/html")
