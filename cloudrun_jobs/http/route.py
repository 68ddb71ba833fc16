"""The types of the HTTP API's route table, and the views of its URLs.

Each start of a job runs the system checks, which import the URLs. The first request imports the request handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction
from django.http import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

if TYPE_CHECKING:
    from django.http import HttpRequest

    from cloudrun_jobs.command import CloudRunJobs
    from cloudrun_jobs.http.credentials import Credentials
    from cloudrun_jobs.http.query import Parameter


@dataclass(frozen=True, slots=True)
class Action:
    """What one method of a URL does, and how the schema describes it."""

    handler: Callable[..., HttpResponseBase]
    scope: str | None  # None: any accepted credential.
    summary: str = ""
    #: The components of the schema that describe the responses, by status.
    responses: Mapping[int, str] = field(default_factory=dict)
    query: Mapping[str, Parameter] = field(default_factory=dict)
    headers: Mapping[str, Parameter] = field(default_factory=dict)
    #: The JSON schema of the optional body; None if the action takes no body, or one with the options of a job.
    body: Mapping[str, Any] | None = None
    #: The statuses of errors that are not common to all actions.
    errors: tuple[int, ...] = ()
    #: Return True if the path may name the job and the body set its options. The schema has a path for each job.
    starts: Callable[[CloudRunJobs], bool] | None = None
    #: Whether HEAD is allowed where GET is, for uptime checks.
    allows_head: bool = False
    #: Return True if the action needs no credential. A caller without one is `ANONYMOUS`.
    is_open: Callable[[Credentials], bool] = lambda configured: False


@dataclass(frozen=True, slots=True)
class Route:
    """A URL: its path, its name, its actions by method, and the parameters of its path with their descriptions."""

    path: str
    name: str
    actions: Mapping[str, Action]
    parameters: Mapping[str, str] = field(default_factory=dict)
    #: Return the methods of one URL, given its parameters, if they depend on those.
    methods: Callable[..., Iterable[str]] | None = None


def view_of(load: Callable[[], Route]) -> Callable[..., HttpResponseBase]:
    """Return the view of a URL. Each request calls `load` for the route."""

    def view(request: HttpRequest, **names: str) -> HttpResponseBase:
        from cloudrun_jobs.http.endpoint import respond

        return respond(load(), request, names)

    # In the transaction of ATOMIC_REQUESTS an action would not see the commits of other processes, and a failed
    # run would roll back its own record.
    for alias in connections:
        transaction.non_atomic_requests(using=alias)(view)
    # CSRF is checked only if the credential is a session.
    return csrf_exempt(view)
