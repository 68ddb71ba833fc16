"""Select the backend that has the jobs and the schedules in the cloud, and link to its console."""

from __future__ import annotations

import re
from urllib.parse import quote

from cloudrun_jobs import backends
from cloudrun_jobs.backends.cloudrun import CloudRunBackend
from cloudrun_jobs.exceptions import InvalidSettings
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.runs import local_output
from cloudrun_jobs.spec import JobSpec

CONSOLE = "https://console.cloud.google.com"
EXECUTION = re.compile("projects/([^/]+)/locations/([^/]+)/jobs/[^/]+/executions/([^/]+)")


def cloudrun_backend_or_none() -> CloudRunBackend | None:
    """Return the first backend that is Cloud Run; None in the environments "local" and "test"."""
    return next((each for each in backends.configured() if isinstance(each, CloudRunBackend)), None)


def console_url(spec: JobSpec) -> str:
    """Return the page of the Cloud Run Job in Google's console; "" if the job runs elsewhere."""
    if (backend := _backend_of(spec)) is None:
        return ""
    settings = backend.settings
    return f"{CONSOLE}/run/jobs/details/{settings.region}/{spec.name}/executions?project={settings.project}"


def logs_url(spec: JobSpec) -> str:
    """Return the page of the logs of the Cloud Run Job in Google's console; "" if the job runs elsewhere."""
    if (backend := _backend_of(spec)) is None:
        return ""
    labels = {"job_name": spec.name, "location": backend.settings.region}
    filters = [f'resource.labels.{name}="{value}"' for name, value in labels.items()]
    query = "\n".join(['resource.type="cloud_run_job"', *filters])
    return f"{CONSOLE}/logs/query;query={quote(query, safe='')}?project={backend.settings.project}"


def execution_url(run: JobRun) -> str:
    """Return the page of the run's execution in Google's console; "" if it has none."""
    name = run.execution_name or _reported_name(run)
    if (parts := EXECUTION.fullmatch(name)) is None:
        return ""
    project, region, execution = (quote(part, safe="") for part in parts.groups())
    return f"{CONSOLE}/run/jobs/executions/details/{region}/{execution}?project={project}"


def _reported_name(run: JobRun) -> str:
    """Return the name of an execution that Cloud Scheduler or an operator started."""
    if run.execution is None or local_output.path_of(run.execution) is not None:
        return ""
    try:
        backend = backends.for_run(run)
    except InvalidSettings:  # The backend is no longer configured.
        return ""
    if not isinstance(backend, CloudRunBackend):
        return ""
    return f"{backend.parent}/jobs/{run.job}/executions/{run.execution}"


def _backend_of(spec: JobSpec) -> CloudRunBackend | None:
    backend = cloudrun_backend_or_none()
    runs_there = backend is not None and spec.backend_alias == backend.alias and spec.target != "service"
    return backend if runs_there else None
