"""The engine: one store and its resources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudrun_jobs.emulator.engine.executions import Executions
from cloudrun_jobs.emulator.engine.jobs import Jobs
from cloudrun_jobs.emulator.engine.operations import Operations
from cloudrun_jobs.emulator.engine.services import Services
from cloudrun_jobs.emulator.engine.worker_pools import WorkerPools

if TYPE_CHECKING:
    from cloudrun_jobs.emulator.engine.lifecycle import Platform
    from cloudrun_jobs.emulator.engine.store import Store
    from cloudrun_jobs.emulator.iam.policies import Policies


class Engine:
    def __init__(self, platform: Platform, policies: Policies, store: Store) -> None:
        self.store = store
        self.executions = Executions(store, platform)
        self.jobs = Jobs(store, platform, self.executions.start_by_token, policies.drop)
        self.operations = Operations(store)
        self.services = Services(store, platform, policies.drop)
        self.worker_pools = WorkerPools(store, platform.clock, policies.drop)

    def signal(self, execution_name: str, number: int) -> None:
        """Send a signal to every running task of an execution."""
        with self.store.changed:
            lifecycle = self.executions.existing(execution_name).lifecycle
            if lifecycle is not None:
                lifecycle.signal(number)

    def close(self) -> None:
        """Release the calls that wait for an operation."""
        with self.store.changed:
            self.store.closed = True
            self.store.changed.notify_all()
