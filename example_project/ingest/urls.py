"""The ingest API, without a view of its own: the credentials are in `CLOUDRUN_JOBS["HTTP"]`."""

from __future__ import annotations

from django.urls import path

from cloudrun_jobs.http.views import endpoint, list_runs, show_newest_run, show_run, start_run

COMMAND = "run_daily_ingest"

urlpatterns = [
    path("api/v1/ingest/run-daily", endpoint(POST=start_run(COMMAND))),
    path("api/v1/ingest/jobs", endpoint(GET=list_runs(COMMAND))),
    path("api/v1/ingest/jobs/<str:job_id>", endpoint(GET=show_run(COMMAND))),
    path("job/<int:id>", endpoint(POST=start_run("job"), GET=show_newest_run("job"))),
]
