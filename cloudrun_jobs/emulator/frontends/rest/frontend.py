"""The REST frontend: the same calls as gRPC, mapped by the clients' own HTTP rules."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import unquote

from cloudrun_jobs.emulator.errors import ServiceError, not_served
from cloudrun_jobs.emulator.frontends.rest import messages
from cloudrun_jobs.emulator.service import Caller, Method, Service
from cloudrun_jobs.emulator.web import Request, Response, failure

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_CUSTOM_VERB = "(?!.*:[A-Za-z]{1,60}$)"  # A digest is longer.
VARIABLE = re.compile(r"\{([a-z_.]+)=([^}]+)\}")


@dataclass(frozen=True, slots=True)
class Rule:
    """One compiled HTTP rule."""

    verb: str
    pattern: re.Pattern[str]
    variables: tuple[str, ...]
    body: str
    host: str
    method: Method


class RestFrontend:
    def __init__(self, service: Service) -> None:
        self._service = service

    @cached_property
    def _rules(self) -> list[Rule]:
        """All rules, compiled by the first request: that takes a tenth of a second."""
        rules = [rule for method in self._service.methods.values() for rule in _rules(method)]
        return sorted(rules, key=lambda rule: not rule.host)

    def respond(self, request: Request, caller: Caller) -> Response:
        try:
            rule, values = self._find(request)
            path = dict(zip(rule.variables, values, strict=True))
            message = messages.read(rule.method.request, request, rule.body, path)
            return messages.respond(self._service.call(rule.method.key, message, caller), request)
        except ServiceError as error:
            return failure(error)

    def _find(self, request: Request) -> tuple[Rule, list[str]]:
        for rule in self._rules:
            match = rule.pattern.fullmatch(request.raw_path)
            if match is not None and rule.verb == request.method and _serves(rule, request.host):
                return rule, [unquote(value) for value in match.groups()]
        raise not_served(request.method, request.raw_path)


def _rules(method: Method) -> Iterator[Rule]:
    for route in method.routes:
        pattern, variables, rest = "", [], route.uri
        while match := VARIABLE.search(rest):
            pattern += re.escape(rest[: match.start()]) + "(" + match[2].replace("*", "[^/]+") + ")"
            variables.append(match[1])
            rest = rest[match.end() :]
        pattern += re.escape(rest)
        # A path with a custom verb, such as ":run", is that of another method.
        compiled = re.compile(pattern if ":" in rest else NO_CUSTOM_VERB + pattern)
        yield Rule(route.verb.upper(), compiled, tuple(variables), route.body, route.host, method)


def _serves(rule: Rule, host: str) -> bool:
    return not rule.host or host == rule.host or host.endswith(f"-{rule.host}")
