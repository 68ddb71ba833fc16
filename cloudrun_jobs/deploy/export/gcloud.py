"""Write the jobs and schedules as a shell script of gcloud commands."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

from cloudrun_jobs.deploy.desired import DesiredJob, DesiredSchedulerJob
from cloudrun_jobs.deploy.export import knative
from cloudrun_jobs.deploy.export.declarations import Declarations, retry_config, seconds

# `gcloud run jobs deploy` has no option for annotations, one of which is the ownership label.
JOB = """\
gcloud run jobs replace - --project={project} <<'END_OF_JOB'
{document}
END_OF_JOB
"""
SCHEDULE = """\
# Create or update a Scheduler job: NAME, then the options that both commands accept.
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
# The options that are not named like the fields of Cloud Scheduler.
OPTIONS = {
    "retry_count": "max-retry-attempts",
    "min_backoff_duration": "min-backoff",
    "max_backoff_duration": "max-backoff",
}


def text(declarations: Declarations) -> str:
    parts = ["#!/bin/sh\nset -eu\n"]
    parts += (_job(job, declarations) for job in declarations.jobs)
    if declarations.schedules:
        project, region = shlex.quote(declarations.project), shlex.quote(declarations.scheduler_region)
        parts.append(SCHEDULE.format(project=project, region=region))
        parts += (_schedule(schedule) for schedule in declarations.schedules)
    return "\n".join(parts)


def _job(job: DesiredJob, declarations: Declarations) -> str:
    # JSON is YAML, and none of its lines can be the one that ends the here-document.
    document = json.dumps(knative.job(job, declarations.region), indent=2)
    return JOB.format(project=shlex.quote(declarations.project), document=document)


def _schedule(schedule: DesiredSchedulerJob) -> str:
    options = [f"--{name}={value}" for name, value in _options(schedule)]
    return " \\\n  ".join(("schedule " + shlex.quote(schedule.id), *map(shlex.quote, options))) + "\n"


def _options(schedule: DesiredSchedulerJob) -> Iterator[tuple[str, object]]:
    yield "schedule", schedule.schedule
    yield "time-zone", schedule.time_zone
    yield "uri", schedule.url
    yield "http-method", schedule.method
    yield "message-body", schedule.body.decode()
    yield "description", schedule.ownership
    kind = "oidc" if schedule.token.audience else "oauth"
    yield f"{kind}-service-account-email", schedule.token.service_account
    if schedule.token.audience:
        yield "oidc-token-audience", schedule.token.audience
    if schedule.attempt_deadline:
        yield "attempt-deadline", seconds(schedule.attempt_deadline)
    for name, value in retry_config(schedule).items():
        yield OPTIONS.get(name, name.replace("_", "-")), value
