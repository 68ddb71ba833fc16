"""One fault of a project in the cloud."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """One problem and its fix: a command, or a change of the settings or the code."""

    #: A stable name of the kind of fault, such as "api_disabled".
    id: str
    #: The command's name; None if the fault concerns all jobs.
    job: str | None
    message: str
    #: A command line, or what to write into which file. Secrets are never part of it.
    fix: str
