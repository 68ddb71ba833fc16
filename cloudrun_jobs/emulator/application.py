"""Route HTTP requests to the frontend that serves their path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloudrun_jobs.emulator.errors import ServiceError
from cloudrun_jobs.emulator.service import ANONYMOUS, Caller
from cloudrun_jobs.emulator.web import Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudrun_jobs.emulator.frontends.rest.frontend import RestFrontend
    from cloudrun_jobs.emulator.tokens import Tokens


@dataclass(slots=True)
class Application:
    rest: RestFrontend
    tokens: Tokens
    # By path. A path that ends with a slash, except "/" itself, matches every path below it.
    handlers: dict[str, Callable[[Request, Caller], Response]]

    def respond(self, request: Request) -> Response:
        caller = Caller(self.tokens.principal(request.headers.get("authorization", "")) or ANONYMOUS)
        for path, handler in self.handlers.items():
            is_prefix = path != "/" and path.endswith("/") and request.path.startswith(path)
            if is_prefix or request.path == path:
                return handler(request, caller)
        return self.rest.respond(request, caller)

    def deliver(self, request: Request) -> Response:
        """Handle a delivery from Cloud Scheduler; like any Google API, require an OAuth token."""
        if self.tokens.principal(request.headers.get("authorization", "")) is None:
            error = ServiceError("UNAUTHENTICATED", "Request is missing required authentication credential.")
            return Response(error.http_status, error.body())
        return self.respond(request)
