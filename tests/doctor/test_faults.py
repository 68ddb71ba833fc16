"""Each planted fault is found, alone, with the command that mends it."""

from __future__ import annotations

import pytest

from tests.doctor.faults import MANAGED, Fault
from tests.doctor.project import Project


def test_healthy_project_has_no_findings(project: Project) -> None:
    """Of a project that is deployed as documented, nothing is reported."""
    found = project.doctor()

    assert (found.findings, found.status) == ([], 0)
    assert "Not checked" not in found.messages


@pytest.mark.parametrize("fault", MANAGED, ids=str)
def test_fault_is_found_and_mended(fault: Fault, project: Project) -> None:
    """The fault is the only finding, and is gone after its command."""
    fault.plant(project)
    found = project.doctor()

    assert [(each["id"], each["job"], each["fix"]) for each in found.findings] == [
        (fault.id, fault.job, fault.fix.replace("PROJECT", project.id))
    ]
    assert found.status == 1

    project.mend(found.findings[0]["fix"])

    assert project.doctor().findings == []
