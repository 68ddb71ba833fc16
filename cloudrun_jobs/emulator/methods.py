"""The RPCs that the emulator serves. Their HTTP rules come from the clients' own REST transports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from google.cloud import run_v2, scheduler_v1
from google.cloud.run_v2.services.executions.transports.rest_base import _BaseExecutionsRestTransport
from google.cloud.run_v2.services.jobs.transports.rest_base import _BaseJobsRestTransport
from google.cloud.run_v2.services.revisions.transports.rest_base import _BaseRevisionsRestTransport
from google.cloud.run_v2.services.services.transports.rest_base import _BaseServicesRestTransport
from google.cloud.run_v2.services.tasks.transports.rest_base import _BaseTasksRestTransport
from google.cloud.run_v2.services.worker_pools.transports.rest_base import _BaseWorkerPoolsRestTransport
from google.cloud.scheduler_v1.services.cloud_scheduler.transports.rest_base import (
    _BaseCloudSchedulerRestTransport,
)
from google.longrunning import operations_pb2

from cloudrun_jobs.emulator.frontends.knative.frontend import regional_services
from cloudrun_jobs.emulator.iam.policies import canonical
from cloudrun_jobs.emulator.logs.methods import methods as logging_methods
from cloudrun_jobs.emulator.project.methods import PLACE, policy_methods, policy_routes
from cloudrun_jobs.emulator.service import Caller, Method, Route

if TYPE_CHECKING:
    from cloudrun_jobs.emulator.clock import Clock
    from cloudrun_jobs.emulator.cloud_tasks.service import CloudTasks
    from cloudrun_jobs.emulator.engine.core import Engine
    from cloudrun_jobs.emulator.engine.secrets import Secrets
    from cloudrun_jobs.emulator.engine.services import Services
    from cloudrun_jobs.emulator.iam.access import Iam
    from cloudrun_jobs.emulator.logs.store import LogStore
    from cloudrun_jobs.emulator.scheduler.jobs import ScheduledJobs

RUN = "google.cloud.run.v2"
SCHEDULER = "google.cloud.scheduler.v1.CloudScheduler"
SECRETS = "google.cloud.secretmanager.v1.SecretManagerService"
CLOUD_TASKS = "google.cloud.tasks.v2.CloudTasks"
OPERATIONS = "google.longrunning.Operations"

Handle = Callable[[Any, Caller], Any]


def methods(
    engine: Engine,
    scheduler: ScheduledJobs,
    logs: LogStore,
    secrets: Secrets,
    clock: Clock,
    iam: Iam,
    cloud_tasks: CloudTasks | None,
) -> list[Method]:
    return [
        *_jobs(engine, iam),
        *_services(engine, iam),
        *_executions(engine),
        *_operations(engine),
        *_scheduler(scheduler),
        *logging_methods(logs),
        *(_secrets(secrets, clock, iam) if has_secret_manager() else ()),
        *(_cloud_tasks(cloud_tasks, iam) if cloud_tasks is not None else ()),
    ]


def has_secret_manager() -> bool:
    """Return True if the libraries that serve Secret Manager are installed: those of the extra ``secrets``."""
    return all(find_spec(name) for name in ("google.cloud.secretmanager_v1", "google_crc32c"))


def has_cloud_tasks() -> bool:
    """Return True if the library that serves Cloud Tasks is installed: that of the extra ``tasks``."""
    return find_spec("google.cloud.tasks_v2") is not None


def _jobs(engine: Engine, iam: Iam) -> Iterator[Method]:
    jobs = engine.jobs
    table: list[tuple[str, Any, Handle]] = [
        ("CreateJob", run_v2.CreateJobRequest, lambda r, c: jobs.create(r, c.principal)),
        ("GetJob", run_v2.GetJobRequest, _plain(jobs.get)),
        ("ListJobs", run_v2.ListJobsRequest, _plain(jobs.listed)),
        ("UpdateJob", run_v2.UpdateJobRequest, lambda r, c: jobs.update(r, c.principal)),
        ("DeleteJob", run_v2.DeleteJobRequest, _plain(jobs.delete)),
        ("RunJob", run_v2.RunJobRequest, lambda r, c: engine.executions.run(r, c.principal)),
    ]
    yield from _methods(f"{RUN}.Jobs", _BaseJobsRestTransport, table)
    routes = _with_v1(_BaseJobsRestTransport, "jobs")
    yield from policy_methods(f"{RUN}.Jobs", iam, jobs.check_exists, routes)


def _services(engine: Engine, iam: Iam) -> Iterator[Method]:
    services, pools = engine.services, engine.worker_pools
    table: list[tuple[str, Any, Handle]] = [
        ("CreateService", run_v2.CreateServiceRequest, lambda r, c: services.create(r, c.principal)),
        ("GetService", run_v2.GetServiceRequest, _plain(services.get)),
        ("ListServices", run_v2.ListServicesRequest, _plain(services.listed)),
        ("UpdateService", run_v2.UpdateServiceRequest, lambda r, c: services.update(r, c.principal)),
        ("DeleteService", run_v2.DeleteServiceRequest, _plain(services.delete)),
    ]
    yield from _methods(f"{RUN}.Services", _BaseServicesRestTransport, table)
    # `gcloud run services list` uses this path of v1.
    regional = Route("get", "/v1/{parent=projects/*/locations/*}/services")
    yield Method("google.cloud.run.v1.RegionalServices", "ListServices", dict, _regional(services), [regional])
    with_v1 = _with_v1(_BaseServicesRestTransport, "services")
    yield from policy_methods(f"{RUN}.Services", iam, services.check_exists, with_v1)
    revisions: list[tuple[str, Any, Handle]] = [
        ("GetRevision", run_v2.GetRevisionRequest, _plain(services.get_revision)),
        ("ListRevisions", run_v2.ListRevisionsRequest, _plain(services.list_revisions)),
    ]
    yield from _methods(f"{RUN}.Revisions", _BaseRevisionsRestTransport, revisions)
    worker_pools: list[tuple[str, Any, Handle]] = [
        ("CreateWorkerPool", run_v2.CreateWorkerPoolRequest, lambda r, c: pools.create(r, c.principal)),
        ("GetWorkerPool", run_v2.GetWorkerPoolRequest, _plain(pools.get)),
        ("ListWorkerPools", run_v2.ListWorkerPoolsRequest, _plain(pools.listed)),
        ("UpdateWorkerPool", run_v2.UpdateWorkerPoolRequest, lambda r, c: pools.update(r, c.principal)),
        ("DeleteWorkerPool", run_v2.DeleteWorkerPoolRequest, _plain(pools.delete)),
    ]
    yield from _methods(f"{RUN}.WorkerPools", _BaseWorkerPoolsRestTransport, worker_pools)
    pools_with_v1 = _with_v1(_BaseWorkerPoolsRestTransport, "workerpools")
    yield from policy_methods(
        f"{RUN}.WorkerPools", iam, lambda name: pools.existing(canonical(name)), pools_with_v1
    )


def _regional(services: Services) -> Handle:
    def listed(request: Mapping[str, str], _: Caller) -> dict[str, Any]:
        found = services.listed(run_v2.ListServicesRequest(parent=request["parent"]))
        return regional_services(list(found.services))

    return listed


def _executions(engine: Engine) -> Iterator[Method]:
    executions = engine.executions
    table: list[tuple[str, Any, Handle]] = [
        ("GetExecution", run_v2.GetExecutionRequest, _plain(executions.get)),
        ("ListExecutions", run_v2.ListExecutionsRequest, _plain(executions.listed)),
        ("DeleteExecution", run_v2.DeleteExecutionRequest, _plain(executions.delete)),
        ("CancelExecution", run_v2.CancelExecutionRequest, _plain(executions.cancel)),
    ]
    yield from _methods(f"{RUN}.Executions", _BaseExecutionsRestTransport, table)
    tasks: list[tuple[str, Any, Handle]] = [
        ("GetTask", run_v2.GetTaskRequest, _plain(executions.get_task)),
        ("ListTasks", run_v2.ListTasksRequest, _plain(executions.list_tasks)),
    ]
    yield from _methods(f"{RUN}.Tasks", _BaseTasksRestTransport, tasks)


def _operations(engine: Engine) -> Iterator[Method]:
    operations = engine.operations
    table: list[tuple[str, Any, Handle]] = [
        ("GetOperation", operations_pb2.GetOperationRequest, _plain(operations.get)),
        ("ListOperations", operations_pb2.ListOperationsRequest, _plain(operations.listed)),
        ("WaitOperation", operations_pb2.WaitOperationRequest, _plain(operations.wait)),
        ("DeleteOperation", operations_pb2.DeleteOperationRequest, _plain(operations.delete)),
    ]
    yield from _methods(OPERATIONS, _BaseJobsRestTransport, table)


def _scheduler(scheduler: ScheduledJobs) -> Iterator[Method]:
    table: list[tuple[str, Any, Handle]] = [
        ("ListJobs", scheduler_v1.ListJobsRequest, _plain(scheduler.listed)),
        ("GetJob", scheduler_v1.GetJobRequest, _plain(scheduler.get)),
        ("CreateJob", scheduler_v1.CreateJobRequest, _plain(scheduler.create)),
        ("UpdateJob", scheduler_v1.UpdateJobRequest, _plain(scheduler.update)),
        ("DeleteJob", scheduler_v1.DeleteJobRequest, _plain(scheduler.delete)),
        ("PauseJob", scheduler_v1.PauseJobRequest, _plain(scheduler.pause)),
        ("ResumeJob", scheduler_v1.ResumeJobRequest, _plain(scheduler.resume)),
        ("RunJob", scheduler_v1.RunJobRequest, _plain(scheduler.run)),
    ]
    yield from _methods(SCHEDULER, _BaseCloudSchedulerRestTransport, table)


def _secrets(secrets: Secrets, clock: Clock, iam: Iam) -> Iterator[Method]:
    from google.cloud import secretmanager_v1
    from google.cloud.secretmanager_v1.services.secret_manager_service.transports.rest_base import (
        _BaseSecretManagerServiceRestTransport,
    )

    from cloudrun_jobs.emulator.secret_manager import SecretManager

    manager = SecretManager(secrets, clock, iam.policies.drop)
    table: list[tuple[str, Callable[[Any], Any]]] = [
        ("CreateSecret", manager.create),
        ("GetSecret", manager.get),
        ("ListSecrets", manager.listed),
        ("UpdateSecret", manager.update),
        ("DeleteSecret", manager.delete),
        ("AddSecretVersion", manager.add),
        ("GetSecretVersion", manager.get_version),
        ("AccessSecretVersion", manager.access),
        ("ListSecretVersions", manager.list_versions),
        ("EnableSecretVersion", manager.enable),
        ("DisableSecretVersion", manager.disable),
        ("DestroySecretVersion", manager.destroy),
    ]
    for rpc, handle in table:
        request = getattr(secretmanager_v1, f"{rpc}Request")
        yield Method(SECRETS, rpc, request, _plain(handle), _routes(_BaseSecretManagerServiceRestTransport, rpc))
    routes = partial(_routes, _BaseSecretManagerServiceRestTransport)
    yield from policy_methods(SECRETS, iam, manager.check_exists, routes)


def _cloud_tasks(tasks: CloudTasks, iam: Iam) -> Iterator[Method]:
    from google.cloud import tasks_v2
    from google.cloud.tasks_v2.services.cloud_tasks.transports.rest_base import _BaseCloudTasksRestTransport

    table: list[tuple[str, Callable[[Any], Any]]] = [
        ("CreateQueue", tasks.create_queue),
        ("GetQueue", tasks.get_queue),
        ("ListQueues", tasks.list_queues),
        ("UpdateQueue", tasks.update_queue),
        ("DeleteQueue", tasks.delete_queue),
        ("PauseQueue", tasks.pause_queue),
        ("ResumeQueue", tasks.resume_queue),
        ("PurgeQueue", tasks.purge_queue),
        ("CreateTask", tasks.create_task),
        ("GetTask", tasks.get_task),
        ("ListTasks", tasks.list_tasks),
        ("DeleteTask", tasks.delete_task),
        ("RunTask", tasks.run_task),
    ]
    requests = ((rpc, getattr(tasks_v2, f"{rpc}Request"), _plain(handle)) for rpc, handle in table)
    yield from _methods(CLOUD_TASKS, _BaseCloudTasksRestTransport, requests)
    routes = partial(_routes, _BaseCloudTasksRestTransport)
    yield from policy_methods(CLOUD_TASKS, iam, tasks.check_exists, routes)


def _methods(service: str, transport: Any, table: Iterable[tuple[str, Any, Handle]]) -> Iterator[Method]:
    for rpc, request, handle in table:
        yield Method(service, rpc, request, handle, _routes(transport, rpc))


def _plain(handle: Callable[[Any], Any]) -> Handle:
    """Adapt a handler that does not depend on the caller."""
    return lambda request, _: handle(request)


def _with_v1(transport: Any, collection: str) -> Callable[[str], list[Route]]:
    """Return the HTTP rules of v2 and of v1, which gcloud uses for policies."""
    v1 = policy_routes(f"{PLACE}/{collection}/*")
    return lambda rpc: [*_routes(transport, rpc), *v1(rpc)]


def _routes(transport: Any, rpc: str) -> list[Route]:
    options = getattr(transport, f"_Base{rpc}")._get_http_options()
    return [Route(option["method"], option["uri"], option.get("body", "")) for option in options]
