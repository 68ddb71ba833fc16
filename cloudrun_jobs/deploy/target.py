"""Select the backend that has the jobs and the schedules in the cloud, and link to its console."""

from __future__ import annotations

from urllib.parse import quote

from cloudrun_jobs import backends
from cloudrun_jobs.backends.cloudrun import CloudRunBackend
from cloudrun_jobs.spec import JobSpec

CONSOLE = "https://console.cloud.google.com"


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
    wanted = [f'resource.labels.{name}="{value}"' for name, value in labels.items()]
    query = "\n".join(['resource.type="cloud_run_job"', *wanted])
    return f"{CONSOLE}/logs/query;query={quote(query, safe='')}?project={backend.settings.project}"


def _backend_of(spec: JobSpec) -> CloudRunBackend | None:
    backend = cloudrun_backend_or_none()
    runs_there = backend is not None and spec.backend_alias == backend.alias and spec.target != "service"
    return backend if runs_there else None
