"""django-tasks-google: tasks on Cloud Tasks and Cloud Run jobs, and recurring ones on Cloud Scheduler."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from unittest import mock
from wsgiref.simple_server import WSGIRequestHandler, make_server

from tests.clients.emulator import (
    PARENT,
    PROJECT,
    REGION,
    create_job,
    emulator,
    eventually,
    fails_with,
    grpc_clients,
    home,
    project,
    step,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ACCOUNT = f"task-invoker@{PROJECT}.iam.gserviceaccount.com"
SETTINGS = f"""
from pathlib import Path

SECRET_KEY = "x"
USE_TZ = True
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "urls"
INSTALLED_APPS = ["django.contrib.contenttypes", "django_tasks_google"]
DATABASES = {{
    "default": {{
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": Path(__file__).with_name("db.sqlite3"),
        "OPTIONS": {{"transaction_mode": "IMMEDIATE", "timeout": 30}},  # In place of the row locks of a server.
    }}
}}
OPTIONS = {{
    "project_id": "{PROJECT}",
    "location": "{REGION}",
    "base_url": "BASE_URL/tasks/",
    "oidc_service_account": "{ACCOUNT}",
}}
TASKS = {{
    "default": {{
        "BACKEND": "django_tasks_google.backends.CloudTasksBackend",
        "QUEUES": ["default"],
        "OPTIONS": OPTIONS | {{"queue_aliases": {{"default": "app-tasks"}}}},
    }},
    "jobs": {{
        "BACKEND": "django_tasks_google.backends.CloudRunJobsBackend",
        "QUEUES": ["default"],
        # The backends' caches of retries would share a key, which has the name of the queue alone.
        "OPTIONS": OPTIONS | {{"queue_aliases": {{"default": "app-jobs"}}, "cache_prefix": "jobs"}},
    }},
}}
"""
MANAGE = """
import os
import sys

from django.core.management import execute_from_command_line

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
execute_from_command_line(sys.argv)
"""
URLS = """
from django.urls import include, path

urlpatterns = [path("tasks/", include("django_tasks_google.urls"))]
"""
WORK = """
import time

from django.tasks import task


@task(backend="jobs")
def notify(user_id):
    return {"user_id": user_id, "status": "sent"}


@task(backend="jobs", takes_context=True)
def flaky(context):
    if context.attempt == 1:
        raise ValueError("the first attempt fails")
    return context.attempt


@task(backend="jobs")
def broken():
    raise ValueError("every attempt fails")


@task
def welcome(user_id):
    return {"welcomed": user_id}


@task(takes_context=True)
def flaky_welcome(context):
    if context.attempt == 1:
        raise ValueError("the first delivery fails")
    return context.attempt


@task(backend="jobs")
def wait():
    time.sleep(60)
"""
FILES = {"manage.py": MANAGE, "settings.py": SETTINGS, "urls.py": URLS, "work.py": WORK}


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def web_service(directory: Path) -> Iterator[None]:
    """Serve the project, as its service on Cloud Run would."""
    with make_server("127.0.0.1", 0, lambda *_: [], handler_class=QuietHandler) as server:
        settings = directory / "settings.py"
        settings.write_text(settings.read_text().replace("BASE_URL", f"http://127.0.0.1:{server.server_port}"))
        sys.path.insert(0, str(directory))
        os.environ["DJANGO_SETTINGS_MODULE"] = "settings"

        import django
        from django.core.management import call_command
        from django.core.wsgi import get_wsgi_application

        django.setup()
        call_command("migrate", verbosity=0)
        server.set_app(get_wsgi_application())
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


@contextlib.contextmanager
def certificates(address: str) -> Iterator[None]:
    """Take the emulator for the issuer of Google's ID tokens."""
    from google.oauth2 import id_token

    with (
        mock.patch.object(id_token, "_GOOGLE_OAUTH2_CERTS_URL", f"{address}/oauth2/v1/certs"),
        mock.patch.object(id_token, "_GOOGLE_ISSUERS", [address]),
    ):
        yield


def finished(result: Any) -> Any:
    """Wait until a task has ended."""
    from django.tasks import TaskResultStatus

    def ended() -> bool:
        result.refresh()
        return result.status in {TaskResultStatus.SUCCESSFUL, TaskResultStatus.FAILED}

    eventually(ended)
    return result


def cloud_tasks() -> None:
    import work  # type: ignore[import-not-found]  # In the directory of the project.
    from django.utils import timezone
    from django_tasks_google.models import TaskExecution
    from google.cloud import tasks_v2

    retries = {"max_attempts": 3, "min_backoff": "0.1s", "max_backoff": "0.1s"}
    queue = tasks_v2.Queue({"name": f"{PARENT}/queues/app-tasks", "retry_config": retries})
    tasks_v2.CloudTasksClient().create_queue(parent=PARENT, queue=queue)

    done = finished(work.welcome.enqueue(user_id=1))
    assert done.return_value == {"welcomed": 1}
    execution = TaskExecution.objects.get(pk=done.id)
    assert execution.cloud_task_name.startswith(f"{queue.name}/tasks/")
    assert execution.max_attempts == 3
    step("enqueued a task, which Cloud Tasks delivered as", execution.cloud_task_name)

    due = timezone.now() + timedelta(seconds=2)
    delayed = finished(work.welcome.using(run_after=due).enqueue(user_id=2))
    assert delayed.started_at >= due
    step("delayed a task")

    done = finished(work.flaky_welcome.enqueue())
    assert (done.return_value, len(done.errors)) == (2, 1)
    step("retried a task")


def cloud_run_jobs() -> None:
    import work
    from django.db import transaction
    from django.tasks import TaskResultStatus
    from django_tasks_google.base import cancel_task
    from django_tasks_google.models import TaskExecution
    from google.cloud import run_v2

    done = finished(work.notify.enqueue(user_id=1))
    assert done.return_value == {"user_id": 1, "status": "sent"}
    execution = TaskExecution.objects.get(pk=done.id)
    assert execution.cloud_run_job_execution_name.startswith(f"{PARENT}/jobs/app-jobs/executions/app-jobs-")
    assert execution.max_attempts == 2
    step("enqueued a task, which ran as", execution.cloud_run_job_execution_name)

    done = finished(work.flaky.enqueue())
    assert (done.status, done.return_value, len(done.errors)) == (TaskResultStatus.SUCCESSFUL, 2, 1)
    step("retried a task")

    failed = finished(work.broken.enqueue())
    assert [error.exception_class_path for error in failed.errors] == ["builtins.ValueError"] * 2
    step("failed as expected")

    waiting = work.wait.enqueue()
    eventually(lambda: waiting.refresh() or waiting.status == TaskResultStatus.RUNNING)
    with transaction.atomic():
        cancel_task(waiting, force=True)
    name = TaskExecution.objects.get(pk=waiting.id).cloud_run_job_execution_name
    eventually(lambda: run_v2.ExecutionsClient().get_execution(name=name).cancelled_count == 1)
    waiting.refresh()
    assert waiting.status == TaskResultStatus.FAILED
    step("cancelled a running task, and its execution")

    ended = TaskExecution.objects.get(pk=done.id)
    ended.backend.force_cancel(ended)
    step("cancelled none that has ended")


def cloud_scheduler() -> None:
    import work
    from django_tasks_google.models import TaskExecution
    from django_tasks_google.scheduler import delete_scheduled_task, schedule_task
    from google.api_core.exceptions import NotFound
    from google.cloud import scheduler_v1

    client, name = scheduler_v1.CloudSchedulerClient(), f"{PARENT}/jobs/nightly"
    scheduled = schedule_task(
        work.notify, "0 3 * * *", name="nightly", time_zone="Asia/Tokyo", kwargs={"user_id": 7}
    )
    job = client.get_job(name=name)
    assert (job.state.name, job.schedule, job.time_zone) == ("ENABLED", "0 3 * * *", "Asia/Tokyo")
    step("scheduled a task")

    client.run_job(name=name)
    execution = eventually(lambda: TaskExecution.objects.filter(kwargs={"user_id": 7}).first())
    assert finished(execution.task_result).return_value == {"user_id": 7, "status": "sent"}
    step("delivered it with an ID token that the application verified, and ran it")

    scheduled.schedule, scheduled.state = "0 4 * * *", scheduled.State.DISABLED
    scheduled.save()
    scheduled.sync()
    job = client.get_job(name=name)
    assert (job.state.name, job.schedule) == ("PAUSED", "0 4 * * *")
    scheduled.state = scheduled.State.ENABLED
    scheduled.save()
    scheduled.sync()
    assert client.get_job(name=name).state.name == "ENABLED"
    step("changed, paused and resumed the schedule")

    delete_scheduled_task(scheduled.pk)
    with fails_with("404", NotFound):
        client.get_job(name=name)
    step("deleted it")


if __name__ == "__main__":
    with (
        home(),
        project(FILES) as directory,
        web_service(directory),
        emulator("--image", f"app={directory}", "--no-entrypoint", "app") as addresses,
        grpc_clients(addresses.grpc),
        certificates(addresses.http),
    ):
        # Its arguments are the whole command, and so are those of each execution.
        create_job("app-jobs", {"image": "app", "args": ["python", "manage.py", "check"]}, max_retries=1)
        cloud_tasks()
        cloud_run_jobs()
        cloud_scheduler()
