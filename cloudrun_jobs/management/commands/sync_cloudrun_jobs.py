"""`manage.py sync_cloudrun_jobs`: make the Cloud Run Jobs match the code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandParser

from cloudrun_jobs.backends.cloudrun import CloudRunBackend
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.deploy import jobs as job_declarations
from cloudrun_jobs.deploy.plan import Desired, Existing, Plan
from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.management.sync import SyncCommand
from cloudrun_jobs.spec import JobSpec

if TYPE_CHECKING:
    from cloudrun_jobs.deploy.cloudrun.jobs import Jobs


class Command(SyncCommand):
    help = "Make the Cloud Run Jobs match the jobs in the code."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--image", help="The image of the jobs whose class names none.")
        parser.add_argument(
            "--from-service",
            metavar="NAME",
            help="Copy variables, secrets, VPC and Cloud SQL from this service, unless a job declares its own.",
        )

    def store(self, backend: CloudRunBackend) -> Jobs:
        from cloudrun_jobs.deploy.cloudrun.jobs import Jobs

        return Jobs(backend)

    def desired(
        self, jobs: Sequence[CloudRunJobs], store: Jobs, backend: CloudRunBackend, options: dict[str, Any]
    ) -> Sequence[Desired]:
        name = options["from_service"]
        service = store.service_fields(name) if name else None
        return job_declarations.desired(jobs, backend, image=options["image"], service=service)

    def is_deployed(self, spec: JobSpec, backend: CloudRunBackend) -> bool:
        return job_declarations.is_deployed(spec, backend)

    def check_existing(self, desired: Sequence[Any], existing: Sequence[Existing]) -> None:
        job_declarations.reject_unfit_entrypoints(desired, existing)

    def check_plan(self, todo: Plan) -> None:
        for change in todo.changes:
            if change.action == "create" and "image" not in {field.name for field in change.fields}:
                raise CloudRunJobsError(f"{change.label}: a new job needs an image.", hint="Add --image IMAGE.")
