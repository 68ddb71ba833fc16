"""Each planted fault is the only finding, with its fix."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from tests.doctor.faults import GCLOUD, GROUPS, MANAGED, WRITTEN, Fault
from tests.doctor.project import Project


def test_healthy_project_has_no_findings(project: Project) -> None:
    """A project that is deployed as documented has no findings."""
    found = project.doctor()

    assert (found.findings, found.status) == ([], 0)
    assert "Not checked" not in found.messages


def found_of(fault: Fault, project: Project) -> list[tuple[str, str | None, str]]:
    """Return the expected finding of a fault."""
    fix = fault.fix.replace("PROJECT", project.id).replace("AGENT", project.agent)
    url = project.options.get("service_url", "")
    return [(fault.id, fault.job, fix.replace("SERVICE_URL", url))]


def mend(project: Project, fault: Fault, fix: str) -> None:
    """Run a command line of `manage.py`, or do what another fix says."""
    fault.mend(project) if fault.mend else project.mend(fix)


def mend_all(
    project: Project, faults: Sequence[Fault], run: Callable[[Project, Fault, str], object] = mend
) -> None:
    """Plant the faults one after the other: each is found alone, so the one before it was mended."""
    for fault in faults:
        fault.plant(project)
        found = project.doctor()
        assert (found.summary, found.status) == (found_of(fault, project), 1), fault
        run(project, fault, found.findings[0]["fix"])
    assert project.doctor().summary == []


@pytest.mark.parametrize("group", GROUPS)
def test_faults_are_found_and_mended(group: str, project: Project) -> None:
    """Each fault is the only finding, and is gone after its fix."""
    mend_all(project, GROUPS[group])


def test_each_fault_is_in_a_group() -> None:
    """All planted faults are tested, once."""
    tested = [fault for faults in GROUPS.values() for fault in faults]

    assert sorted(map(str, tested)) == sorted(map(str, (*MANAGED, *GCLOUD, *WRITTEN)))
