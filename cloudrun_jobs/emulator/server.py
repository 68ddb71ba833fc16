"""The `Emulator`: start and stop the services, and control their clock, faults and logs."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from werkzeug.routing import Map, Rule

from cloudrun_jobs.emulator.application import Application
from cloudrun_jobs.emulator.clients import Clients
from cloudrun_jobs.emulator.clock import Clock
from cloudrun_jobs.emulator.closed_world import METADATA_PREFIX, Addresses
from cloudrun_jobs.emulator.config import Config
from cloudrun_jobs.emulator.engine.core import Engine
from cloudrun_jobs.emulator.engine.executions import CONSOLE_PREFIX, set_links
from cloudrun_jobs.emulator.engine.lifecycle import Platform
from cloudrun_jobs.emulator.engine.secrets import Secrets
from cloudrun_jobs.emulator.engine.store import Store
from cloudrun_jobs.emulator.events import Events
from cloudrun_jobs.emulator.faults import MAX_SECONDS, Faults
from cloudrun_jobs.emulator.frontends.admin_api import (
    CERTIFICATES_PATH,
    DISCOVERY_PATH,
    KEYS_PATH,
    PATH_PREFIX,
    TOKEN_INFO_PATHS,
    AdminApi,
    no_metadata,
)
from cloudrun_jobs.emulator.frontends.console import Console
from cloudrun_jobs.emulator.frontends.grpc_frontend import GrpcFrontend
from cloudrun_jobs.emulator.frontends.http_frontend import HttpFrontend
from cloudrun_jobs.emulator.frontends.knative.frontend import KnativeFrontend, ServingFrontend
from cloudrun_jobs.emulator.frontends.ports import Ports
from cloudrun_jobs.emulator.frontends.rest.frontend import RestFrontend
from cloudrun_jobs.emulator.http_delivery import HttpDelivery
from cloudrun_jobs.emulator.iam.access import Iam
from cloudrun_jobs.emulator.logs.store import LogStore
from cloudrun_jobs.emulator.methods import has_cloud_tasks, methods
from cloudrun_jobs.emulator.persistence import Persistence
from cloudrun_jobs.emulator.processes.spawner import Spawner
from cloudrun_jobs.emulator.project import methods as project
from cloudrun_jobs.emulator.project.artifact_registry import ArtifactRegistry
from cloudrun_jobs.emulator.project.custom_roles import CustomRoles
from cloudrun_jobs.emulator.project.documents import Documents
from cloudrun_jobs.emulator.project.images import Images
from cloudrun_jobs.emulator.project.service_accounts import ServiceAccounts
from cloudrun_jobs.emulator.project.service_usage import ServiceUsage
from cloudrun_jobs.emulator.scheduler.jobs import ScheduledJobs
from cloudrun_jobs.emulator.scheduler.logs import DeliveryLog
from cloudrun_jobs.emulator.service import Service
from cloudrun_jobs.emulator.state import State
from cloudrun_jobs.emulator.tokens import Tokens

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from types import TracebackType

    from google.cloud import run_v2

    from cloudrun_jobs.emulator.cloud_tasks.service import CloudTasks
    from cloudrun_jobs.emulator.web import Request, Response


class Emulator:
    """A local Cloud Run, Cloud Scheduler, Cloud Tasks, Secret Manager and Cloud Logging.

    Use `with`, or call `start` and `stop`.

    The options are those of `Config`: ``Emulator(grace=1.0, images={"app": "app"})``.
    """

    def __init__(self, **options: Any) -> None:
        self.config = config = Config(**options)
        self.clock = Clock()
        self.faults = Faults()
        self.events = events = Events()
        self.logs = LogStore(self.clock)
        self.tokens = Tokens()
        self._documents = documents = Documents()
        self._iam = iam = Iam(config.iam, documents)
        self.images = images = Images(documents, config.registry)
        apis = ServiceUsage(documents, config.disabled_apis)
        self._state: State | None = None
        self._http_delivery = HttpDelivery(
            self.clock, self.tokens, self.faults, events, lambda request: self._application.deliver(request)
        )
        self.scheduler = ScheduledJobs(self.clock, self._http_delivery, DeliveryLog(self.logs))
        self.cloud_tasks = self._cloud_tasks(iam)
        self._spawner = Spawner()
        self._addresses = Addresses()
        self._secrets = secrets = Secrets(config.secrets)
        platform = Platform(
            config,
            self.clock,
            self._spawner,
            self.logs,
            secrets,
            self.faults,
            events,
            self._addresses,
            images,
            iam,
        )
        self._engine = Engine(platform, iam.policies, Store())
        registry = ArtifactRegistry(documents, images, iam.policies, self.clock)
        served = [
            *methods(self._engine, self.scheduler, self.logs, secrets, self.clock, iam, self.cloud_tasks),
            *project.methods(iam, ServiceAccounts(documents, iam), CustomRoles(documents), apis, registry),
        ]
        self._service = Service(served, self.faults, iam, apis)
        self._application = Application(RestFrontend(self._service), self.tokens, events, self._routes())
        self._http = HttpFrontend(self._application)
        self._grpc = GrpcFrontend(self._service, self.tokens, events)
        self._ports = Ports()

    @property
    def grpc(self) -> str:
        """The gRPC address, ``127.0.0.1:PORT``."""
        return self._addresses.grpc

    @property
    def http(self) -> str:
        """The HTTP address, ``http://127.0.0.1:PORT``."""
        return self._addresses.http

    @cached_property
    def clients(self) -> Clients:
        """The Google clients, connected to this emulator."""
        return Clients(self.grpc)

    @property
    def services(self) -> dict[str, run_v2.Service]:
        """The services that GetService returns, by full name. Add the services that a test needs."""
        return self._engine.services.by_name

    @property
    def revisions(self) -> dict[str, run_v2.Revision]:
        """The revisions of services, by full name."""
        return self._engine.store.revisions

    @property
    def worker_pools(self) -> dict[str, run_v2.WorkerPool]:
        """The worker pools, by full name."""
        return self._engine.store.worker_pools

    @property
    def calls(self) -> Counter[str]:
        """The number of calls per method, ``Jobs.RunJob``. Call `clear()` on it to restart the count."""
        return self._service.calls

    @property
    def supervisor_pid(self) -> int:
        """The id of the process that owns the processes of all tasks."""
        return self._spawner.supervisor_pid

    def prune(self, execution: str) -> None:
        """Drop a finished execution by name, as the service does when its retention ends."""
        self._engine.executions.prune(execution)

    def maintain(self, execution: str, seconds: float = 10.0) -> None:
        """Simulate maintenance of the machine: send SIGTSTP to the execution's tasks, and SIGCONT afterwards."""
        if not 0 <= seconds <= MAX_SECONDS:
            raise ValueError(f"expected 0 to {MAX_SECONDS:.0f} seconds, got {seconds}")
        self._engine.signal(execution, signal.SIGTSTP)
        self.clock.call_later(seconds, lambda: self._engine.signal(execution, signal.SIGCONT))

    def on_delivery(self, uri: str, handler: Callable[[Request], Response]) -> None:
        """Handle the deliveries of Cloud Scheduler and Cloud Tasks to this URI with a function."""
        self._http_delivery.handlers[uri] = handler

    def _cloud_tasks(self, iam: Iam) -> CloudTasks | None:
        if not has_cloud_tasks():
            return None
        from cloudrun_jobs.emulator.cloud_tasks.service import CloudTasks

        return CloudTasks(self.clock, self._http_delivery, iam.policies.drop)

    def _restore(self, state: State) -> None:
        """Restore the saved state, and save changes from now on."""
        persistence = Persistence(state)
        persistence.restore(self._engine.store, self.scheduler, self._secrets, self.clock.now())
        for record in self._engine.store.executions.values():
            set_links(record.execution, record.tasks, self.http)
        self._engine.store.save, self._engine.store.remove = persistence.save, persistence.remove
        self.scheduler.save, self.scheduler.remove = persistence.save_scheduled, persistence.remove_scheduled
        self._secrets.save = persistence.save_secret
        persistence.restore_documents(self._documents)
        self._documents.save = persistence.save_document
        if self.cloud_tasks is not None:
            self.cloud_tasks.restore(state)
        self._state = state

    def _routes(self) -> Map:
        """Return the paths that are not those of an API in REST."""
        admin_api = AdminApi(self)
        console = Console(self, self._engine)
        knative = KnativeFrontend(self._service, self._engine)
        serving = ServingFrontend(self._service, self._engine)
        endpoints: dict[str, Callable[..., Response]] = {
            "/": console.overview,
            f"{CONSOLE_PREFIX}<path:name>": console.execution,
            "/jobs/<path:name>": console.job,
            "/actions/<any(execute, cancel, pause, resume, run):action>": console.act,
            f"{knative.path_prefix}<path:rest>": knative.respond,
            f"{serving.path_prefix}<path:rest>": serving.respond,
            f"{PATH_PREFIX}<endpoint>": admin_api.respond,
            CERTIFICATES_PATH: admin_api.certificates,
            KEYS_PATH: admin_api.keys,
            DISCOVERY_PATH: admin_api.discovery,
            **dict.fromkeys(TOKEN_INFO_PATHS, admin_api.token_info),
            f"{METADATA_PREFIX}<path:rest>": no_metadata,
        }
        methods: dict[Callable[..., Response], tuple[str, ...]] = {
            **dict.fromkeys((console.overview, console.execution, console.job), ("GET",)),
            **dict.fromkeys((admin_api.certificates, admin_api.keys, admin_api.discovery), ("GET",)),
            console.act: ("POST",),
        }
        rules = [Rule(path, endpoint=each, methods=methods.get(each)) for path, each in endpoints.items()]
        return Map(rules, strict_slashes=False, merge_slashes=False)

    def start(self) -> Self:
        with ExitStack() as on_error:
            on_error.callback(self._ports.close)
            self._addresses.http = f"http://127.0.0.1:{self._ports.bind(self.config.port)}"
            self._addresses.grpc = f"127.0.0.1:{self._ports.bind(self.config.grpc_port)}"
            if self.config.state is not None:
                self._restore(State(self.config.state))
            on_error.pop_all()
        self._iam.warn_of_unevaluated()
        self._http_delivery.issuer = self.http
        self._spawner.open()
        self.clock.start()
        self._ports.serve(self._grpc.serve(), self._http.serve())
        return self

    def _close_state(self) -> None:
        if self._state is not None:
            self._state.close()

    def stop(self) -> None:
        """Stop serving and kill every task."""
        if "clients" in vars(self):
            self.clients.close()
        self._http_delivery.close()
        self._service.close()
        self.clock.stop()
        self._engine.close()
        self._grpc.stop()
        self._http.stop()
        self._ports.stop()
        self._spawner.close()
        self._close_state()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
