"""Write the jobs, schedules and alert policies as a shell script of gcloud commands."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

from cloudrun_jobs.backends.cloudrun.targets import HEALTH_PATH
from cloudrun_jobs.deploy.desired import DesiredJob, DesiredSchedulerJob
from cloudrun_jobs.deploy.export import alerts, knative
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


ALERT = """\
# The notification channels of the alerts, separated by commas.
channels=${{NOTIFICATION_CHANNELS-{channels}}}
if [ -z "$channels" ]; then
  echo 'Without NOTIFICATION_CHANNELS, new alerts appear only in Cloud Monitoring.' >&2
fi

policies=$(gcloud alpha monitoring policies list --project={project} --verbosity=error \\
  --filter=userLabels.cloudrun_jobs_region={region} --format='value[separator="|"](
    userLabels.cloudrun_jobs_alert,userLabels.cloudrun_jobs_resource,
    name,enabled,userLabels.cloudrun_jobs_checksum,notificationChannels.join(","))')

# Create or update an alert policy: KIND, RESOURCE; the policy is read from stdin.
# A disabled policy stays disabled. A policy keeps its channels unless others are given.
alert() {{
  policy=$(cat)
  checksum=$(printf %s "$policy" | cksum | cut -d ' ' -f 1)
  labels=cloudrun_jobs_alert=$1,cloudrun_jobs_resource=$2,cloudrun_jobs_region={region}
  labels=$labels,cloudrun_jobs_checksum=$checksum
  IFS='|' read -r _ _ name enabled written existing <<END_OF_FOUND
$(printf '%s\n' "$policies" | grep "^$1|$2|" | head -n 1)
END_OF_FOUND
  new_channels=${{channels:-$existing}}
  if [ -z "$name" ]; then
    printf %s "$policy" | gcloud alpha monitoring policies create --project={project} --policy-from-file=- \\
      --user-labels="$labels" ${{channels:+"--notification-channels=$channels"}}
  elif [ "$written" != "$checksum" ] || [ "$new_channels" != "$existing" ]; then
    flag=--enabled
    if [ "$enabled" = False ]; then flag=--no-enabled; fi
    printf %s "$policy" | gcloud alpha monitoring policies update "$name" --policy-from-file=- "$flag" \\
      --update-user-labels="$labels" ${{new_channels:+"--set-notification-channels=$new_channels"}}
  fi
}}
"""
POLICY = """\
alert {kind} {resource} <<'END_OF_POLICY'
{document}
END_OF_POLICY
"""
# The id of the uptime check is known only once it exists.
HEALTH = """\
check=$(gcloud monitoring uptime list-configs --project={project} --verbosity=error \\
  --filter={filter} \\
  --limit=1 --format='value(name.basename())')
if [ -z "$check" ]; then
  check=$(gcloud monitoring uptime create {name} --project={project} --format='value(name.basename())' \\
    {options})
fi
sed "s/CHECK_ID/$check/" <<'END_OF_POLICY' | alert {kind} {resource}
{document}
END_OF_POLICY
"""


def text(declarations: Declarations) -> str:
    parts = ["#!/bin/sh\nset -eu\n"]
    parts += (_job(job, declarations) for job in declarations.jobs)
    if declarations.schedules:
        project, region = shlex.quote(declarations.project), shlex.quote(declarations.scheduler_region)
        parts.append(SCHEDULE.format(project=project, region=region))
        parts += (_schedule(schedule) for schedule in declarations.schedules)
    if declarations.alerts:
        parts += _alerts(declarations, declarations.alerts)
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


def _alerts(declarations: Declarations, settings: alerts.Alerts) -> Iterator[str]:
    project, region = shlex.quote(declarations.project), declarations.region
    yield ALERT.format(project=project, region=shlex.quote(region), channels=",".join(settings.channels))
    policies = [alerts.failed_execution(job, region) for job in declarations.jobs]
    # The script does not create Redis, so it may have any name.
    policies += alerts.of_workers(declarations.worker_pools, region, {"resource.labels.region": region})
    for policy in policies:
        yield POLICY.format(**_policy(policy))
    if check := alerts.uptime_check(settings):
        yield HEALTH.format(**_policy(alerts.unhealthy(check, "CHECK_ID")), **_check(check, project))


def _policy(policy: alerts.Policy) -> dict[str, str]:
    return {"kind": policy.kind, "resource": policy.resource, "document": json.dumps(policy.body, indent=2)}


def _check(check: alerts.UptimeCheck, project: str) -> dict[str, str]:
    names = {"monitoredResource.labels.host": check.host, "httpCheck.path": HEALTH_PATH}
    options = [
        "--resource-type=uptime-url",
        f"--resource-labels=host={check.host},project_id={project}",
        "--protocol=https",
        f"--port={check.port}",
        f"--path={HEALTH_PATH}",
        "--validate-ssl=true",
        "--period=5",
        "--timeout=10",
    ]
    return {
        "name": shlex.quote(check.name),
        "project": project,
        "filter": shlex.quote(" AND ".join(f'{name}="{value}"' for name, value in names.items())),
        "options": shlex.join(options),
    }
