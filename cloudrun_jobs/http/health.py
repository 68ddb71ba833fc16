"""Show the faults that keep jobs from running."""

from __future__ import annotations

from dataclasses import asdict
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.http import HttpResponse, HttpResponseBase

from cloudrun_jobs.http import query
from cloudrun_jobs.http.authentication import Caller
from cloudrun_jobs.http.endpoint import json_response
from cloudrun_jobs.registry import find_specs
from cloudrun_jobs.runs.health import Finding, find_faults

if TYPE_CHECKING:
    from django.http import HttpRequest


def show_health(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """Return the faults with the status 503; without the scope "read", only the status."""
    can_read = "read" in caller.scopes
    if can_read:
        query.read_query(request, {})
    found = [each for each in find_faults(find_specs()) if each.command is None or caller.may_use(each.command)]
    status = HTTPStatus.SERVICE_UNAVAILABLE if found else HTTPStatus.OK
    if not can_read or request.method == "HEAD":
        response = HttpResponse(status=status)
        del response["Content-Type"]
        return response
    return json_response({"status": "unhealthy" if found else "ok", "findings": list(map(_data, found))}, status)


def _data(finding: Finding) -> dict[str, Any]:
    return {name: value for name, value in asdict(finding).items() if value and name != "scheduler_job"}
