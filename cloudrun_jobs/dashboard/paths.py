"""The paths of the pages by name, below those of jobs and those of runs. `dashboard.views` has their handlers.

Each start of a job in a project with the admin imports this module: it imports nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

JOB_PATHS: Mapping[str, str] = {
    "jobs": "",
    "job": "<str:command>/",
    "start": "<str:command>/start/",
    "pause": "<str:command>/pause/",
    "resume": "<str:command>/resume/",
    "release_lock": "<str:command>/release-lock/",
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
