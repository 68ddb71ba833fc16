"""Read and write all resources of one kind with Google's client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from google.api_core.exceptions import NotFound

from cloudrun_jobs.backends.cloudrun.errors import ApiMethod, translate_errors
from cloudrun_jobs.backends.cloudrun.quota import RETRY_WHEN_EXHAUSTED, Quota
from cloudrun_jobs.deploy.plan import Change, Existing
from cloudrun_jobs.exceptions import ServiceError

if TYPE_CHECKING:
    from cloudrun_jobs.backends.cloudrun import CloudRunBackend

PAGE_SIZE = 500


class CloudStore(ABC):
    """The base of both stores. The clients of Cloud Run and of Cloud Scheduler name their methods alike."""

    list_method: ClassVar[ApiMethod]
    delete_method: ClassVar[ApiMethod]
    writes_per_minute: ClassVar[int]

    def __init__(self, backend: CloudRunBackend, parent: str, client: Any) -> None:
        self.parent = parent
        self._backend, self._client = backend, client
        self._quota = Quota(self.writes_per_minute)

    @abstractmethod
    def existing(self, job: Any) -> Existing:
        """Read a message of the service."""

    def list(self) -> list[Existing]:
        """Return all resources, with one call for each page."""
        with translate_errors(self.parent, self.list_method, endpoint=self._backend.endpoint):
            jobs = self.call(self._client.list_jobs, parent=self.parent, page_size=PAGE_SIZE)
            return [self.existing(job) for job in jobs]

    def delete(self, change: Change) -> str:
        try:
            self.write(change, self.delete_method, self._client.delete_job, name=self.name(change))
        except ServiceError as error:
            if not isinstance(error.__cause__, NotFound):
                raise
            return "already deleted"
        return ""

    def write(self, change: Change, method: ApiMethod, call: Any, **request: Any) -> Any:
        """Call a method of the client, within the quota."""
        self._quota.wait()
        with translate_errors(self.name(change), method, endpoint=self._backend.endpoint):
            return self.call(call, **request)

    def call(self, call: Any, **request: Any) -> Any:
        return call(request, retry=RETRY_WHEN_EXHAUSTED, timeout=self._backend.rpc_timeout)

    def name(self, change: Change) -> str:
        return f"{self.parent}/jobs/{change.id}"
