"""Resource names: ``projects/P/locations/R/jobs/J/executions/E/tasks/T`` taken apart and put together."""

from __future__ import annotations

from dataclasses import dataclass


class MalformedName(ValueError):
    """The text is not the resource name that the method asks for."""


@dataclass(frozen=True, slots=True)
class Location:
    """A project and a region: where every resource lives."""

    project: str
    region: str

    def __str__(self) -> str:
        return f"projects/{self.project}/locations/{self.region}"

    def job(self, job_id: str) -> str:
        return f"{self}/jobs/{job_id}"

    def operation(self, operation_id: str) -> str:
        return f"{self}/operations/{operation_id}"


def location_of(name: str) -> Location:
    """The location in any resource name."""
    parts = name.split("/")
    if len(parts) < 4 or parts[0] != "projects" or parts[2] != "locations" or not (parts[1] and parts[3]):
        raise MalformedName(f"expected projects/PROJECT/locations/REGION…, got {name!r}")
    return Location(parts[1], parts[3])


def check(name: str, *collections: str) -> str:
    """Refuse a name that is not a location followed by exactly these collections."""
    location_of(name)
    parts = name.split("/")[4:]
    if tuple(parts[::2]) != collections or len(parts) != 2 * len(collections) or not all(parts):
        shape = "".join(f"/{collection}/ID" for collection in collections)
        raise MalformedName(f"expected projects/PROJECT/locations/REGION{shape}, got {name!r}")
    return name


def short(name: str) -> str:
    """The last part of a name: what Cloud Run calls the id."""
    return name.rpartition("/")[2]


def parent(name: str) -> str:
    """The resource that this one belongs to: of an execution, its job."""
    return name.rsplit("/", 2)[0]


def matches(pattern: str, name: str) -> bool:
    """Whether a parent, which may hold ``-`` for any id, covers a name."""
    wanted, got = pattern.split("/"), name.split("/")
    return len(wanted) == len(got) and all(w in ("-", g) for w, g in zip(wanted, got, strict=True))
