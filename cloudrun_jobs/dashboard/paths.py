"""The paths of the pages by name, below those of jobs and those of runs. `dashboard.views` has their handlers.

Each start of a job in a project with the admin imports this module, and little else.
"""

from __future__ import annotations

from collections.abc import Mapping

from django.urls import register_converter


class JobConverter:
    """The name of a job in a URL: any text. Records may name jobs that no command can be."""

    regex = "[^/]+"

    def to_python(self, value: str) -> str:
        return value.replace("%2E", ".").replace("%2F", "/").replace("%25", "%")

    def to_url(self, value: str) -> str:
        # A browser resolves "." and "..", and a slash would end this part of the path.
        name = value.replace("%", "%25").replace("/", "%2F")
        return name if name.strip(".") else name.replace(".", "%2E")


# The names of converters are the project's: it may have a "job" of its own.
register_converter(JobConverter, "cloudrun_jobs_job")

JOB_PATHS: Mapping[str, str] = {
    "jobs": "",
    "job": "<cloudrun_jobs_job:command>/",
    "start": "<cloudrun_jobs_job:command>/start/",
    "pause": "<cloudrun_jobs_job:command>/pause/",
    "resume": "<cloudrun_jobs_job:command>/resume/",
    "release_lock": "<cloudrun_jobs_job:command>/release-lock/",
}
#: An admin site has a list of runs of its own.
RUN_PATHS: Mapping[str, str] = {
    "runs": "",
    "run": "<uuid:run_id>/",
    "cancel": "<uuid:run_id>/cancel/",
    "rerun": "<uuid:run_id>/rerun/",
    "text": "<uuid:run_id>/text/<str:field>/",
    "events": "<uuid:run_id>/events/",
}
#: The views that an admin site has itself, with their names there.
ADMIN_VIEW_NAMES: Mapping[str, str] = {
    "jobs": "job_changelist",
    "job": "job_change",
    "runs": "jobrun_changelist",
    "run": "jobrun_change",
}
