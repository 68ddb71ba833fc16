"""Each planted fault is found, alone, with the command that mends it."""

from __future__ import annotations

import pytest

from tests.doctor.faults import GCLOUD, MANAGED, WRITTEN, Fault
from tests.doctor.project import Project


def test_healthy_project_has_no_findings(project: Project) -> None:
    """Of a project that is deployed as documented, nothing is reported."""
    found = project.doctor()

    assert (found.findings, found.status) == ([], 0)
    assert "Not checked" not in found.messages


def found_of(fault: Fault, project: Project) -> list[tuple[str, str | None, str]]:
    """Return what `doctor` is to find of a fault."""
    fix = fault.fix.replace("PROJECT", project.id).replace("AGENT", project.agent)
    url = project.options.get("service_url", "")
    return [(fault.id, fault.job, fix.replace("SERVICE_URL", url))]


@pytest.mark.parametrize("fault", MANAGED, ids=str)
def test_fault_is_found_and_mended(fault: Fault, project: Project) -> None:
    """The fault is the only finding, and is gone after its command."""
    fault.plant(project)
    found = project.doctor()

    assert (found.summary, found.status) == (found_of(fault, project), 1)

    project.mend(found.findings[0]["fix"])

    assert project.doctor().summary == []


@pytest.mark.parametrize("fault", [*GCLOUD, *WRITTEN], ids=str)
def test_fault_is_found_until_it_is_mended(fault: Fault, project: Project) -> None:
    """The fault is the only finding, until what its fix says is done."""
    fault.plant(project)
    found = project.doctor()

    assert (found.summary, found.status) == (found_of(fault, project), 1)

    assert fault.mend is not None
    fault.mend(project)

    assert project.doctor().summary == []
