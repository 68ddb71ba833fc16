"""The parts of the table of the HTTP API, and the views of its URLs.

Each start of a job runs the system checks, which import the URLs: what answers requests is imported by the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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
    """What one method of a URL does, and what the schema says of it."""

    handler: Callable[..., HttpResponseBase]
    scope: str | None  # None: any accepted credential.
    summary: str = ""
    #: The components of the schema that describe the answers, by status.
    answers: Mapping[int, str] = field(default_factory=dict)
    query: Mapping[str, Parameter] = field(default_factory=dict)
    headers: Mapping[str, Parameter] = field(default_factory=dict)
    #: The statuses of errors that are not common to all actions.
    errors: tuple[int, ...] = ()
    #: Return True if the path may name the job, and the body may have its options. The schema has a path for each.
    starts: Callable[[CloudRunJobs], bool] | None = None
    #: Whether HEAD is answered like GET, for uptime checks.
    answers_head: bool = False
    #: Whether a caller without a credential may call it as `ANYBODY`.
    is_open: Callable[[Credentials], bool] = lambda configured: False


@dataclass(frozen=True, slots=True)
class Route:
    """A URL: its path, its name, its actions by method, and the parameters of its path with their descriptions."""

    path: str
    name: str
    actions: Mapping[str, Action]
    parameters: Mapping[str, str] = field(default_factory=dict)
    #: Return the methods of one URL, given its parameters, if its actions are not of the same URLs.
    methods: Callable[..., Iterable[str]] | None = None


def view_of(load: Callable[[], Route]) -> Callable[..., HttpResponseBase]:
    """Return the view of a URL, whose route is loaded by its requests."""

    def view(request: HttpRequest, **names: str) -> HttpResponseBase:
        from cloudrun_jobs.http.endpoint import respond

        return respond(load(), request, names)

    # In the transaction of ATOMIC_REQUESTS an action would not see what other processes commit, and a failed run
    # would undo its own record.
    for alias in connections:
        transaction.non_atomic_requests(using=alias)(view)
    # CSRF is checked where a session is the credential, and nowhere else.
    return csrf_exempt(view)
