"""The v1 frontend: translate each request into a call of v2."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from google.cloud import run_v2

from cloudrun_jobs.emulator import names
from cloudrun_jobs.emulator.errors import ServiceError, invalid
from cloudrun_jobs.emulator.frontends.knative import resources, specs
from cloudrun_jobs.emulator.web import Request, Response

if TYPE_CHECKING:
    from cloudrun_jobs.emulator.engine.executions import Executions
    from cloudrun_jobs.emulator.service import Caller, Service

PATH_PREFIX = "/apis/run.googleapis.com/v1/namespaces/"
PATH = re.compile(
    PATH_PREFIX + r"(?P<project>[^/]+)/(?P<kind>jobs|executions|tasks)(?:/(?P<id>[^/:]+))?(?::(?P<verb>\w+))?"
)
HOST = re.compile(r"(?:(?P<region>[a-z0-9-]+)-)?run\.[a-z.]+(?::\d+)?")
SELECTOR = re.compile(r"run\.googleapis\.com/(job|execution) *=+ *([a-z0-9-]+)")
ANY_ID = "-"


class KnativeFrontend:
    def __init__(self, service: Service, executions: Executions) -> None:
        self._service = service
        self._executions = executions

    def respond(self, request: Request, caller: Caller) -> Response:
        try:
            return Response.json(self._call(request, caller))
        except ServiceError as error:
            return Response(error.http_status, error.body())

    def _call(self, request: Request, caller: Caller) -> dict[str, Any]:
        match = PATH.fullmatch(request.path)
        if match is None:
            raise _not_found(request)
        location = names.Location(match["project"], _region(request.host))
        call = f"{request.verb} {match['kind']}"
        call += ("/ID" if match["id"] else "") + (f":{match['verb']}" if match["verb"] else "")
        handler = self._HANDLERS.get(call)
        if handler is None:
            raise _not_found(request)
        return handler(self, location, match["id"] or "", request, caller)

    def _create(self, location: names.Location, _: str, request: Request, caller: Caller) -> dict[str, Any]:
        v1 = _content(request)
        job = run_v2.CreateJobRequest(
            parent=str(location), job=specs.job_to_v2(v1), job_id=str(v1.get("metadata", {}).get("name", ""))
        )
        return resources.job(_job_of(self._service.call("Jobs.CreateJob", job, caller)))

    def _replace(self, location: names.Location, job_id: str, request: Request, caller: Caller) -> dict[str, Any]:
        job = specs.job_to_v2(_content(request))
        job.name = location.job(job_id)
        update = run_v2.UpdateJobRequest(job=job)
        return resources.job(_job_of(self._service.call("Jobs.UpdateJob", update, caller)))

    def _get(self, location: names.Location, job_id: str, _: Request, caller: Caller) -> dict[str, Any]:
        request = run_v2.GetJobRequest(name=location.job(job_id))
        return resources.job(self._service.call("Jobs.GetJob", request, caller))

    def _list(self, location: names.Location, _: str, request: Request, caller: Caller) -> dict[str, Any]:
        listing = run_v2.ListJobsRequest(parent=str(location), **_paging(request))
        page = self._service.call("Jobs.ListJobs", listing, caller)
        return _page("JobList", [resources.job(job) for job in page.jobs], page.next_page_token)

    def _delete(self, location: names.Location, job_id: str, _: Request, caller: Caller) -> dict[str, Any]:
        self._service.call("Jobs.DeleteJob", run_v2.DeleteJobRequest(name=location.job(job_id)), caller)
        return {"status": "Success"}

    def _run(self, location: names.Location, job_id: str, request: Request, caller: Caller) -> dict[str, Any]:
        run = run_v2.RunJobRequest(name=location.job(job_id))
        overrides = _content(request).get("overrides")
        if overrides:
            run.overrides = specs.overrides_to_v2(overrides)
        # v1 returns the execution, v2 an operation.
        return resources.execution(_execution_of(self._service.call("Jobs.RunJob", run, caller)))

    def _get_execution(self, location: names.Location, short: str, _: Request, caller: Caller) -> dict[str, Any]:
        request = run_v2.GetExecutionRequest(name=self._executions.full_name(location, short))
        return resources.execution(self._service.call("Executions.GetExecution", request, caller))

    def _list_executions(
        self, location: names.Location, _: str, request: Request, caller: Caller
    ) -> dict[str, Any]:
        job_id = _selected(request).get("job", ANY_ID)
        listing = run_v2.ListExecutionsRequest(parent=location.job(job_id), **_paging(request))
        page = self._service.call("Executions.ListExecutions", listing, caller)
        return _page("ExecutionList", [resources.execution(e) for e in page.executions], page.next_page_token)

    def _cancel(self, location: names.Location, short: str, _: Request, caller: Caller) -> dict[str, Any]:
        request = run_v2.CancelExecutionRequest(name=self._executions.full_name(location, short))
        return resources.execution(
            _execution_of(self._service.call("Executions.CancelExecution", request, caller))
        )

    def _delete_execution(
        self, location: names.Location, short: str, _: Request, caller: Caller
    ) -> dict[str, Any]:
        request = run_v2.DeleteExecutionRequest(name=self._executions.full_name(location, short))
        self._service.call("Executions.DeleteExecution", request, caller)
        return {"status": "Success"}

    def _get_task(self, location: names.Location, short: str, _: Request, caller: Caller) -> dict[str, Any]:
        execution = self._executions.full_name(location, short.rpartition("-task")[0])
        request = run_v2.GetTaskRequest(name=f"{execution}/tasks/{short}")
        return resources.task(self._service.call("Tasks.GetTask", request, caller))

    def _list_tasks(self, location: names.Location, _: str, request: Request, caller: Caller) -> dict[str, Any]:
        selected = _selected(request).get("execution")
        any_execution = f"{location.job(ANY_ID)}/executions/-"
        parent = self._executions.full_name(location, selected) if selected else any_execution
        listing = run_v2.ListTasksRequest(parent=parent, **_paging(request))
        page = self._service.call("Tasks.ListTasks", listing, caller)
        return _page("TaskList", [resources.task(task) for task in page.tasks], page.next_page_token)

    _HANDLERS = {
        "POST jobs": _create,
        "GET jobs": _list,
        "GET jobs/ID": _get,
        "PUT jobs/ID": _replace,
        "DELETE jobs/ID": _delete,
        "POST jobs/ID:run": _run,
        "GET executions": _list_executions,
        "GET executions/ID": _get_execution,
        "POST executions/ID:cancel": _cancel,
        "DELETE executions/ID": _delete_execution,
        "GET tasks": _list_tasks,
        "GET tasks/ID": _get_task,
    }


def _region(host: str) -> str:
    """Return the region in the host, ``europe-west4-run.googleapis.com``, or ``-`` for all regions."""
    match = HOST.fullmatch(host)
    return (match["region"] if match else None) or ANY_ID


def _selected(request: Request) -> dict[str, str]:
    return dict(SELECTOR.findall(request.parameter("labelSelector")))


def _paging(request: Request) -> dict[str, Any]:
    limit = request.parameter("limit", "0")
    if not limit.isdecimal():
        raise invalid(f"Invalid value at 'limit': {limit!r}.")
    return {"page_size": int(limit), "page_token": request.parameter("continue")}


def _page(kind: str, items: list[dict[str, Any]], token: str) -> dict[str, Any]:
    # gcloud fails on a list without metadata.
    metadata = {"continue": token} if token else {}
    return {"apiVersion": resources.API_VERSION, "kind": kind, "metadata": metadata, "items": items}


def _content(request: Request) -> dict[str, Any]:
    try:
        content = json.loads(request.body or b"{}")
    except (ValueError, RecursionError) as error:
        raise invalid(f"Invalid JSON payload received. {error}") from error
    if not isinstance(content, dict):
        raise invalid("Invalid JSON payload received. Expected an object.")
    return content


def _job_of(operation: Any) -> run_v2.Job:
    # The metadata: an operation that failed, for its image does not exist, has no response.
    job: run_v2.Job = run_v2.Job.deserialize(operation.metadata.value)
    return job


def _execution_of(operation: Any) -> run_v2.Execution:
    execution: run_v2.Execution = run_v2.Execution.deserialize(operation.metadata.value)
    return execution


def _not_found(request: Request) -> ServiceError:
    return ServiceError("NOT_FOUND", f"The requested URL {request.path} was not found on this server.")
