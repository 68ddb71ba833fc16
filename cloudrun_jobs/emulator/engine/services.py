"""Create, read, update and delete services and their revisions. No container is started for a service."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from google.cloud import run_v2
from google.rpc import status_pb2

from cloudrun_jobs.emulator import field_masks, limits, messages, names
from cloudrun_jobs.emulator.engine import conditions, operations, output_only
from cloudrun_jobs.emulator.engine.jobs import set_default_limits
from cloudrun_jobs.emulator.engine.store import Store, check_etag, paginate, placed, random_id, validated
from cloudrun_jobs.emulator.errors import ServiceError, already_exists, invalid, not_found
from cloudrun_jobs.emulator.template_limits import check_metadata, check_template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from google.longrunning import operations_pb2

    from cloudrun_jobs.emulator.engine.lifecycle import Platform

FAILED_PRECONDITION = 9  # The number of the gRPC status.
DEFAULT_TIMEOUT = timedelta(seconds=300)
DEFAULT_CONCURRENCY = 80  # requests
DEFAULT_MAX_INSTANCES = 100
TAG = re.compile(r"[a-z](?:[-a-z0-9]{0,44}[a-z0-9])?")
Allocation = run_v2.TrafficTargetAllocationType
LATEST = Allocation.TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST
REVISION = Allocation.TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION
# An update keeps these fields, which callers cannot set.
SERVICE_SET_FIELDS = ("name", "uid", "create_time", "creator", "latest_created_revision", "latest_ready_revision")


class Services:
    def __init__(self, store: Store, platform: Platform, drop_policy: Callable[[str], None]) -> None:
        self._store = store
        self._drop_policy = drop_policy
        self._clock = platform.clock
        self._images = platform.images
        self._urls = platform.config.services  # Local URLs by the id of the service that they stand for.

    @property
    def by_name(self) -> dict[str, run_v2.Service]:
        return self._store.services

    def create(self, request: run_v2.CreateServiceRequest, principal: str) -> operations_pb2.Operation:
        location = names.location_of(placed(request.parent))
        limits.check_job_id(request.service_id, "CreateServiceRequest.service_id")
        service = _with_defaults(request.service, f"{location}/services/{request.service_id}")
        with self._store.changed:
            if service.name in self.by_name:
                raise already_exists(request.service_id)
            service.uid, service.creator = str(uuid.uuid4()), principal
            service.create_time = self._clock.now()
            return self._put(service, None, principal, validate_only=request.validate_only)

    def get(self, request: run_v2.GetServiceRequest) -> run_v2.Service:
        with self._store.changed:
            return run_v2.Service(self.existing(request.name))

    def listed(self, request: run_v2.ListServicesRequest) -> run_v2.ListServicesResponse:
        pattern = f"{names.location_of(validated(request.parent))}/services/-"
        with self._store.changed:
            found = [service for name, service in sorted(self.by_name.items()) if names.matches(pattern, name)]
            services, token = paginate(found, request.page_size, request.page_token)
            return run_v2.ListServicesResponse(services=services, next_page_token=token)

    def update(self, request: run_v2.UpdateServiceRequest, principal: str) -> operations_pb2.Operation:
        name = placed(request.service.name, "services")
        with self._store.changed:
            if name not in self.by_name and request.allow_missing:
                parent, short = str(names.location_of(name)), names.short(name)
                create = run_v2.CreateServiceRequest(parent=parent, service=request.service, service_id=short)
                return self.create(create, principal)
            old = self.existing(name)
            check_etag(request.service.etag, old)
            masked = field_masks.updated(old, request.service, request.update_mask.paths)
            service = _with_defaults(masked, name)
            for field in SERVICE_SET_FIELDS:
                setattr(service, field, getattr(old, field))
            return self._put(service, old, principal, validate_only=request.validate_only)

    def delete(self, request: run_v2.DeleteServiceRequest) -> operations_pb2.Operation:
        with self._store.changed:
            service = run_v2.Service(self.existing(request.name))
            service.delete_time = self._clock.now()
            operation = operations.finished(operations.new_name(names.location_of(service.name)), service)
            if not request.validate_only:
                self._store.operations[operation.name] = operation
                for name in [service.name, *self._revisions_of(service.name)]:
                    self._store.services.pop(name, None)
                    self._store.revisions.pop(name, None)
                    self._drop_policy(name)
                    self._store.remove(name)
            return operation

    def get_revision(self, request: run_v2.GetRevisionRequest) -> run_v2.Revision:
        with self._store.changed:
            pattern = validated(request.name, _owners(request.name), "revisions")
            for name, revision in self._store.revisions.items():
                if names.matches(pattern, name):
                    return run_v2.Revision(revision)
        raise not_found("REVISION", names.short(pattern), names.location_of(pattern))

    def list_revisions(self, request: run_v2.ListRevisionsRequest) -> run_v2.ListRevisionsResponse:
        """Return the revisions of a service, or of all with ``-``, newest first."""
        pattern = f"{validated(request.parent, _owners(request.parent))}/revisions/-"
        with self._store.changed:
            found = [each for name, each in self._store.revisions.items() if names.matches(pattern, name)]
            revisions, token = paginate(reversed(found), request.page_size, request.page_token)
            return run_v2.ListRevisionsResponse(revisions=revisions, next_page_token=token)

    def check_exists(self, name: str) -> None:
        self.existing(name)

    def existing(self, name: str) -> run_v2.Service:
        service = self.by_name.get(placed(name, "services"))
        if service is None:
            raise not_found("SERVICE", names.short(name), names.location_of(name))
        return service

    def _revisions_of(self, service_name: str) -> list[str]:
        return [name for name in self._store.revisions if name.startswith(f"{service_name}/revisions/")]

    def _put(
        self, service: run_v2.Service, old: run_v2.Service | None, principal: str, *, validate_only: bool
    ) -> operations_pb2.Operation:
        now = self._clock.now()
        service.generation = service.observed_generation = (old.generation if old else 0) + 1
        service.update_time, service.last_modifier, service.etag = now, principal, f'"{uuid.uuid4().hex[:16]}"'
        revision = None
        if old is None or old.template != service.template or self._can_become_ready(old):
            revision = self._new_revision(service)
            service.latest_created_revision = revision.name
            if _failure(revision) is None:
                service.latest_ready_revision = revision.name
        service.uri = self._url(service.name)
        service.urls = [service.uri]
        service.traffic_statuses = [self._status(service, target) for target in service.traffic]
        failure = None if revision is None else _failure(revision)
        service.terminal_condition = _condition("Ready", now, failure)
        service.conditions = [
            _condition("RoutesReady", now, failure),
            _condition("ConfigurationsReady", now, failure),
        ]
        operation = operations.finished(operations.new_name(names.location_of(service.name)), service)
        if failure is not None:
            operation.error.CopyFrom(status_pb2.Status(code=FAILED_PRECONDITION, message=failure))
        if not validate_only:
            if revision is not None:
                self._store.revisions[revision.name] = revision
                self._store.save(revision)
            self.by_name[service.name] = service
            self._store.operations[operation.name] = operation
            self._store.save(service)
        return operation

    def _can_become_ready(self, old: run_v2.Service) -> bool:
        """Return True if the latest revision is not ready, or missing, but a new one would be."""
        created = old.latest_created_revision
        is_ready = bool(created) and created == old.latest_ready_revision
        return not is_ready and self._images.missing(old.template) is None

    def _new_revision(self, service: run_v2.Service) -> run_v2.Revision:
        template, short = service.template, names.short(service.name)
        given = template.revision
        if given and not given.startswith(f"{short}-"):
            raise invalid(f"Revision name {given!r} must begin with the name of the service, {short + '-'!r}.")
        name = f"{service.name}/revisions/{given or f'{short}-{service.generation:05d}-{random_id(3)}'}"
        if name in self._store.revisions:
            raise ServiceError(
                "ALREADY_EXISTS", f"Revision named '{given}' with different configuration already exists."
            )
        now, missing = self._clock.now(), self._images.missing(template)
        failure = None if missing is None else conditions.image_missing_message(missing)
        revision = run_v2.Revision(
            name=name,
            uid=str(uuid.uuid4()),
            service=short,
            generation=1,
            observed_generation=1,
            create_time=now,
            update_time=now,
            creator=service.last_modifier,
            conditions=[
                _condition(type_, now, failure) for type_ in ("Ready", "ContainerHealthy", "ResourcesAvailable")
            ],
            etag=f'"{uuid.uuid4().hex[:16]}"',
            launch_stage=service.launch_stage,
        )
        messages.carry(template, revision)
        return revision

    def _status(self, service: run_v2.Service, target: run_v2.TrafficTarget) -> run_v2.TrafficTargetStatus:
        """Return the status of a traffic target: its revision, and the URL of its tag."""
        latest = names.short(service.latest_ready_revision)
        revision = target.revision or latest
        name = f"{service.name}/revisions/{revision}"
        if target.type_ == REVISION and revision != latest and name not in self._store.revisions:
            raise invalid(f"Revision {revision!r} is not found, so no traffic can go to it.")
        return run_v2.TrafficTargetStatus(
            type_=target.type_,
            revision=revision,
            percent=target.percent,
            tag=target.tag,
            uri=self._url(service.name, target.tag) if target.tag else "",
        )

    def _url(self, service_name: str, tag: str = "") -> str:
        short, location = names.short(service_name), names.location_of(service_name)
        local = self._urls.get(short)
        prefix = f"{tag}---" if tag else ""
        return (
            local.rstrip("/") if local else f"https://{prefix}{short}-{location.project}.{location.region}.run.app"
        )


def _with_defaults(given: run_v2.Service, name: str) -> run_v2.Service:
    """Return the service as it is stored: with defaults, or raise INVALID_ARGUMENT."""
    if given.name not in ("", name):
        raise invalid(f"Violation in Service.name: got {given.name!r}, expected it to be empty or {name!r}.")
    service: run_v2.Service = output_only.prepare(given)
    service.name = name
    template = service.template
    check_metadata(service, "Service")
    check_metadata(template, "Service.template")
    set_container_defaults(template)
    template.timeout = template.timeout or DEFAULT_TIMEOUT
    template.max_instance_request_concurrency = template.max_instance_request_concurrency or DEFAULT_CONCURRENCY
    template.scaling.max_instance_count = template.scaling.max_instance_count or DEFAULT_MAX_INSTANCES
    if service.ingress == run_v2.IngressTraffic.INGRESS_TRAFFIC_UNSPECIFIED:
        service.ingress = run_v2.IngressTraffic(run_v2.IngressTraffic.INGRESS_TRAFFIC_ALL)
    service.traffic = service.traffic or [run_v2.TrafficTarget(type_=LATEST, percent=100)]
    _check_traffic(service.traffic)
    return service


def set_container_defaults(template: Any) -> None:
    """Check the containers of a service or a worker pool, and set their default limits."""
    if not template.containers:
        raise invalid("Violation in template.containers: at least one container is needed.")
    for container in template.containers:
        limits.check_container(container)
        set_default_limits(container)
    check_template(template)


def _owners(name: str) -> str:
    """Return the collection in the name of a revision. No revisions of worker pools are kept."""
    return "workerPools" if "/workerPools/" in name else "services"


def _check_traffic(targets: Iterable[run_v2.TrafficTarget]) -> None:
    percent = sum(target.percent for target in targets)
    if percent != 100 or any(target.percent < 0 for target in targets):
        raise invalid(f"Traffic percentages must add up to 100, got {percent}.")
    tags = [target.tag for target in targets if target.tag]
    for tag in tags:
        if not TAG.fullmatch(tag) or tags.count(tag) > 1:
            raise invalid(f"Traffic tag {tag!r} must be unique, and use lowercase letters, digits and hyphens.")


def _failure(revision: run_v2.Revision) -> str | None:
    """Return the failure that a service reports about its revision; None if the revision is ready."""
    message = revision.conditions[0].message
    if not message:
        return None
    return f"Revision '{names.short(revision.name)}' is not ready and cannot serve traffic. {message}"


def _condition(type_: str, now: Any, failure: str | None) -> run_v2.Condition:
    if failure is None:
        return run_v2.Condition(type_=type_, state=conditions.SUCCEEDED, last_transition_time=now)
    return run_v2.Condition(
        type_=type_,
        state=conditions.FAILED,
        reason=run_v2.Condition.CommonReason.CONTAINER_MISSING,
        message=failure,
        last_transition_time=now,
    )
