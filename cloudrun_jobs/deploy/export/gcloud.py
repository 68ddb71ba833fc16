"""A shell script of gcloud commands."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from cloudrun_jobs.deploy.export import knative, yaml
from cloudrun_jobs.deploy.export.declarations import Declarations
from cloudrun_jobs.deploy.export.delivery import body, delivery
from cloudrun_jobs.deploy.plan import Desired

# `gcloud run jobs deploy` has no option for annotations, of which one is the mark.
JOB = """\
gcloud run jobs replace - --project={project} <<'END_OF_JOB'
{document}END_OF_JOB
"""
SCHEDULE = """\
# Makes an entry of Cloud Scheduler, or changes the one that is there: NAME, then options of both.
schedule() {{
  name=$1
  shift
  set -- "$name" --project={project} --location={region} "$@"
  if gcloud scheduler jobs describe "$name" --project={project} --location={region} >/dev/null 2>&1; then
    gcloud scheduler jobs update http "$@" --update-headers=Content-Type=application/json
  else
    gcloud scheduler jobs create http "$@" --headers=Content-Type=application/json
  fi
}}
"""
FLAGS = {
    "retry_count": "max-retry-attempts",
    "max_retry_duration": "max-retry-duration",
    "min_backoff_duration": "min-backoff",
    "max_backoff_duration": "max-backoff",
    "max_doublings": "max-doublings",
}


def text(declarations: Declarations) -> str:
    parts = ["#!/bin/sh\nset -eu\n"]
    parts += (_job(job, declarations) for job in declarations.jobs)
    if declarations.schedules:
        project, region = shlex.quote(declarations.project), shlex.quote(declarations.scheduler_region)
        parts.append(SCHEDULE.format(project=project, region=region))
        parts += (_schedule(schedule) for schedule in declarations.schedules)
    return "\n".join(parts)


def _job(job: Desired, declarations: Declarations) -> str:
    # No line of the document can be the one that ends it: they all have a colon or a dash.
    document = yaml.written(knative.job(job, declarations.region))
    return JOB.format(project=shlex.quote(declarations.project), document=document)


def _schedule(schedule: Desired) -> str:
    words = [f"--{name}={value}" for name, value in _options(schedule)]
    return " \\\n  ".join(("schedule " + shlex.quote(schedule.id), *map(shlex.quote, words))) + "\n"


def _options(schedule: Desired) -> Iterator[tuple[str, object]]:
    fields, attempt, retries = schedule.fields, *delivery(schedule)
    yield "schedule", fields["schedule"]
    yield "time-zone", fields["time_zone"]
    yield "uri", fields["url"]
    yield "http-method", fields["method"]
    yield "message-body", body(schedule).decode()
    yield "description", schedule.mark
    token = fields["token"]
    kind = "oidc" if token.audience else "oauth"
    yield f"{kind}-service-account-email", token.service_account
    if token.audience:
        yield "oidc-token-audience", token.audience
    if attempt:
        yield "attempt-deadline", attempt
    yield from ((FLAGS[name], value) for name, value in retries.items())
