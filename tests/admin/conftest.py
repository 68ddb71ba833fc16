"""Users and runs for the tests of the admin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from cloudrun_jobs.models import JobRun, Status

RUNS = "/admin/cloudrun_jobs/jobrun/"
JOBS = "/admin/cloudrun_jobs/job/"


@pytest.fixture
def sign_in(client: Client) -> Callable[..., Client]:
    """Return a function that signs in a member of staff with these permissions."""

    def sign_in(*permissions: str, **values: Any) -> Client:
        user = User.objects.create_user("mina", **{"is_staff": True, **values})
        user.user_permissions.add(*Permission.objects.filter(codename__in=permissions))
        client.force_login(user)
        return client

    return sign_in


@pytest.fixture
def staff(sign_in: Callable[..., Client]) -> Client:
    """A browser with a member of staff who has every permission."""
    return sign_in("view_jobrun", "run_job", "cancel_job")


def record(command: str = "echo", status: Status = Status.SUCCEEDED, **values: Any) -> JobRun:
    """Return the record of a run, reloaded."""
    fields = {"argv": [command], "environment": "test", "trigger": "delay", "status": status, **values}
    run = JobRun.objects.create(command=command, **fields)
    run.refresh_from_db()
    return run


def shown(response: Any) -> list[str]:
    """Return the jobs of the runs on a page of the list."""
    assert response.status_code == 200
    return [run.command for run in response.context["cl"].result_list]
