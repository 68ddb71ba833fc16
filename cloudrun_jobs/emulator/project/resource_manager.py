"""Resource Manager: every project exists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudrun_jobs.emulator.names import project_number, project_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudrun_jobs.emulator.service import Caller

CREATED = "2026-01-01T00:00:00Z"


def get_project(request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
    """Return a project in a form that has the fields of the v1 and of the v3 API."""
    project = project_of(request["name"])
    number = project_number(project)
    return {
        "name": f"projects/{number}",
        "projectNumber": number,
        "projectId": project,
        "displayName": project,
        "lifecycleState": "ACTIVE",
        "state": "ACTIVE",
        "createTime": CREATED,
    }


def check_exists(_: str) -> None:
    """Accept every project."""
