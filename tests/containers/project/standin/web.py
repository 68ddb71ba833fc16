"""The stand-in's pages and its WSGI application."""

from __future__ import annotations

import os
from pathlib import Path

from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "standin.settings")


def about(request: HttpRequest) -> JsonResponse:
    """Return the scheme and the host of the request."""
    return JsonResponse({"scheme": request.scheme, "host": request.get_host()})


def held(request: HttpRequest) -> HttpResponse:
    """Respond with the text that is written into the named pipe."""
    return HttpResponse(Path(request.GET["pipe"]).read_text())


urlpatterns = [path("", about), path("held/", held)]

application = get_wsgi_application()
