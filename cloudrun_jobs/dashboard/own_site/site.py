"""The dashboard: the pages on their own, below `dashboard/` of `cloudrun_jobs.urls`."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.http import HttpResponse
from django.template import TemplateDoesNotExist
from django.template.backends.django import DjangoTemplates
from django.template.loader import get_template
from django.urls import reverse
from django.utils.translation import gettext_lazy

from cloudrun_jobs.dashboard.own_site.notices import add_notice, take_notices
from cloudrun_jobs.dashboard.own_site.sign_in import sign_out_url
from cloudrun_jobs.dashboard.site import Level, Page, Site
from cloudrun_jobs.http.authentication import Caller, staff_caller

if TYPE_CHECKING:
    from django.http import HttpRequest

TEMPLATE = "cloudrun_jobs/dashboard/page.html"
SECTIONS = {"jobs": gettext_lazy("Jobs"), "runs": gettext_lazy("Runs")}


class OwnSite(Site):
    """The dashboard, which needs no admin, no `django.contrib.messages` and no context processors."""

    def url(self, name: str, *arguments: str | UUID) -> str:
        return reverse(f"cloudrun_jobs:dashboard_{name}", args=arguments)

    def caller(self, request: HttpRequest) -> Caller | None:
        return staff_caller(getattr(request, "user", None))

    def render(self, request: HttpRequest, page: Page) -> HttpResponse:
        # Without a user, the frame needs neither session nor database, which may be the fault.
        is_fault = page.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        user: Any = None if is_fault else getattr(request, "user", None)
        is_signed_in = user is not None and user.is_authenticated
        caller = staff_caller(user)
        may_read = caller is not None and "read" in caller.scopes
        urls = [(self.url(name), title) for name, title in SECTIONS.items()] if may_read else []
        context = {
            **page.context,
            "page": page,
            "site": self,
            "request": request,
            "sections": [(url, title, request.path.startswith(url)) for url, title in urls],
            "user_name": user.get_username() if is_signed_in else "",
            "sign_out_url": sign_out_url() if is_signed_in else None,
            "notices": take_notices(request) if may_read else [],
        }
        return HttpResponse(_template().render(context, request), status=page.status)

    def notify(self, request: HttpRequest, level: Level, message: str) -> None:
        add_notice(request, level, message)


def _template() -> Any:
    try:
        return get_template(TEMPLATE)
    except TemplateDoesNotExist:  # A project without templates, or with those of another engine.
        options: dict[str, Any] = {"NAME": "cloudrun_jobs", "DIRS": [], "APP_DIRS": True, "OPTIONS": {}}
        return DjangoTemplates(options).get_template(TEMPLATE)
