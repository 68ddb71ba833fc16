"""The URLs of the HTTP API: `path("cloudrun_jobs/", include("cloudrun_jobs.urls"))`."""

from __future__ import annotations

from django.urls import path

from cloudrun_jobs.http.endpoint import Action, endpoint, missing

app_name = "cloudrun_jobs"
urlpatterns = [
    path("jobs/", endpoint({"GET": Action("runs.list_runs", "read")}), name="runs"),
    path(
        "jobs/<str:name>/",
        endpoint({"GET": Action("runs.show_run", "read"), "POST": Action("jobs.start_job", "run")}),
        name="run",
    ),
    path("jobs/<str:name>/events/", endpoint({"GET": Action("events.stream_events", "read")}), name="events"),
    path("jobs/<str:name>/cancel/", endpoint({"POST": Action("runs.cancel_run", "cancel")}), name="cancel"),
    path("jobs/<str:name>/rerun/", endpoint({"POST": Action("runs.rerun", "run")}), name="rerun"),
    path("run/", endpoint({"GET": Action("triggers.list_triggers", "read")}), name="triggers"),
    path("run/<str:name>/", endpoint({"POST": Action("triggers.run_job", "trigger")}), name="trigger"),
    path("<path:path>", missing),
]
