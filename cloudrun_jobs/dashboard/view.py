"""Wrap the views of the pages: permissions, methods, CSRF and transactions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import update_wrapper
from typing import TYPE_CHECKING, Any

from django.core.exceptions import PermissionDenied
from django.db import connections, transaction
from django.http import HttpResponseNotAllowed
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect

from cloudrun_jobs import conf

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponseBase

    from cloudrun_jobs.dashboard.site import Site
    from cloudrun_jobs.http.authentication import Caller

#: Called with the site, the request, the user and the parameters of the URL.
Handler = Callable[..., "HttpResponseBase"]


@dataclass(frozen=True, slots=True)
class View:
    """A view of the pages: its path below the pages of jobs or of runs, and the scope that its users need."""

    name: str
    path: str
    handler: Handler
    scope: str
    methods: tuple[str, ...] = ("GET",)


def bind(site: Site, view: View) -> Callable[..., HttpResponseBase]:
    """Return the view on that site, as a view of Django."""

    def respond(request: HttpRequest, **parameters: Any) -> HttpResponseBase:
        # A HEAD is a GET whose content the server drops.
        if ("GET" if request.method == "HEAD" else request.method) not in view.methods:
            return HttpResponseNotAllowed(view.methods)
        with conf.reading_once():
            return view.handler(site, request, _caller(site, request, view.scope), **parameters)

    wrapped = update_wrapper(never_cache(csrf_protect(respond)), view.handler)
    # In the transaction of ATOMIC_REQUESTS an action would not see the commits of other processes, and a failed
    # run would roll back its own record.
    for alias in connections:
        transaction.non_atomic_requests(using=alias)(wrapped)
    return wrapped


def _caller(site: Site, request: HttpRequest, scope: str) -> Caller:
    caller = site.caller(request)
    if caller is None or scope not in caller.scopes:
        raise PermissionDenied
    return caller
