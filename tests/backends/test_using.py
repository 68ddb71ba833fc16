"""`using()`: what a run overrides of its job reaches Cloud Run, the record, and runs that are sent again."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone
from google.cloud import run_v2

from cloudrun_jobs.exceptions import InvalidArguments
from cloudrun_jobs.execution.termination import Termination
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.runs.reconcile import reconcile
from tests.backends.server import CloudRun
from tests.jobs.management.commands import echo

pytestmark = pytest.mark.django_db(transaction=True)

OVERRIDES = {"tasks": 3, "timeout": 900, "env": {"SHOP": "7"}}


def sent(cloud_run: CloudRun) -> dict[str, Any]:
    """Return what the last request overrides, without the run's id and arguments."""
    overrides = cloud_run.requests[-1].overrides
    variables = {variable.name: variable.value for variable in overrides.container_overrides[0].env}
    variables.pop("CLOUDRUN_JOBS_RUN_ID")
    return {"tasks": overrides.task_count, "timeout": overrides.timeout.total_seconds(), "env": variables}


NOTHING = {"tasks": 0, "timeout": 0, "env": {}}


@pytest.mark.parametrize("timeout", [900, timedelta(minutes=15)], ids=["seconds", "timedelta"])
def test_overrides_are_sent_and_recorded(cloud_run: CloudRun, timeout: Any) -> None:
    """The command itself is unchanged: its next run overrides nothing."""
    command = echo.Command()
    command.using(**{**OVERRIDES, "timeout": timeout}).delay(partner=7)
    assert sent(cloud_run) == OVERRIDES
    assert JobRun.objects.get().overrides == OVERRIDES

    command.delay(partner=8)
    assert sent(cloud_run) == NOTHING
    assert JobRun.objects.newest_first()[0].overrides is None


@pytest.mark.parametrize(
    "start",
    [
        lambda command: command.delay_argv(["--partner=7"]),
        lambda command: asyncio.run(command.adelay(partner=7)),
    ],
    ids=["delay_argv", "adelay"],
)
def test_other_ways_to_start(cloud_run: CloudRun, start: Any) -> None:
    start(echo.Command().using(**OVERRIDES))

    assert sent(cloud_run) == OVERRIDES


def test_later_values_replace_earlier_ones(cloud_run: CloudRun) -> None:
    """Variables are added."""
    command = echo.Command().using(tasks=2, timeout=60, env={"A": "1", "B": "2"})
    command.using(tasks=4, env={"B": "3"}).delay()

    assert sent(cloud_run) == {"tasks": 4, "timeout": 60, "env": {"A": "1", "B": "3"}}


def test_options_may_have_the_same_names(cloud_run: CloudRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are keywords of delay(), as ever."""
    monkeypatch.setattr(
        echo.Command, "add_arguments", lambda self, parser: parser.add_argument("--tasks", type=int)
    )
    echo.Command().using(timeout=60).delay(tasks=5)

    assert list(cloud_run.requests[0].overrides.container_overrides[0].args) == ["echo", "--tasks=5"]
    assert sent(cloud_run)["tasks"] == 0


def test_rerun_has_the_same_overrides(cloud_run: CloudRun) -> None:
    echo.Command().using(**OVERRIDES).delay(partner=7)
    JobRun.objects.get().rerun()

    assert (len(cloud_run.requests), sent(cloud_run)) == (2, OVERRIDES)


def test_run_whose_dispatcher_died_has_the_same_overrides(cloud_run: CloudRun) -> None:
    """`reconcile` reads them from the record."""
    from cloudrun_jobs import backends

    past = timezone.now() - timedelta(hours=1)
    JobRun.objects.create(
        command="echo",
        environment="production",
        argv=["echo"],
        overrides=OVERRIDES,
        status=Status.PENDING,
        sending_until=past,
    )
    reconcile(backends.current())

    assert sent(cloud_run) == OVERRIDES


def test_same_key_with_other_overrides_is_refused(cloud_run: CloudRun) -> None:
    """They identify the run as its arguments do."""
    first = echo.Command().using(tasks=2).delay(idempotency_key="a")

    assert echo.Command().using(tasks=2).delay(idempotency_key="a").run_id == first.run_id
    with pytest.raises(InvalidArguments, match="used with other arguments"):
        echo.Command().using(tasks=3).delay(idempotency_key="a")


def test_reservation_has_the_overrides(cloudrun_emulator: Any, settings: Any) -> None:
    """The execution that the reservation starts has them, seen on the emulator."""
    account = "app-jobs@acme.iam.gserviceaccount.com"
    settings.CLOUDRUN_JOBS = {
        "ENVIRONMENT": "production",
        "PROJECT": "acme",
        "REGION": "asia-northeast1",
        "OPTIONS": {"endpoint": cloudrun_emulator.grpc, "scheduler_service_account": account},
    }
    parent = "projects/acme/locations/asia-northeast1"
    task = run_v2.TaskTemplate(containers=[run_v2.Container(image="x", command=["true"])])
    job = run_v2.Job(template=run_v2.ExecutionTemplate(template=task))
    cloudrun_emulator.clients.jobs.create_job(parent=parent, job=job, job_id="echo-production")

    echo.Command().using(**OVERRIDES).reserve(timedelta(minutes=10))
    cloudrun_emulator.clock.advance(timedelta(minutes=12))

    (execution,) = cloudrun_emulator.clients.executions.list_executions(parent=f"{parent}/jobs/echo-production")
    assert (execution.task_count, execution.template.timeout) == (3, timedelta(seconds=900))
    variables = {variable.name: variable.value for variable in execution.template.containers[0].env}
    assert variables["SHOP"] == "7"


def test_inline_run_has_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """One task does all, and the process's environment is restored."""
    monkeypatch.setenv("SHOP", "1")

    def run(self: Any, *args: Any, **options: Any) -> dict[str, Any]:
        return {"shop": os.environ["SHOP"], "other": os.environ["OTHER"]}

    monkeypatch.setattr(echo.Command, "run", run)
    operation = echo.Command().using(tasks=3, timeout=60, env={"SHOP": "7", "OTHER": "8"}).delay()

    assert operation.result() == {"shop": "7", "other": "8"}
    assert (os.environ["SHOP"], "OTHER" in os.environ) == ("1", False)
    assert JobRun.objects.get().overrides == {"tasks": 3, "timeout": 60, "env": {"SHOP": "7", "OTHER": "8"}}


def test_test_mode_of_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its variable is for the caller to set."""
    monkeypatch.setattr(echo.Command, "test_mode", False, raising=False)
    monkeypatch.setattr(echo.Command, "run", lambda self, *args, **options: self.test_mode)
    command = echo.Command().using(env={"CLOUDRUN_JOBS_TEST_MODE": "1"})

    assert (command.delay().result(), echo.Command().delay().result()) == (True, False)


def test_overrides_outlive_a_call_of_the_command() -> None:
    """They belong to the instance."""
    command = echo.Command().using(timeout=99)
    call_command(command)
    command.delay()

    assert JobRun.objects.newest_first()[0].overrides == {"timeout": 99}


def test_job_may_start_itself_with_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within run() the instance has a run, and its copies have none."""

    def run(self: Any, *args: Any, **options: Any) -> Any:
        self.progress(1)
        if options["partner"]:
            return self.using(env={"NESTED": "yes"}).delay().result()
        return os.environ["NESTED"]

    monkeypatch.setattr(echo.Command, "run", run)

    assert echo.Command().delay(partner=1).result() == "yes"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": 3}, "echo: using(): unknown name 'task'. Did you mean 'tasks'?"),
        ({"tasks": 0}, "echo: using(): tasks: expected a whole number from 1 to 10000, got 0."),
        ({"tasks": 10_001}, "expected a whole number from 1 to 10000"),
        ({"tasks": "3"}, "expected a whole number"),
        ({"tasks": True}, "expected a whole number"),
        ({"tasks": 4}, "task_parallelism: expected at most tasks (4), got 5."),
        ({"timeout": 0}, "timeout: expected whole seconds from 1 to 604800"),
        ({"timeout": timedelta(days=8)}, "timeout: expected whole seconds from 1 to 604800"),
        ({"timeout": 1.5}, "timeout: expected whole seconds"),
        ({"env": {"CLOUD_RUN_JOB": "x"}}, "env: expected a name that neither Cloud Run nor this package reserves"),
        ({"env": {"CLOUDRUN_JOBS_RUN_ID": "x"}}, "'CLOUDRUN_JOBS_RUN_ID' is a variable of this package"),
        ({"env": {"API_KEY": "x"}}, "env: expected no name that is also in secrets, got ['API_KEY']."),
        ({"env": {"A": "x" * 32_769}}, "env['A']: expected at most 32768 bytes, got 32769."),
        ({"env": {"A": 1}}, "env['A']: expected a string, got int."),
        ({"env": {"A B": "1"}}, "env: expected letters, digits and underscores as name, got 'A B'."),
        ({"env": {"A": "a\0b"}}, "env['A']: expected text without NUL that UTF-8 can encode"),
        ({"env": {"A": "\ud800"}}, "env['A']: expected text without NUL that UTF-8 can encode"),
        (
            {"env": {"CLOUDRUN_JOBS_ENVIRONMENT": "test"}},
            "'CLOUDRUN_JOBS_ENVIRONMENT' is a variable of this",
        ),
        ({"env": {"CLOUDRUN_JOBS_EXECUTION": "x"}}, "'CLOUDRUN_JOBS_EXECUTION' is a variable of this package"),
        ({"env": ["A=1"]}, "env: expected a dictionary, got list."),
    ],
)
def test_invalid_overrides_are_refused(monkeypatch: pytest.MonkeyPatch, given: Any, message: str) -> None:
    """At once, before anything is recorded."""
    for name, value in {"tasks": 30, "task_parallelism": 5, "secrets": {"API_KEY": "key"}}.items():
        monkeypatch.setattr(echo.Command, name, value, raising=False)

    with pytest.raises(InvalidArguments) as refusal:
        echo.Command().using(**given)

    assert message in str(refusal.value)


def test_timeout_of_the_run_decides_why_it_was_interrupted() -> None:
    """SIGTERM at the overridden timeout is a timeout."""
    longer, usual = Termination(600), Termination(600)
    longer.extend(timedelta(seconds=-599))
    for termination in (longer, usual):
        termination.request()

    assert (longer.interrupted().reason, usual.interrupted().reason) == ("timeout", "interrupted")
