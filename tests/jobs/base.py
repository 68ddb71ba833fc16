"""An abstract job, outside of management/commands, that others derive from."""

from __future__ import annotations

from typing import Any

from cloudrun_jobs import CloudRunJobs


class NightlyJob(CloudRunJobs):
    """Declares what all nightly jobs have in common, and leaves the work to them."""

    schedule = "0 3 * * *"
    max_retries = 3

    def run(self, *args: Any, **options: Any) -> Any:
        return self.work()

    def work(self) -> Any:
        raise NotImplementedError
