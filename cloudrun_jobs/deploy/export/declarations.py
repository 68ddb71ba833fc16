"""All that is to be written, and where it belongs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudrun_jobs.deploy.cloudrun.field_values import Secret
from cloudrun_jobs.deploy.plan import Desired, reject_duplicate_ids
from cloudrun_jobs.exceptions import CloudRunJobsError

INTERFACE = ("network", "subnetwork", "tags")  # What of a VPC is an interface of the job in it.


@dataclass(frozen=True, slots=True, kw_only=True)
class Declarations:
    """The jobs, and the schedules of those same jobs, as the sync would write them."""

    project: str
    region: str
    scheduler_region: str
    jobs: Sequence[Desired]
    schedules: Sequence[Desired]

    def __post_init__(self) -> None:
        for name in ("jobs", "schedules"):
            items = getattr(self, name)
            reject_duplicate_ids(items)
            object.__setattr__(self, name, sorted(items, key=lambda item: item.id))
        for job in self.jobs:
            if "image" not in job.fields:
                raise CloudRunJobsError(f"{job.label}: a job needs an image.", hint="Add --image IMAGE.")

    def job_of(self, schedule: Desired) -> Desired:
        return next(job for job in self.jobs if job.mark.command == schedule.mark.command)

    @property
    def ungranted(self) -> list[str]:
        """The jobs that read secrets as whoever Cloud Run's default account is: nobody can be granted that."""
        return [job.label for job in self.jobs if not job.fields.get("service_account") and any(_secrets(job))]


def _secrets(job: Desired) -> Iterator[Secret]:
    return (value for value in under(job.fields, "env_vars").values() if isinstance(value, Secret))


def secrets(job: Desired) -> list[str]:
    """Return the names of the secrets that a job reads."""
    return sorted({secret.name for secret in _secrets(job)})


def under(fields: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the fields of a kind by their own names: of "labels.team", "team"."""
    return {name.removeprefix(f"{kind}."): value for name, value in fields.items() if name.startswith(f"{kind}.")}


def present(**values: Any) -> dict[str, Any]:
    """Return those that say something; 0 does."""
    return {name: value for name, value in values.items() if value is not None and value not in ("", [], {})}
