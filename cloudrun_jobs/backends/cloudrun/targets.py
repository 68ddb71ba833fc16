"""The HTTP requests with which Cloud Scheduler and Cloud Tasks start jobs, without Google's clients."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudrun_jobs.environ import SCHEDULE_VARIABLE
from cloudrun_jobs.spec.overrides import NO_OVERRIDES, Overrides

SERVICE_PATH = "/cloudrun_jobs/run/"  # Of the web service, for commands whose `target` is "service".
HEALTH_PATH = "/cloudrun_jobs/health/"  # Of the web service.
CONTENT_TYPE = "application/json"


@dataclass(frozen=True, slots=True)
class AuthToken:
    """The token of a request: OIDC for the web service, which is its `audience`, or OAuth for Google's APIs."""

    service_account: str
    audience: str = ""
    scope: str = ""  # Of OAuth, if it is not cloud-platform.

    def __str__(self) -> str:
        if self.audience:
            return f"OIDC of {self.service_account} for {self.audience}"
        return f"OAuth of {self.service_account}{self.scope and f' with the scope {self.scope}'}"


def job_url(project: str, region: str, job: str) -> str:
    return f"https://run.googleapis.com/v2/projects/{project}/locations/{region}/jobs/{job}:run"


def service_url(url: str, command: str) -> str:
    return f"{url.rstrip('/')}{SERVICE_PATH}{command}/"


def job_body(args: Sequence[str], env: Mapping[str, str], overrides: Overrides = NO_OVERRIDES) -> dict[str, Any]:
    """Return the body of `jobs:run`, with arguments, environment variables, and what else is overridden."""
    variables = [{"name": name, "value": value} for name, value in env.items()]
    body: dict[str, Any] = {"containerOverrides": [{"args": list(args), "env": variables}]}
    if overrides.tasks is not None:
        body["taskCount"] = overrides.tasks
    if overrides.timeout is not None:
        body["timeout"] = f"{overrides.timeout.total_seconds():.0f}s"
    return {"overrides": body}


def tick_body(args: Sequence[str], tick: str, *, to_service: bool) -> dict[str, Any]:
    """Return the body that a Scheduler job sends; `tick` is an encoded `ScheduleTick`."""
    if to_service:
        return {"args": list(args), "schedule": tick}
    return job_body(args, {SCHEDULE_VARIABLE: tick})


def encode_body(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


def decode_body(body: bytes) -> dict[str, Any]:
    """Return the parts of a `tick_body()`; of any other body, its text as `args`."""
    text = body.decode(errors="replace")
    try:
        data = json.loads(text)
        to_service = "overrides" not in data
        args, tick = (data["args"], data["schedule"]) if to_service else _read_job_body(data)
        is_tick_body = tick_body(args, tick, to_service=to_service) == data
    except (ValueError, KeyError, TypeError, IndexError):
        is_tick_body = False
    if not is_tick_body:
        return {"args": text, "tick": "", "to_service": None}
    return {"args": tuple(args), "tick": tick, "to_service": to_service}


def _read_job_body(data: dict[str, Any]) -> tuple[list[str], str]:
    override = data["overrides"]["containerOverrides"][0]
    return override["args"], override["env"][0]["value"]
