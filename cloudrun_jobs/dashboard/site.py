"""Where the pages are shown: in an admin site, or on their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from cloudrun_jobs.http.authentication import Caller
from cloudrun_jobs.models import Job, JobRun

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

    from cloudrun_jobs.models.querysets import JobRunQuerySet


#: The header of a request by live.js, which updates parts of a page: it must not use up the notices for the user.
LIVE_HEADER = "x-cloudrun-jobs-live"


def is_live(request: HttpRequest, name: str) -> bool:
    """Return True if an open page makes this request to the view of that name, and not its user."""
    # An EventSource cannot send the header.
    return request.method == "GET" and (LIVE_HEADER in request.headers or name == "events")


class Level(StrEnum):
    """The level of a notice, and its CSS class in the dashboard."""

    SUCCESS = "success"
    WARNING = "warning"
    ERROR = "error"


class Link(NamedTuple):
    """A link of the trail above a page."""

    text: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page: the template of its content with its context, and what the site shows around it."""

    template: str  #: Below `templates/cloudrun_jobs/pages/`.
    title: str
    context: Mapping[str, Any] = field(default_factory=dict)
    #: The pages above this one, from the first.
    trail: Sequence[Link] = ()
    status: int = 200
    #: What the page shows, if an admin site has a history of it.
    record: JobRun | Job | None = None


class Site(ABC):
    """The URLs of the pages, the template around them, and their users."""

    @abstractmethod
    def url(self, name: str, *arguments: str | UUID) -> str:
        """Return the URL of the view of that name in `dashboard.views.VIEWS`."""

    @abstractmethod
    def caller(self, request: HttpRequest) -> Caller | None:
        """Return the signed-in user with the scopes of their permissions; None if the user may not see the
        pages.
        """

    def runs(self, request: HttpRequest) -> JobRunQuerySet:
        """Return the runs that the pages of jobs may show."""
        return JobRun.objects.all()

    @abstractmethod
    def render(self, request: HttpRequest, page: Page) -> HttpResponse:
        """Return the page in the template of the site."""

    @abstractmethod
    def notify(self, request: HttpRequest, level: Level, message: str) -> None:
        """Show the message on the next page that this user opens."""
