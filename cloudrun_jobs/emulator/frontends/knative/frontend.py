"""The v1 frontend: translate each request into a call of v2."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from google.cloud import run_v2

from cloudrun_jobs.emulator import names
from cloudrun_jobs.emulator.frontends.knative import resources, specs, worker_pools
from cloudrun_jobs.emulator.frontends.knative.routing import ANY_ID, V1Frontend, content, page, paging

if TYPE_CHECKING:
    from cloudrun_jobs.emulator.engine.executions import Executions
    from cloudrun_jobs.emulator.service import Caller, Service
    from cloudrun_jobs.emulator.web import Request

SELECTOR = re.compile(r"run\.googleapis\.com/(job|execution) *=+ *([a-z0-9-]+)")


class KnativeFrontend(V1Frontend):
    path_prefix = "/apis/run.googleapis.com/v1/namespaces/"

    def __init__(self, service: Service, executions: Executions) -> None:
        super().__init__(service)
        self._executions = executions

    def _create(self, location: names.Location, _: str, request: Request, caller: Caller) -> dict[str, Any]:
        v1 = content(request)
        job = run_v2.CreateJobRequest(
            parent=str(location), job=specs.job_to_v2(v1), job_id=str(v1.get("metadata", {}).get("name", ""))
        )
        return resources.job(_job_of(self.service.call("Jobs.CreateJob", job, caller)))

    def _replace(self, location: names.Location, job_id: str, request: Request, caller: Caller) -> dict[str, Any]:
        job = specs.job_to_v2(content(request))
        job.name = location.job(job_id)
        update = run_v2.UpdateJobRequest(job=job)
        return resources.job(_job_of(self.service.call("Jobs.UpdateJob", update, caller)))

    def _get(self, location: names.Location, job_id: str, _: Request, caller: Caller) -> dict[str, Any]:
        request = run_v2.GetJobRequest(name=location.job(job_id))
        return resources.job(self.service.call("Jobs.GetJob", request, caller))

    def _list(self, location: names.Location, _: str, request: Request, caller: Caller) -> dict[str, Any]:
        listing = run_v2.ListJobsRequest(parent=str(location), **paging(request))
        found = self.service.call("Jobs.ListJobs", listing, caller)
        return page(
            resources.API_VERSION, "JobList", [resources.job(job) for job in found.jobs], found.next_page_token
        )

    def _delete(self, location: names.Location, job_id: str, _: Request, caller: Caller) -> dict[str, Any]:
        self.service.call("Jobs.DeleteJob", run_v2.DeleteJobRequest(name=location.job(job_id)), caller)
        return {"status": "Success"}

    def _run(self, location: names.Location, job_id: str, request: Request, caller: Caller) -> dict[str, Any]:
        run = run_v2.RunJobRequest(name=location.job(job_id))
        overrides = content(request).get("overrides")
        if overrides:
            run.overrides = specs.overrides_to_v2(overrides)
        # v1 returns the execution, v2 an operation.
        return resources.execution(_execution_of(self.service.call("Jobs.RunJob", run, caller)))

    def _get_execution(self, location: names.Location, short: str, _: Request, caller: Caller) -> dict[str, Any]:
        request = run_v2.GetExecutionRequest(name=self._executions.full_name(location, short))
        return resources.execution(self.service.call("Executions.GetExecution", request, caller))

    def _list_executions(
        self, location: names.Location, _: str, request: Request, caller: Caller
    ) -> dict[str, Any]:
        job_id = _selected(request).get("job", ANY_ID)
        listing = run_v2.ListExecutionsRequest(parent=location.job(job_id), **paging(request))
        found = self.service.call("Executions.ListExecutions", listing, caller)
        return page(
            resources.API_VERSION,
            "ExecutionList",
            [resources.execution(e) for e in found.executions],
            found.next_page_token,
        )

    def _cancel(self, location: names.Location, short: str, _: Request, caller: Caller) -> dict[str, Any]:
        request = run_v2.CancelExecutionRequest(name=self._executions.full_name(location, short))
        return resources.execution(_execution_of(self.service.call("Executions.CancelExecution", request, caller)))

    def _delete_execution(
        self, location: names.Location, short: str, _: Request, caller: Caller
    ) -> dict[str, Any]:
        request = run_v2.DeleteExecutionRequest(name=self._executions.full_name(location, short))
        self.service.call("Executions.DeleteExecution", request, caller)
        return {"status": "Success"}

    def _get_task(self, location: names.Location, short: str, _: Request, caller: Caller) -> dict[str, Any]:
        execution = self._executions.full_name(location, short.rpartition("-task")[0])
        request = run_v2.GetTaskRequest(name=f"{execution}/tasks/{short}")
        return resources.task(self.service.call("Tasks.GetTask", request, caller))

    def _list_tasks(self, location: names.Location, _: str, request: Request, caller: Caller) -> dict[str, Any]:
        selected = _selected(request).get("execution")
        any_execution = f"{location.job(ANY_ID)}/executions/-"
        parent = self._executions.full_name(location, selected) if selected else any_execution
        listing = run_v2.ListTasksRequest(parent=parent, **paging(request))
        found = self.service.call("Tasks.ListTasks", listing, caller)
        return page(
            resources.API_VERSION,
            "TaskList",
            [resources.task(task) for task in found.tasks],
            found.next_page_token,
        )

    handlers = {
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
        **worker_pools.HANDLERS,
    }


def _selected(request: Request) -> dict[str, str]:
    return dict(SELECTOR.findall(request.parameter("labelSelector")))


def _job_of(operation: Any) -> run_v2.Job:
    # The metadata: an operation that failed because its image is missing has no response.
    job: run_v2.Job = run_v2.Job.deserialize(operation.metadata.value)
    return job


def _execution_of(operation: Any) -> run_v2.Execution:
    execution: run_v2.Execution = run_v2.Execution.deserialize(operation.metadata.value)
    return execution
