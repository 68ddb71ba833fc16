"""The faults that the tests plant, one for each kind of finding, and the commands that mend them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from google.cloud import run_v2

from cloudrun_jobs.models import JobRun, Status, Trigger
from tests.doctor.project import CALLER, REGION, Project, nightly
from tests.jobs.management.commands import in_request

IMAGE = f"{REGION}-docker.pkg.dev/PROJECT/jobs/app"
NOBODY = "nobody@acme.iam.gserviceaccount.com"  # No policy mentions it.


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. In `fix`, PROJECT stands for the project, and AGENT for Cloud Scheduler's service agent."""

    id: str
    plant: Callable[[Project], object]
    fix: str
    job: str | None = None
    name: str = ""  # Distinguishes faults with the same id.

    def __str__(self) -> str:
        return self.name or self.id


def _edit(change: Callable[[run_v2.Job], object]) -> Callable[[Project], None]:
    """Return a function that changes the job `echo` as the console would."""

    def plant(project: Project) -> None:
        job = project.job()
        change(job)
        project.update_job(job)

    return plant


def _container(job: run_v2.Job) -> run_v2.Container:
    return job.template.template.containers[0]


def _add_sidecar(job: run_v2.Job) -> None:
    _container(job).name = "job"
    job.template.template.containers.append(run_v2.Container(name="proxy", image="proxy:1"))


def _disown(job: run_v2.Job) -> None:
    job.annotations = {}


def _orphan_job(project: Project) -> None:
    project.declare(backend="celery")


def _orphan_schedule(project: Project) -> None:
    project.declare(nightly, schedule=None)


def _move(project: Project) -> None:
    """Use a region that has no Cloud Scheduler."""
    project.values["REGION"] = "europe-north1"
    project.apply()


SYNC_ECHO = "manage.py sync_cloudrun_jobs --command echo"
SYNC_NIGHTLY = "manage.py sync_cloudrun_schedules --command nightly"
JOB_FLAGS = f"--region={REGION} --project=PROJECT"

# Mended by a command of `manage.py`.
MANAGED = (
    Fault(
        id="job_missing",
        job="echo",
        plant=Project.delete_job,
        fix=f"manage.py sync_cloudrun_jobs --image {IMAGE}:1 --command echo",
    ),
    Fault(id="job_not_synced", job="echo", plant=_edit(_disown), fix=SYNC_ECHO),
    Fault(
        id="retries_default",
        job="echo",
        plant=_edit(lambda job: setattr(job.template.template, "max_retries", 3)),
        fix=SYNC_ECHO,
    ),
    Fault(
        id="entrypoint_differs",
        job="echo",
        plant=_edit(lambda job: setattr(_container(job), "command", ["gunicorn"])),
        fix=SYNC_ECHO,
    ),
    Fault(
        id="job_drift",
        job="echo",
        plant=_edit(lambda job: setattr(job.template.template, "timeout", timedelta(seconds=5))),
        fix=SYNC_ECHO,
    ),
    Fault(
        id="image_differs",
        job="echo",
        plant=lambda project: project.manage(
            "sync_cloudrun_jobs", "--image", project.image(2), "--command", "nightly"
        ),
        fix=f"manage.py sync_cloudrun_jobs --image {IMAGE}:2 --command echo",
    ),
    Fault(id="schedule_missing", job="nightly", plant=Project.delete_schedule, fix=SYNC_NIGHTLY),
    Fault(
        id="schedule_drift",
        job="nightly",
        plant=lambda project: project.update_schedule(schedule="0 4 * * *"),
        fix=SYNC_NIGHTLY,
    ),
    Fault(
        id="schedule_orphaned",
        job="nightly",
        plant=_orphan_schedule,
        fix="manage.py sync_cloudrun_schedules --prune --command nightly",
    ),
)
