"""URLs of a web server that a test starts, whose callers may set options of two jobs."""

from __future__ import annotations

from tests.http_api.urls import urlpatterns
from tests.jobs.management.commands import echo, everything, imports, in_request, nightly, outcome, walk, workers

__all__ = ["urlpatterns"]

echo.Command.http_options = ("partner", "note", "words")
flags = ("dry_run", "wet", "mode", "mail")
everything.Command.http_options = ("source", "words", "day", "size", "tag", "shop", *flags)
echo.Command.target = "service"

for module in (imports, in_request, nightly, outcome, walk, workers):  # They start processes, print, or wait.
    module.Command.is_enabled = False
