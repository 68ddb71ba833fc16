"""A task that calls Google in many ways, and prints how each attempt ends and which names were looked up."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google.auth
import google.auth.compute_engine
import requests
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import Request
from google.cloud import run_v2, scheduler_v1, secretmanager_v1

PLACE = "projects/acme/locations/europe-west4"
JOB = f"{PLACE}/jobs/work"
SECRET = "projects/acme/secrets/token"
ANONYMOUS = AnonymousCredentials()
looked_up: set[bytes | str | None] = set()
resolve = socket.getaddrinfo


def record(host: bytes | str | None, *args: Any, **options: Any) -> list[Any]:
    looked_up.add(host)
    return resolve(host, *args, **options)


async def run_job_async() -> None:
    await run_v2.JobsAsyncClient(credentials=ANONYMOUS).run_job(name=JOB)


PROBES: dict[str, Callable[[], object]] = {
    "default": google.auth.default,
    "jobs client": lambda: run_v2.JobsClient().run_job(name=JOB),
    "scheduler client": lambda: scheduler_v1.CloudSchedulerClient().delete_job(name=JOB),
    "secrets client": lambda: secretmanager_v1.SecretManagerServiceClient().get_secret(name=SECRET),
    "anonymous secrets": lambda: secretmanager_v1.SecretManagerServiceClient(credentials=ANONYMOUS).get_secret(
        name=SECRET
    ),
    "anonymous grpc": lambda: run_v2.JobsClient(credentials=ANONYMOUS).run_job(name=JOB),
    "anonymous async": lambda: asyncio.run(run_job_async()),
    "anonymous rest": lambda: run_v2.JobsClient(credentials=ANONYMOUS, transport="rest").run_job(name=JOB),
    "metadata credentials": lambda: google.auth.compute_engine.Credentials().refresh(Request()),
    "metadata by name": lambda: urllib.request.urlopen(
        "http://metadata.google.internal/computeMetadata/v1/"
    ).read(),
    "metadata by address": lambda: requests.get("http://169.254.169.254/computeMetadata/v1/").raise_for_status(),
    "token": lambda: requests.post("https://oauth2.googleapis.com/token"),
    "https": lambda: requests.get(f"https://run.googleapis.com/v2/{JOB}"),
    "regional https": lambda: urllib.request.urlopen("https://europe-west4-run.googleapis.com/").read(),
    "another host": lambda: requests.get("https://api.example.com/"),
    "another host in clear": lambda: requests.get("http://api.example.com/").raise_for_status(),
}


def attempt(probe: Callable[[], object]) -> dict[str, object]:
    started = time.monotonic()
    try:
        result = probe()
    except Exception as error:  # noqa: BLE001 - the error is the result
        return {"error": f"{type(error).__name__}: {error}", "seconds": time.monotonic() - started}
    return {"result": repr(result)}


if __name__ == "__main__":
    socket.getaddrinfo = record
    outcomes = {name: attempt(probe) for name, probe in PROBES.items()}
    report = {"outcomes": outcomes, "names": sorted(map(str, looked_up)), "env": dict(os.environ)}
    Path(os.environ["REPORT"]).write_text(json.dumps(report))
