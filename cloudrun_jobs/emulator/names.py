"""Parse and build resource names: ``projects/P/locations/R/jobs/J/executions/E/tasks/T``."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


class MalformedName(ValueError):
    """The text is not a resource name of the expected form."""


@dataclass(frozen=True, slots=True)
class Location:
    """A project and a region, the parent of every resource."""

    project: str
    region: str

    def __str__(self) -> str:
        return f"projects/{self.project}/locations/{self.region}"

    def job(self, job_id: str) -> str:
        return f"{self}/jobs/{job_id}"

    def operation(self, operation_id: str) -> str:
        return f"{self}/operations/{operation_id}"


def location_of(name: str) -> Location:
    """Return the location in any resource name."""
    parts = name.split("/")
    if len(parts) < 4 or parts[0] != "projects" or parts[2] != "locations" or not (parts[1] and parts[3]):
        raise MalformedName(f"expected projects/PROJECT/locations/REGION…, got {name!r}")
    return Location(parts[1], parts[3])


def check(name: str, *collections: str) -> str:
    """Return the name if it is a location followed by exactly these collections, else raise `MalformedName`."""
    location_of(name)
    parts = name.split("/")[4:]
    if tuple(parts[::2]) != collections or len(parts) != 2 * len(collections) or not all(parts):
        shape = "".join(f"/{collection}/ID" for collection in collections)
        raise MalformedName(f"expected projects/PROJECT/locations/REGION{shape}, got {name!r}")
    return name


def short(name: str) -> str:
    """Return the last part of a name, which Cloud Run calls the id."""
    return name.rpartition("/")[2]


def parent(name: str) -> str:
    """Return the name of the parent resource: the job of an execution."""
    return name.rsplit("/", 2)[0]


def matches(pattern: str, name: str) -> bool:
    """Return True if the name matches the pattern, in which ``-`` stands for any id."""
    expected, got = pattern.split("/"), name.split("/")
    return len(expected) == len(got) and all(e in ("-", g) for e, g in zip(expected, got, strict=True))


def project_of(name: str) -> str:
    """Return the project in any resource name; an empty text if it has none."""
    parts = name.split("/")
    return parts[1] if len(parts) > 1 and parts[0] == "projects" else ""


def project_number(project: str) -> str:
    """Return the number of a project, which is always the same for the same id."""
    if project.isdecimal():
        return project
    return str(10**11 + int.from_bytes(hashlib.sha256(project.encode()).digest()[:8], "big") % (9 * 10**11))


def default_account(project: str) -> str:
    """Return the account of resources that name none: the default one of Compute Engine."""
    return f"{project_number(project)}-compute@developer.gserviceaccount.com"
