"""The URLs of the HTTP API and of the dashboard: `path("cloudrun_jobs/", include("cloudrun_jobs.urls"))`.

Each start of a job imports this module. The first request imports the handlers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from django.http import HttpResponseBase
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from cloudrun_jobs.dashboard.paths import JOB_PATHS, RUN_PATHS
from cloudrun_jobs.dashboard.view import view_of as page_view_of
from cloudrun_jobs.http.paths import PATHS
from cloudrun_jobs.http.route import Route, view_of

if TYPE_CHECKING:
    from django.http import HttpRequest

    from cloudrun_jobs.dashboard.site import Site


def _load(name: str) -> Route:
    from cloudrun_jobs.http.routes import ROUTES  # Imports the request handlers.

    return ROUTES[name]


def _missing() -> Route:
    return Route("<path:path>", "missing", {})


def _load_site() -> Site:
    from cloudrun_jobs.dashboard.own_site.site import OwnSite

    return OwnSite()


def _dashboard_view(name: str) -> Callable[..., HttpResponseBase]:
    page_view = page_view_of(name, _load_site)

    @wraps(page_view)
    def view(request: HttpRequest, **parameters: Any) -> HttpResponseBase:
        from cloudrun_jobs.dashboard.own_site.access import respond

        return respond(name, page_view, request, parameters)

    return csrf_exempt(view)  # `respond()` checks the token, in every project, and shows a failure as a page.


def _dashboard_redirect(request: HttpRequest, path: str = "") -> HttpResponseBase:
    from cloudrun_jobs.dashboard.own_site.access import redirect_or_missing

    return redirect_or_missing(request, path)


app_name = "cloudrun_jobs"
urlpatterns = [
    *(path(pattern, view_of(partial(_load, name)), name=name) for name, pattern in PATHS.items()),
    path("dashboard/", csrf_exempt(_dashboard_redirect), name="dashboard"),
    *(
        path(f"dashboard/{below}/{pattern}", _dashboard_view(name), name=f"dashboard_{name}")
        for below, paths in (("jobs", JOB_PATHS), ("runs", RUN_PATHS))
        for name, pattern in paths.items()
    ),
    path("dashboard", csrf_exempt(_dashboard_redirect)),
    path("dashboard/<path:path>", csrf_exempt(_dashboard_redirect)),
    path("<path:path>", view_of(_missing)),
]
"""The HTTP API: runs, and starting them; and the dashboard, for sessions. Closed until `CLOUDRUN_JOBS["HTTP"]`
configures a credential."""
