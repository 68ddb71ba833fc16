"""Create, read, update and delete worker pools. No container is started for a worker pool."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from google.cloud import run_v2

from cloudrun_jobs.emulator import field_masks, limits, names
from cloudrun_jobs.emulator.engine import conditions, operations, output_only
from cloudrun_jobs.emulator.engine.services import set_container_defaults
from cloudrun_jobs.emulator.engine.store import Store, check_etag, paginate, placed, random_id, validated
from cloudrun_jobs.emulator.errors import already_exists, not_found
from cloudrun_jobs.emulator.template_limits import check_metadata

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.longrunning import operations_pb2

    from cloudrun_jobs.emulator.clock import Clock

COLLECTION = "workerPools"
LATEST = run_v2.InstanceSplitAllocationType.INSTANCE_SPLIT_ALLOCATION_TYPE_LATEST


class WorkerPools:
    def __init__(self, store: Store, clock: Clock, drop_policy: Callable[[str], None]) -> None:
        self._store = store
        self._drop_policy = drop_policy
        self._clock = clock

    def create(self, request: run_v2.CreateWorkerPoolRequest, principal: str) -> operations_pb2.Operation:
        location = names.location_of(placed(request.parent))
        limits.check_job_id(request.worker_pool_id, "CreateWorkerPoolRequest.worker_pool_id")
        pool = output_only.prepare(request.worker_pool)
        pool.name = f"{location}/{COLLECTION}/{request.worker_pool_id}"
        with self._store.changed:
            if pool.name in self._store.worker_pools:
                raise already_exists(request.worker_pool_id)
            pool.uid, pool.creator, pool.create_time = str(uuid.uuid4()), principal, self._clock.now()
            return self._put(pool, principal, generation=1, validate_only=request.validate_only)

    def get(self, request: run_v2.GetWorkerPoolRequest) -> run_v2.WorkerPool:
        with self._store.changed:
            return run_v2.WorkerPool(self.existing(request.name))

    def listed(self, request: run_v2.ListWorkerPoolsRequest) -> run_v2.ListWorkerPoolsResponse:
        pattern = f"{names.location_of(validated(request.parent))}/{COLLECTION}/-"
        with self._store.changed:
            found = [
                pool for name, pool in sorted(self._store.worker_pools.items()) if names.matches(pattern, name)
            ]
            pools, token = paginate(found, request.page_size, request.page_token)
            return run_v2.ListWorkerPoolsResponse(worker_pools=pools, next_page_token=token)

    def update(self, request: run_v2.UpdateWorkerPoolRequest, principal: str) -> operations_pb2.Operation:
        with self._store.changed:
            old = self.existing(request.worker_pool.name)
            check_etag(request.worker_pool.etag, old)
            pool = output_only.prepare(field_masks.updated(old, request.worker_pool, request.update_mask.paths))
            pool.name = old.name
            pool.uid, pool.creator, pool.create_time = old.uid, old.creator, old.create_time
            generation = old.generation + 1
            return self._put(pool, principal, generation=generation, validate_only=request.validate_only)

    def delete(self, request: run_v2.DeleteWorkerPoolRequest) -> operations_pb2.Operation:
        with self._store.changed:
            pool = run_v2.WorkerPool(self.existing(request.name))
            pool.delete_time = self._clock.now()
            operation = operations.finished(operations.new_name(names.location_of(pool.name)), pool)
            if not request.validate_only:
                self._store.operations[operation.name] = operation
                del self._store.worker_pools[pool.name]
                self._store.remove(pool.name)
                self._drop_policy(pool.name)
            return operation

    def existing(self, name: str) -> run_v2.WorkerPool:
        pool = self._store.worker_pools.get(placed(name, COLLECTION))
        if pool is None:
            raise not_found("WORKERPOOL", names.short(name), names.location_of(name))
        return pool

    def _put(
        self, pool: run_v2.WorkerPool, principal: str, *, generation: int, validate_only: bool
    ) -> operations_pb2.Operation:
        check_metadata(pool, "WorkerPool")
        check_metadata(pool.template, "WorkerPool.template")
        set_container_defaults(pool.template)
        now, short = self._clock.now(), names.short(pool.name)
        pool.generation = pool.observed_generation = generation
        pool.update_time, pool.last_modifier, pool.etag = now, principal, f'"{uuid.uuid4().hex[:16]}"'
        revision = f"{pool.name}/revisions/{pool.template.revision or f'{short}-{generation:05d}-{random_id(3)}'}"
        pool.latest_created_revision = pool.latest_ready_revision = revision
        pool.instance_splits = pool.instance_splits or [run_v2.InstanceSplit(type_=LATEST, percent=100)]
        pool.terminal_condition = run_v2.Condition(
            type_="Ready", state=conditions.SUCCEEDED, last_transition_time=now
        )
        operation = operations.finished(operations.new_name(names.location_of(pool.name)), pool)
        if not validate_only:
            self._store.worker_pools[pool.name] = pool
            self._store.operations[operation.name] = operation
            self._store.save(pool)
        return operation
