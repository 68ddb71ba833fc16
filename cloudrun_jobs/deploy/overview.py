"""Read the drift, the pauses and the troubles of each command from the lists of both services."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.deploy.drift import job_drift, schedule_drift
from cloudrun_jobs.deploy.plan import Change, Existing, Plan
from cloudrun_jobs.deploy.plan.printing import DERIVED_FIELDS
from cloudrun_jobs.exceptions import CloudRunJobsError

if TYPE_CHECKING:
    from cloudrun_jobs.backends.cloudrun import CloudRunBackend


class Difference(NamedTuple):
    """What is different in the cloud: "job missing", or "schedule: time_zone"."""

    resource: str  #: "job" or "schedule".
    fields: Sequence[str] = ()  #: Those that differ; none if the resource is missing.

    def __str__(self) -> str:
        return f"{self.resource}: {', '.join(self.fields)}" if self.fields else f"{self.resource} missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The differences by command, the pauses, the orphans and the errors."""

    #: The differences of each command.
    changes: Mapping[str, Sequence[Difference]] = field(default_factory=dict)
    #: The errors that a service reports about a resource, by command.
    troubles: Mapping[str, Sequence[str]] = field(default_factory=dict)
    #: The ids of the Scheduler jobs that are paused.
    paused: frozenset[str] = frozenset()
    #: The ids of resources that no command declares any more.
    orphans: Sequence[str] = ()
    #: The errors that make the overview incomplete.
    errors: Sequence[CloudRunJobsError] = ()

    @property
    def exists(self) -> bool:
        return bool(self.changes or self.orphans)


def read(
    jobs: Sequence[CloudRunJobs],
    backend: CloudRunBackend,
    *,
    unreadable: Collection[str] = (),
    orphans: bool = True,
) -> Overview:
    """Return the drift of these jobs; resources of `unreadable` commands are not orphans."""
    found = _Found()
    for name, list_existing, compare in (
        ("job", _list_jobs, job_drift),
        ("schedule", _list_schedules, schedule_drift),
    ):
        try:
            existing = list_existing(backend)
            drift = compare(jobs, existing, backend, unreadable=unreadable)
        except CloudRunJobsError as error:
            found.errors.append(error)
        else:
            found.errors += drift.errors.values()
            found.add(name, drift.plan, existing)
    return Overview(
        changes=dict(found.changes),
        troubles=dict(found.troubles),
        paused=frozenset(found.paused),
        orphans=found.orphans if orphans else (),
        errors=found.errors,
    )


def _list_jobs(backend: CloudRunBackend) -> list[Existing]:
    from cloudrun_jobs.deploy.cloudrun.jobs import Jobs

    return Jobs(backend).list()


def _list_schedules(backend: CloudRunBackend) -> list[Existing]:
    from cloudrun_jobs.deploy.cloudrun.schedules import Schedules

    return Schedules(backend).list()


class _Found:
    def __init__(self) -> None:
        self.changes = defaultdict[str, list[Difference]](list)
        self.troubles = defaultdict[str, list[str]](list)
        self.paused, self.orphans = set[str](), list[str]()
        self.errors: list[CloudRunJobsError] = []

    def add(self, name: str, planned: Plan, existing: Sequence[Existing]) -> None:
        for change in planned.changes:
            if change.desired is not None:
                self.changes[change.desired.ownership.command].append(_difference(name, change))
        for item in existing:
            command = item.ownership.command if item.ownership else ""
            if item.paused:
                self.paused.add(item.id)
            if item.trouble and command:
                self.troubles[command].append(f"{name} {item.trouble}")
        self.orphans += (change.id for change in planned.orphans)


def _difference(name: str, change: Change) -> Difference:
    if change.action == "create":
        return Difference(name)
    changed = [each.name for each in change.fields]
    return Difference(name, tuple(each for each in changed if each not in DERIVED_FIELDS) or tuple(changed))
