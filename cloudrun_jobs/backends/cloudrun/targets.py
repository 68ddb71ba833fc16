"""What an entry of Cloud Scheduler holds that starts a job. Google's client is not imported here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudrun_jobs.environ import SCHEDULE_VARIABLE

# Under the service's URL, for commands whose `target` is "service".
SERVICE_PATH = "/cloudrun_jobs/run/"


@dataclass(frozen=True, slots=True)
class AuthToken:
    """What a delivery is signed with: OIDC for an `audience` of ours, OAuth, without one, for Google's APIs."""

    service_account: str
    audience: str = ""

    def __str__(self) -> str:
        return f"OIDC of {self.service_account}" if self.audience else f"OAuth of {self.service_account}"


def job_url(project: str, region: str, job: str) -> str:
    return f"https://run.googleapis.com/v2/projects/{project}/locations/{region}/jobs/{job}:run"


def service_url(url: str, command: str) -> str:
    return f"{url.rstrip('/')}{SERVICE_PATH}{command}/"


def job_body(args: Sequence[str], told: Mapping[str, str]) -> dict[str, Any]:
    """Return the body of `jobs:run`: the arguments, and variables that tell the container why it runs."""
    env = [{"name": name, "value": value} for name, value in told.items()]
    return {"overrides": {"containerOverrides": [{"args": list(args), "env": env}]}}


def service_body(args: Sequence[str], tick: str) -> dict[str, Any]:
    return {"args": list(args), "schedule": tick}


def tick_body(args: Sequence[str], tick: str, *, to_service: bool) -> dict[str, Any]:
    """Return the body of a schedule's Scheduler job; `tick` is an encoded `ScheduleTick`."""
    return service_body(args, tick) if to_service else job_body(args, {SCHEDULE_VARIABLE: tick})


def encode_body(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


def decode_body(body: bytes) -> dict[str, Any]:
    """Return what a schedule's body says, as fields; of any other body, its text for the arguments."""
    text = body.decode(errors="replace")
    try:
        data = json.loads(text)
        to_service = "overrides" not in data
        args, tick = (data["args"], data["schedule"]) if to_service else _read_job_body(data)
        ours = tick_body(args, tick, to_service=to_service) == data
    except (ValueError, KeyError, TypeError, IndexError):
        ours = False
    if not ours:
        return {"args": text, "tick": "", "to_service": None}
    return {"args": tuple(args), "tick": tick, "to_service": to_service}


def _read_job_body(data: dict[str, Any]) -> tuple[list[str], str]:
    override = data["overrides"]["containerOverrides"][0]
    return override["args"], override["env"][0]["value"]
