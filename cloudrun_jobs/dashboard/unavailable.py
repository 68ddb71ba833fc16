"""Show a page that says why another one cannot be shown: no database, no tables, invalid settings."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.db import Error
from django.utils.translation import gettext as _

from cloudrun_jobs.dashboard.site import Page, Site
from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.runs.database import migrate_hint, with_migration_hint

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponseBase

    from cloudrun_jobs.http.authentication import Caller

    Handler = Callable[..., HttpResponseBase]


def explain_errors(handler: Handler) -> Handler:
    """Return the handler, with a page in place of an error of the database or of the settings."""

    @wraps(handler)
    def respond(site: Site, request: HttpRequest, caller: Caller, **parameters: Any) -> HttpResponseBase:
        try:
            return with_migration_hint(lambda: handler(site, request, caller, **parameters))
        except CloudRunJobsError as error:
            reason = str(error)
        except Error as error:
            # Such as of a column: the tables may be those of an earlier release.
            reason = f"{error} {migrate_hint()}"
        page = Page(
            template="unavailable.html",
            title=_("This page is not available"),
            context={"reason": reason},
            status=HTTPStatus.SERVICE_UNAVAILABLE,
        )
        return site.render(request, page)

    return respond
