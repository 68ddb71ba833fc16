"""The v1 frontends: translate each request into a call of v2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.cloud import run_v2

from cloudrun_jobs.emulator.errors import ServiceError, not_found
from cloudrun_jobs.emulator.frontends.knative import resources, selectors
from cloudrun_jobs.emulator.frontends.knative.crud import DeclaredKind, handlers, listed, listing
from cloudrun_jobs.emulator.frontends.knative.routing import ANY_ID, V1Frontend, content

if TYPE_CHECKING:
    from cloudrun_jobs.emulator import names
    from cloudrun_jobs.emulator.service import Caller
    from cloudrun_jobs.emulator.web import Request

JOBS = DeclaredKind(resources.JOB, "job", "jobs")
SERVICES = DeclaredKind(resources.SERVICE, "service", "services")
WORKER_POOLS = DeclaredKind(resources.WORKER_POOL, "worker_pool", "workerPools")
# The fields of a service that its configuration and its route have.
PARTS = {
    "Configuration": ("template", "latestReadyRevisionName", "latestCreatedRevisionName", "conditions"),
    "Route": ("traffic", "url", "address", "conditions"),
}


class KnativeFrontend(V1Frontend):
    """Serves jobs, their executions and tasks, and worker pools."""

    path_prefix = "/apis/run.googleapis.com/v1/namespaces/"

    def _run(self, location: names.Location, job_id: str, request: Request, caller: Caller) -> dict[str, Any]:
        run = resources.read_run_request(content(request), location.job(job_id))
        # v1 returns the execution, v2 an operation.
        return _execution(self.service.call("Jobs.RunJob", run, caller))

    def _get_execution(self, location: names.Location, short: str, _: Request, caller: Caller) -> dict[str, Any]:
        request = run_v2.GetExecutionRequest(name=self.engine.executions.full_name(location, short))
        return resources.EXECUTION.write(self.service.call("Executions.GetExecution", request, caller))

    def _list_executions(
        self, location: names.Location, _: str, request: Request, caller: Caller
    ) -> dict[str, Any]:
        parent = location.job(_required(request, "job") or ANY_ID)
        return listed(self, resources.EXECUTION, "execution", parent, request, caller)

    def _cancel(self, location: names.Location, short: str, _: Request, caller: Caller) -> dict[str, Any]:
        request = run_v2.CancelExecutionRequest(name=self.engine.executions.full_name(location, short))
        return _execution(self.service.call("Executions.CancelExecution", request, caller))

    def _delete_execution(
        self, location: names.Location, short: str, _: Request, caller: Caller
    ) -> dict[str, Any]:
        request = run_v2.DeleteExecutionRequest(name=self.engine.executions.full_name(location, short))
        self.service.call("Executions.DeleteExecution", request, caller)
        return {"kind": "Status", "status": "Success"}

    def _get_task(self, location: names.Location, short: str, _: Request, caller: Caller) -> dict[str, Any]:
        try:
            execution = self.engine.executions.full_name(location, short.rpartition("-task")[0])
        except ServiceError as error:
            raise not_found("TASK", short, location) from error
        request = run_v2.GetTaskRequest(name=f"{execution}/tasks/{short}")
        return resources.TASK.write(self.service.call("Tasks.GetTask", request, caller))

    def _list_tasks(self, location: names.Location, _: str, request: Request, caller: Caller) -> dict[str, Any]:
        parent = f"{location.job(ANY_ID)}/executions/{_required(request, 'execution') or ANY_ID}"
        return listed(self, resources.TASK, "task", parent, request, caller)

    handlers = {
        **handlers(JOBS),
        "POST jobs/ID:run": _run,
        "GET executions": _list_executions,
        "GET executions/ID": _get_execution,
        "POST executions/ID:cancel": _cancel,
        "DELETE executions/ID": _delete_execution,
        "GET tasks": _list_tasks,
        "GET tasks/ID": _get_task,
        **handlers(WORKER_POOLS),
    }


class ServingFrontend(V1Frontend):
    """Serves services with their parts, and revisions."""

    path_prefix = "/apis/serving.knative.dev/v1/namespaces/"

    def _get_revision(self, location: names.Location, short: str, _: Request, caller: Caller) -> dict[str, Any]:
        request = run_v2.GetRevisionRequest(name=f"{SERVICES.name(location, ANY_ID)}/revisions/{short}")
        return resources.REVISION.write(self.service.call("Revisions.GetRevision", request, caller))

    def _list_revisions(
        self, location: names.Location, _: str, request: Request, caller: Caller
    ) -> dict[str, Any]:
        parent = SERVICES.name(location, ANY_ID)
        return listed(self, resources.REVISION, "revision", parent, request, caller)

    def _get_part(self, location: names.Location, short: str, request: Request, caller: Caller) -> dict[str, Any]:
        """Return the configuration or the route of a service."""
        return _part(self.handlers["GET services/ID"](self, location, short, request, caller), request)

    def _list_parts(self, location: names.Location, _: str, request: Request, caller: Caller) -> dict[str, Any]:
        found = self.handlers["GET services"](self, location, "", request, caller)
        return {**found, "items": [_part(service, request) for service in found["items"]]}

    handlers = {
        **handlers(SERVICES),
        "GET configurations": _list_parts,
        "GET configurations/ID": _get_part,
        "GET routes": _list_parts,
        "GET routes/ID": _get_part,
        "GET revisions": _list_revisions,
        "GET revisions/ID": _get_revision,
    }


def regional_services(services: list[run_v2.Service]) -> dict[str, Any]:
    """Return the list of services of ``gcloud run services list``."""
    return listing(resources.SERVICE, [resources.SERVICE.write(service) for service in services])


def _required(request: Request, name: str) -> str:
    """Return the id that the label selector requires, so that only its part of the store is read."""
    required = selectors.parse(request.args.get("labelSelector", "")).required
    return required.get(f"{resources.RUN}{name}", "")


def _execution(operation: Any) -> dict[str, Any]:
    return resources.EXECUTION.write(run_v2.Execution.deserialize(operation.metadata.value))


def _part(service: dict[str, Any], request: Request) -> dict[str, Any]:
    """Return the part of a v1 service that the path names: its configuration, or its route."""
    kind = "Configuration" if "/configurations" in request.raw_path else "Route"
    part = {**service, "kind": kind}
    for field in ("spec", "status"):
        part[field] = {key: value for key, value in service[field].items() if key in PARTS[kind]}
    return part
