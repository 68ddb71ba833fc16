"""`manage.py sync_cloudrun_jobs`: make the Cloud Run Jobs match what the code declares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.management.base import CommandParser

from cloudrun_jobs.backends.cloudrun import CloudRunBackend
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.deploy import jobs as declarations
from cloudrun_jobs.deploy.plan import Desired, Plan, Store
from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.management.sync import SyncCommand


class Command(SyncCommand):
    help = "Make the Cloud Run Jobs match what jobs declare."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--image", help="The image of all jobs whose class names none.")
        parser.add_argument(
            "--from-service",
            metavar="NAME",
            help="Give the jobs this service's variables, secrets, VPC and Cloud SQL, below what they declare.",
        )

    def store(self, backend: CloudRunBackend) -> Store:
        return backend.jobs()

    def declared(
        self, jobs: Sequence[CloudRunJobs], backend: CloudRunBackend, options: dict[str, Any]
    ) -> list[Desired]:
        name = options["from_service"]
        service = backend.jobs().of_service(name) if name else None
        return declarations.declared(jobs, backend, image=options["image"], service=service)

    def check_plan(self, todo: Plan) -> None:
        for change in todo.changes:
            if change.action == "create" and "image" not in {field.name for field in change.fields}:
                raise CloudRunJobsError(f"{change.label}: a new job needs an image.", hint="Add --image IMAGE.")
