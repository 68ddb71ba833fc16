"""Wrap the views of the pages: permissions, methods, CSRF and transactions.

Each start of a job in a project with the admin imports this module. The first request imports the pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from django.core.exceptions import PermissionDenied
from django.db import connections, transaction
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect

from cloudrun_jobs import conf

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse, HttpResponseBase

    from cloudrun_jobs.dashboard.site import Site
    from cloudrun_jobs.http.authentication import Caller


@dataclass(frozen=True, slots=True)
class View:
    """What a URL of the pages does, and the scope that its users need."""

    #: Called with the site, the request, the user and the parameters of the URL.
    handler: Callable[..., HttpResponseBase]
    scope: str
    methods: tuple[str, ...] = ("GET",)


def view_of(name: str, load_site: Callable[[], Site]) -> Callable[..., HttpResponseBase]:
    """Return the view of that name on the site, as a view of Django. The first request calls `load_site`."""

    @never_cache
    @csrf_protect
    def respond(request: HttpRequest, **parameters: Any) -> HttpResponseBase:
        from cloudrun_jobs.dashboard.views import VIEWS

        view, site = VIEWS[name], load_site()
        # A HEAD is a GET whose content the server drops.
        if ("GET" if request.method == "HEAD" else request.method) not in view.methods:
            return _not_allowed(site, request, view.methods)
        with conf.reading_once():
            return view.handler(site, request, _caller(site, request, view.scope), **parameters)

    return non_atomic(respond)


def _not_allowed(site: Site, request: HttpRequest, methods: Iterable[str]) -> HttpResponse:
    """Return a page: after a sign-in, the browser opens the address of a form whose session had expired."""
    from cloudrun_jobs.dashboard.errors import METHOD_NOT_ALLOWED

    return replace(METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(methods)}).response(site, request)


def non_atomic(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Return the view, without the transaction of ATOMIC_REQUESTS.

    In it, an action would not see the commits of other processes, and a failed run would roll back its own record.
    """
    for alias in connections:
        transaction.non_atomic_requests(using=alias)(view)
    return view


def _caller(site: Site, request: HttpRequest, scope: str) -> Caller:
    caller = site.caller(request)
    if caller is None or not {"read", scope} <= caller.scopes:
        raise PermissionDenied
    return caller
