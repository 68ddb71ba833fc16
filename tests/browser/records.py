"""Users and runs for the pages that the browser opens: `python -m tests.browser.records`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import django
from django.utils import timezone

PASSWORD = "only for tests"
#: The permissions of each user.
USERS = {"operator": ("view_jobrun", "run_job", "cancel_job"), "reader": ("view_jobrun",), "guest": ()}
#: Runs that the pages show: what they hold is longer, stranger or rarer than usual.
FAILED, RUNNING, SUCCEEDED = (UUID(int=number) for number in (1, 2, 3))

LONG = "https://storage.example/" + "an-address-without-a-space/" * 20
HOSTILE = '<script>alert(1)</script> \x1b[31m \u202egnp.exe & "quotes" \'' + "x" * 3000
TRACEBACK = 'Traceback (most recent call last):\n  File "/app/jobs.py", line 7, in run\n    ' + "y" * 300 + "\n"


def create() -> None:
    create_users()
    create_runs()


def create_users() -> None:
    from django.contrib.auth.models import Permission, User

    for name, permissions in USERS.items():
        user = User.objects.create_user(name, password=PASSWORD, is_staff=True)
        user.user_permissions.add(*Permission.objects.filter(codename__in=permissions))
    # The admin's own pages, to compare with.
    User.objects.get(username="operator").user_permissions.add(Permission.objects.get(codename="view_user"))


def create_runs() -> None:
    now = timezone.now()
    begun: dict[str, Any] = {"sent_at": now - timedelta(hours=2), "started_at": now - timedelta(hours=2)}
    failure = {"error_class": "ValueError", "error_message": HOSTILE, "traceback": TRACEBACK * 30}
    run(
        FAILED,
        "failed",
        argv=["walk", "3", f"--until={LONG}"],
        failed_count=1,
        finished_at=now,
        **begun,
        **failure,
    )
    running = run(RUNNING, "running", task_count=4, succeeded_count=2, **begun)
    result = {"rows": 7, "text": HOSTILE, "list": list(range(50)), "نص": "עברית"}
    run(SUCCEEDED, "succeeded", result=result, succeeded_count=1, finished_at=now, **begun)
    for index in range(4):
        running.tasks.create(
            index=index,
            worker=uuid4(),
            status="running" if index > 1 else "succeeded",
            finished_at=None if index > 1 else now,
            progress_done=index,
            progress_total=4,
            progress_text=f"step {index} {LONG[:100]}",
        )
    for number, status in enumerate(
        ("succeeded", "failed", "cancelled", "skipped", "lost", "pending", "sent") * 3
    ):
        at = {} if status in {"pending", "sent"} else {**begun, "finished_at": now - timedelta(minutes=number)}
        run(uuid4(), status, command=("walk", "echo", "nightly")[number % 3], **at)
    run(uuid4(), "failed", command="a_command_that_is_gone", finished_at=now, **begun)


def run(pk: UUID, status: str, command: str = "walk", argv: Any = None, **values: Any) -> Any:
    from cloudrun_jobs.models import JobRun

    return JobRun.objects.create(
        pk=pk,
        command=command,
        argv=argv or [command, "5"],
        job_name=f"{command.replace('_', '-')}-production",
        environment="production",
        trigger="delay",
        requested_by="operator",
        status=status,
        **values,
    )


if __name__ == "__main__":
    django.setup()
    create()
