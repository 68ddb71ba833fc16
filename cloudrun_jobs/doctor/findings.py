"""One fault of a project in the cloud."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """One fault, and the command that mends it."""

    #: A stable name of the kind of fault, such as "api_disabled".
    id: str
    #: The command's name; None if the fault concerns all jobs.
    job: str | None
    message: str
    #: A command line, or what to write into which file. Secrets are never part of it.
    fix: str
