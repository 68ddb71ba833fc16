"""Route HTTP requests to the frontend that serves their path."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from werkzeug.exceptions import HTTPException, NotFound

from cloudrun_jobs.emulator.errors import ServiceError
from cloudrun_jobs.emulator.events import CallFailed, Events
from cloudrun_jobs.emulator.service import ANONYMOUS, Caller
from cloudrun_jobs.emulator.web import Request, Response, failure, http_failure

if TYPE_CHECKING:
    from werkzeug.routing import Map

    from cloudrun_jobs.emulator.frontends.rest.frontend import RestFrontend
    from cloudrun_jobs.emulator.tokens import Tokens

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Application:
    rest: RestFrontend
    tokens: Tokens
    events: Events
    # The endpoints are functions of a request, its caller, and the variables of the rule.
    routes: Map

    def respond(self, request: Request) -> Response:
        response = self._handle(request)
        if response.error is not None:
            call, error = f"{request.method} {request.path}", response.error
            self.events.announce(CallFailed(call, error.code, error.message))
        return response

    def _handle(self, request: Request) -> Response:
        try:
            return self._respond(request)
        except HTTPException as error:
            return http_failure(error.code or 500, f"{error.description}")
        except Exception:
            # A bug of the emulator: without a response, clients would try again.
            logger.exception("The emulator failed to handle %s %s.", request.method, request.url)
            return failure(ServiceError("INTERNAL", "Internal error encountered. The emulator's stderr shows it."))

    def _respond(self, request: Request) -> Response:
        caller = Caller(self.tokens.principal(request.headers.get("Authorization", "")) or ANONYMOUS)
        try:
            handler, variables = self.routes.bind("").match(request.path, request.method)
        except NotFound:
            return self.rest.respond(request, caller)
        response: Response = handler(request, caller, **variables)
        return response

    def deliver(self, request: Request) -> Response:
        """Handle a delivery from Cloud Scheduler or Cloud Tasks; like any Google API, require an OAuth token."""
        if self.tokens.principal(request.headers.get("Authorization", "")) is None:
            error = ServiceError("UNAUTHENTICATED", "Request is missing required authentication credential.")
            return failure(error)
        return self.respond(request)
