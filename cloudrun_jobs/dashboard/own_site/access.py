"""Open the dashboard to members of staff who are signed in, and show others why it is closed to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from django.http import HttpResponseBase, HttpResponseNotAllowed, HttpResponseRedirect
from django.utils.cache import add_never_cache_headers

from cloudrun_jobs import conf
from cloudrun_jobs.dashboard.own_site import problems
from cloudrun_jobs.dashboard.own_site.sign_in import sign_in_url
from cloudrun_jobs.dashboard.own_site.site import OwnSite
from cloudrun_jobs.dashboard.site import LIVE_HEADER
from cloudrun_jobs.dashboard.views import VIEWS
from cloudrun_jobs.http import credentials
from cloudrun_jobs.http.authentication import csrf_failure, staff_caller
from cloudrun_jobs.http.errors import not_found
from cloudrun_jobs.http.rate import check_rate

if TYPE_CHECKING:
    from django.http import HttpRequest


def respond(
    name: str, view: Callable[..., HttpResponseBase], request: HttpRequest, parameters: Mapping[str, Any]
) -> HttpResponseBase:
    """Return the response of the view of that name to a user who may open it."""
    methods = VIEWS[name].methods
    return _guarded(request, VIEWS[name].scope, partial(view, request, **parameters), has_page="GET" in methods)


def redirect_or_missing(request: HttpRequest, path: str) -> HttpResponseBase:
    """Redirect from `dashboard/` to the jobs, and to the URL that ends with a slash. Nothing else is there."""

    def view() -> HttpResponseBase:
        if not path:
            return HttpResponseRedirect(OwnSite().url("jobs"))
        if request.method == "GET" and not path.endswith("/"):
            return HttpResponseRedirect(request.get_full_path(force_append_slash=True))
        return problems.NOT_FOUND.response(request)

    return _guarded(request, "read", view, has_page=True)


def _guarded(
    request: HttpRequest, scope: str, view: Callable[[], HttpResponseBase], *, has_page: bool
) -> HttpResponseBase:
    """Return the response of the view, unless the request may not reach it."""
    try:
        with conf.reading_once():
            configured = credentials.load()
            if not configured.session:
                return _closed()
            response = _refusal(request, scope, configured.rate, has_page=has_page) or view()
    except problems.ERRORS as error:
        response = problems.problem_of(error, scope).response(request, error)
    if isinstance(response, HttpResponseNotAllowed):
        allowed = {"Allow": response["Allow"]}
        response = problems.METHOD_NOT_ALLOWED.with_headers(allowed).response(request)
    add_never_cache_headers(response)
    # No other site may lay its page over the buttons, whatever the project's middleware.
    response["X-Frame-Options"] = "DENY"
    return response


def _closed() -> HttpResponseBase:
    """Return the response of the HTTP API without a credential."""
    response = not_found().response()
    response["Cache-Control"] = "no-store"
    return response


def _refusal(
    request: HttpRequest, scope: str, rate: credentials.Rate | None, *, has_page: bool
) -> HttpResponseBase | None:
    """Return the response to a request that is forged, or whose user may not open the page; None for any other."""
    user = getattr(request, "user", None)
    if user is None:
        return problems.NO_USERS.response(request)
    if not user.is_authenticated:
        url = sign_in_url(request, request.get_full_path() if has_page else OwnSite().url("jobs"))
        return HttpResponseRedirect(url) if url else problems.NO_SIGN_IN.response(request)
    caller = staff_caller(user)
    may_read = caller is not None and "read" in caller.scopes
    if caller is None or not {"read", scope} <= caller.scopes:
        return problems.refused(scope if may_read else "read").response(request)
    # A page that is open and read again does not use up the requests that its buttons need.
    is_live = request.method == "GET" and LIVE_HEADER in request.headers
    check_rate(f"live: {caller.name}" if is_live else caller.name, rate)
    return problems.FORGED.response(request) if csrf_failure(request) else None
