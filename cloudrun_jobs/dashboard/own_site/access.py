"""Check who may open the dashboard, and show a page to users who may not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from django.http import HttpResponseBase, HttpResponseRedirect
from django.utils.cache import add_never_cache_headers

from cloudrun_jobs import conf
from cloudrun_jobs.dashboard.own_site import problems
from cloudrun_jobs.dashboard.own_site.sign_in import sign_in_url
from cloudrun_jobs.dashboard.own_site.site import OwnSite
from cloudrun_jobs.dashboard.site import is_live
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
    return _guarded(request, name, partial(view, request, **parameters))


def redirect_or_missing(request: HttpRequest, path: str) -> HttpResponseBase:
    """Redirect from `dashboard/` to the jobs, and to the URL that ends with a slash. Nothing else is there."""

    def view() -> HttpResponseBase:
        if not path:
            return HttpResponseRedirect(OwnSite().url("jobs"))
        if request.method == "GET" and not path.endswith("/"):
            return HttpResponseRedirect(request.get_full_path(force_append_slash=True))
        return problems.NOT_FOUND.response(OwnSite(), request)

    return _guarded(request, "jobs", view)


def _guarded(request: HttpRequest, name: str, view: Callable[[], HttpResponseBase]) -> HttpResponseBase:
    """Return the response of the view, unless the request may not reach the one of that name."""
    try:
        with conf.reading_once():
            configured = credentials.load()
            if not configured.session:
                return _closed()
            response = _refusal(request, name, configured.rate) or view()
    except problems.ERRORS as error:
        response = problems.problem_of(error, VIEWS[name].scope).response(OwnSite(), request, error)
    add_never_cache_headers(response)
    # No other site may lay its page over the buttons, whatever the project's middleware.
    response["X-Frame-Options"] = "DENY"
    return response


def _closed() -> HttpResponseBase:
    """Return the response of the HTTP API without a credential."""
    response = not_found().response()
    response["Cache-Control"] = "no-store"
    return response


def _refusal(request: HttpRequest, name: str, rate: credentials.Rate | None) -> HttpResponseBase | None:
    """Return the response to a request that is forged, or whose user may not open the page; None for any other."""
    user, scope = getattr(request, "user", None), VIEWS[name].scope
    if user is None:
        return problems.NO_USERS.response(OwnSite(), request)
    if not user.is_authenticated:
        has_page = "GET" in VIEWS[name].methods
        url = sign_in_url(request, request.get_full_path() if has_page else OwnSite().url("jobs"))
        return HttpResponseRedirect(url) if url else problems.NO_SIGN_IN.response(OwnSite(), request)
    caller = staff_caller(user)
    may_read = caller is not None and "read" in caller.scopes
    if caller is None or not {"read", scope} <= caller.scopes:
        return problems.refused(scope if may_read else "read").response(OwnSite(), request)
    # Apart from the requests of the user: a page that is open must not refuse them an action.
    check_rate(caller.name, rate, counter="live" if is_live(request, name) else "")
    return problems.FORGED.response(OwnSite(), request) if csrf_failure(request) else None
