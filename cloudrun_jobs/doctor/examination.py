"""Run the checks, and collect the findings and the checks that could not run."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from http import HTTPStatus
from typing import Any, NamedTuple

from django.db import Error

from cloudrun_jobs.doctor.checks.check import Check
from cloudrun_jobs.doctor.facts import Facts
from cloudrun_jobs.doctor.findings import Finding
from cloudrun_jobs.doctor.table import CHECKS
from cloudrun_jobs.exceptions import CloudRunJobsError, ServiceError

# Left out if another finding of the same job is the cause.
CONSEQUENCES = frozenset({"job_not_ready", "schedule_failing"})
CLIENT_ERRORS = range(400, 500)  # Of HTTP.


class Examination(NamedTuple):
    """The findings, and the ids of the checks that could not run, by error message."""

    findings: list[Finding]
    not_checked: dict[str, list[str]]


def examine(facts: Facts, skip: Collection[str] = ()) -> Examination:
    """Run all checks but those whose ids are in `skip`."""
    found: list[Finding] = []
    not_checked: dict[str, list[str]] = {}
    for check in CHECKS:
        if skip and {*skip}.issuperset(check.ids):
            continue
        for result in _results(check, facts):
            if isinstance(result, Finding):
                found += [result] if result.id not in skip else []
            else:
                ids = [id_ for id_ in check.ids if id_ not in skip]
                not_checked[str(result)] = list(dict.fromkeys([*not_checked.get(str(result), ()), *ids]))
    causes = {finding.job for finding in found if finding.id not in CONSEQUENCES}
    findings = [finding for finding in found if finding.id not in CONSEQUENCES or finding.job not in causes]
    return Examination(list(dict.fromkeys(findings)), not_checked)


def _results(check: Check, facts: Facts) -> Iterator[Finding | Exception]:
    """Yield the findings about each subject of the check, and the errors that prevented the check."""
    try:
        subjects = list(check.each(facts))
    except (CloudRunJobsError, Error) as error:
        yield error
        return
    for subject in subjects:
        yield from _results_of(check, facts, subject)


def _results_of(check: Check, facts: Facts, subject: Any) -> Iterator[Finding | Exception]:
    try:
        yield from check.find(facts, subject)
    except (CloudRunJobsError, Error) as error:
        yield error


def check_connection(facts: Facts) -> None:
    """Raise `ServiceError` if the credentials are invalid or there is no connection."""
    try:
        facts.existing_jobs()
    except ServiceError as error:
        code = getattr(error.__cause__, "code", None)
        # The checks report that a request was rejected.
        if code not in CLIENT_ERRORS or code == HTTPStatus.UNAUTHORIZED:
            raise
