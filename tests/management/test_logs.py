"""`cloudrun_jobs logs`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from google.logging.type import log_severity_pb2
from google.protobuf import json_format
from pytest_django import Settings

from cloudrun_jobs.backends.cloudrun import entries
from cloudrun_jobs.backends.log_entries import LogQuery
from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.emulator.logs.store import Entry
from cloudrun_jobs.exceptions import ServiceUnavailable
from cloudrun_jobs.management import following, log_sources
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.runs import local_output
from tests.jobs.management.commands import echo
from tests.management.cli import Cli

EXECUTION = "echo-production-x7k2p"
NOW = datetime(2026, 3, 20, 3, 0, tzinfo=UTC)
Write = Callable[..., None]


@pytest.fixture(autouse=True)
def _unused_quota() -> None:
    entries._read_quota.cache_clear()


@pytest.fixture
def run(options: dict[str, Any]) -> JobRun:
    """A run of a job that has ended."""
    return record(status=Status.SUCCEEDED, execution=EXECUTION, finished_at=NOW, created_at=NOW, task_count=2)


def record(**values: Any) -> JobRun:
    values = {"command": "echo", "environment": "production", "trigger": "delay", **values}
    return JobRun.objects.create(**values)


@pytest.fixture
def write(emulator: Emulator) -> Write:
    """Write an entry of the run's execution, or with other labels."""

    def write(text: str | dict[str, Any], *, severity: str = "INFO", after: float = 0.0, **fields: Any) -> None:
        labels = {"run.googleapis.com/execution_name": EXECUTION, "run.googleapis.com/task_index": "0"}
        entry = Entry(log_name="projects/acme/logs/run.googleapis.com%2Fstdout", insert_id=fields.get("id", ""))
        entry.resource.type = fields.get("resource", "cloud_run_job")
        entry.labels.update(fields.get("labels", labels))
        entry.severity = log_severity_pb2.LogSeverity.Value(severity)
        entry.timestamp.FromDatetime(NOW + timedelta(seconds=after))
        if isinstance(text, dict):
            json_format.ParseDict(text, entry.json_payload)
        else:
            entry.text_payload = text
        emulator.logs.add(entry)

    return write


def task(index: int) -> dict[str, str]:
    return {"run.googleapis.com/execution_name": EXECUTION, "run.googleapis.com/task_index": str(index)}


def test_log_of_a_job_is_that_of_its_execution(cli: Cli, run: JobRun, write: Write) -> None:
    """Entries are ordered by time; the task's number is shown if there are several tasks."""
    write("second", after=1, labels=task(1))
    write("first")
    write("of another execution", labels={"run.googleapis.com/execution_name": "echo-production-00000"})
    typed = cli("logs", str(run.pk)[:8])

    assert typed.lines == ["03-20 12:00:00 INFO    [task 0] first", "03-20 12:00:01 INFO    [task 1] second"]
    assert typed.err == f"The run has succeeded. `manage.py cloudrun_jobs show {str(run.pk)[:8]}` shows it.\n"


@pytest.mark.parametrize("resource", ["cloud_run_revision", "cloud_run_worker_pool"])
def test_log_of_a_service_or_a_worker_pool_is_found_by_its_label(
    cli: Cli, options: dict[str, Any], write: Write, resource: str
) -> None:
    """A service runs many jobs, so its entries are found by the label of the run."""
    run, other = record(created_at=NOW), record(created_at=NOW)
    write("mine", resource=resource, labels={"run": str(run.pk)})
    write("of another run", resource=resource, labels={"run": str(other.pk)})

    assert [line.split()[-1] for line in cli("logs", str(run.pk)).lines] == ["mine"]


def test_log_of_a_run_on_celery_workers(
    cli: Cli, options: dict[str, Any], settings: Settings, write: Write
) -> None:
    """The project's Cloud Run has the log of the worker pool."""
    entry = {"BACKEND": "cloudrun_jobs.backends.celery.CeleryBackend", "OPTIONS": {"queues": ["ingest"]}}
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "BACKENDS": {"celery": entry}}
    run = record(backend="celery", created_at=NOW)
    write("mine", resource="cloud_run_worker_pool", labels={"run": str(run.pk)})

    assert cli("logs", str(run.pk)).lines[0].endswith("mine")


FILTERS = {
    "task": (["--task=1"], ["second", "third"]),
    "severity": (["--severity=error"], ["third"]),
    "since": (["--since=2026-03-20T12:00:01"], ["second", "third"]),
    "duration": (["--since=1d"], []),
    "all": (["--task=1", "--severity=WARNING", "--since=2026-03-20T03:00:00Z"], ["second", "third"]),
}


@pytest.mark.parametrize(("arguments", "expected"), FILTERS.values(), ids=FILTERS)
def test_entries_are_selected(
    cli: Cli, run: JobRun, write: Write, arguments: list[str], expected: list[str]
) -> None:
    write("first")
    write("second", severity="WARNING", after=1, labels=task(1))
    write("third", severity="CRITICAL", after=2, labels=task(1))
    typed = cli("logs", str(run.pk), *arguments)

    assert [line.split()[-1] for line in typed.lines] == expected
    assert typed.err.startswith("The run has succeeded." if expected else "No such entry. The run has succeeded.")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--task=x"],
        ["--task=-1"],
        ["--severity=LOUD"],
        ["--since=soon"],
        ["--since=2026-13-01"],
        ["--since=999999d"],
        ["--since=0001-01-01T00:00:00+09:00"],
        ["--since=9999-12-31T23:59:59-05:00"],
    ],
    ids=str,
)
def test_invalid_options_exit_2(cli: Cli, arguments: list[str]) -> None:
    typed = cli("logs", "x", *arguments)

    assert (typed.status, typed.err.count("\n")) == (2, 1)


def test_entries_cannot_control_the_terminal(cli: Cli, run: JobRun, write: Write) -> None:
    """Line breaks are kept and indented; all other control characters are escaped."""
    trace = "Traceback:\r\n  File \x1b[2J\n日本語エラー \u202e 한국어"
    write({"message": "failed\x07", "stack_trace": trace}, severity="ERROR")
    write({"rows": 7}, after=1)
    typed = cli("logs", str(run.pk))
    margin = " " * len("03-20 12:00:00 ERROR   [task 0] ")

    assert typed.lines == [
        "03-20 12:00:00 ERROR   [task 0] failed\\x07",
        f"{margin}Traceback:",
        f"{margin}  File \\x1b[2J",
        f"{margin}日本語エラー \\u202e 한국어",
        '03-20 12:00:01 INFO    [task 0] {"rows": 7.0}',
    ]


def test_entries_as_json(cli: Cli, run: JobRun, write: Write) -> None:
    """`--json` prints one line of JSON for each entry, and no message."""
    write("first", id="a")
    typed = cli("logs", str(run.pk), "--json")

    assert typed.err == ""
    assert [json.loads(line) for line in typed.lines] == [
        {
            "id": "a",
            "time": "2026-03-20T03:00:00Z",
            "severity": "INFO",
            "text": "first",
            "task": 0,
            "attempt": None,
        }
    ]


def test_follow_of_an_ended_run_reads_once(cli: Cli, run: JobRun, write: Write, emulator: Emulator) -> None:
    """If the run has ended, `--follow` prints the log and exits 0."""
    write("first")
    emulator.calls.clear()

    assert (cli("logs", str(run.pk), "--follow").status, emulator.calls) == (
        0,
        {"LoggingServiceV2.ListLogEntries": 1},
    )


@pytest.fixture
def followed(run: JobRun, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Let the run continue; a follower's n-th sleep takes the n-th step, and the run ends after the last one."""

    def followed(*steps: Callable[[], object]) -> list[float]:
        JobRun.objects.update(status=Status.RUNNING, finished_at=None)
        ends = [lambda: JobRun.objects.update(status=Status.SUCCEEDED, finished_at=timezone.now())]
        left, slept = [*steps, *ends], list[float]()

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if left:
                left.pop(0)()

        monkeypatch.setattr(following, "sleep", sleep)
        monkeypatch.setattr(following, "monotonic", lambda: sum(slept))
        monkeypatch.setattr(following, "REFRESH_INTERVALS", (10_000.0, 10_000.0))
        return slept

    return followed


def nothing() -> None:
    """Let a second pass."""


def test_late_entries_are_shown_once(
    cli: Cli, run: JobRun, write: Write, followed: Callable[..., list[float]]
) -> None:
    """A late entry is printed, and no entry is printed twice."""
    write("first", after=60)
    late = [lambda: write("late", after=1), *[nothing] * 12, lambda: write("last", after=90), *[nothing] * 12]
    followed(*late)
    typed = cli("logs", str(run.pk), "--follow")

    assert (typed.status, [line.split()[-1] for line in typed.lines]) == (0, ["first", "late", "last"])


def test_ten_followers_read_less_than_sixty_times_a_minute(
    cli: Cli, run: JobRun, emulator: Emulator, followed: Callable[..., list[float]]
) -> None:
    """`--follow` stays within Cloud Logging's quota of 60 reads per minute."""
    slept = followed(*[nothing] * 240)
    emulator.calls.clear()
    cli("logs", str(run.pk), "--follow")

    assert emulator.calls["LoggingServiceV2.ListLogEntries"] / sum(slept) * 60 * 10 < 60
    assert max(slept) <= log_sources.READ_INTERVAL


def test_entries_of_the_last_seconds_are_awaited(
    cli: Cli, run: JobRun, write: Write, followed: Callable[..., list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries that Cloud Logging lists some seconds late are printed."""
    slept = followed()
    sleep = following.sleep
    monkeypatch.setattr(following, "sleep", lambda seconds: (sleep(seconds), write(f"after {seconds}")))

    assert cli("logs", str(run.pk), "--follow").lines[-1].endswith(f"after {log_sources.INGESTION_SECONDS}")
    assert slept[-1] == log_sources.INGESTION_SECONDS


def test_ctrl_c_leaves_the_run_alone(cli: Cli, run: JobRun, followed: Callable[..., list[float]]) -> None:
    """Ctrl-C prints the command that cancels the run."""
    followed(lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    typed = cli("logs", str(run.pk), "--follow")
    name = str(run.pk)[:8]

    assert (typed.status, JobRun.objects.get().status) == (130, Status.RUNNING)
    assert typed.err.endswith(f"run {name} continues. `manage.py cloudrun_jobs cancel {name}` cancels it.\n")


def test_error_of_the_api_exits_2(cli: Cli, run: JobRun, emulator: Emulator) -> None:
    emulator.faults.fail("LoggingServiceV2.ListLogEntries", "PERMISSION_DENIED")
    typed = cli("logs", str(run.pk))

    assert typed.status == 2
    assert "Grant logging.logEntries.list (roles/logging.viewer)" in typed.err


def test_output_that_was_not_kept(cli: Cli) -> None:
    """The output of a run in the caller's process is not kept."""
    run = record(environment="test", status=Status.SUCCEEDED)
    typed = cli("logs", str(run.pk))

    assert (typed.status, typed.err.count("\n")) == (1, 1)
    assert "was not kept" in typed.err


def test_local_output_is_kept_for_this_user(cli: Cli) -> None:
    """In a file of the state directory; a line that is being written is not read."""
    run = record(execution="echo-test-abcdef", status=Status.SUCCEEDED, finished_at=NOW)
    recorder = local_output.Recorder("echo-test-abcdef")
    recorder.write("first\n\x1b[2J", severity="INFO", task=0, attempt=0)
    path = local_output.path_of("echo-test-abcdef")
    assert path is not None
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    recorder.close()
    with path.open("a") as file:
        file.write('{"time": 1, "sev')
    typed = cli("logs", str(run.pk), "--follow")

    assert (typed.status, [line.split()[-1] for line in typed.lines]) == (0, ["first", "\\x1b[2J"])


def test_local_output_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its size, in the number of files, and in their age."""
    monkeypatch.setattr(local_output, "MAX_FILE_BYTES", 200)
    recorder = local_output.Recorder("long")
    recorder.write("a" * 50, severity="INFO")
    recorder.write("b" * 50, severity="INFO")
    recorder.write("c", severity="INFO")
    path = local_output.path_of("long")
    assert path is not None
    texts = [entry.text for entry in local_output.LocalLog(path).read()]
    assert texts == ["a" * 50, "The rest of the output was not kept: it is too long."]

    monkeypatch.setattr(local_output, "MAX_FILES", 2)
    os.utime(path, (0, 10**9 * 1.7))
    local_output.Recorder("newer").close()
    local_output.Recorder("newest").close()
    assert local_output.path_of("long") is None
    assert local_output.path_of("newer") is not None

    monkeypatch.setattr(local_output, "MAX_AGE_SECONDS", -1)
    local_output.remove_old()
    assert local_output.path_of("newest") is None


@pytest.mark.parametrize("execution", [None, "", "../settings", "a/b", "UPPER", "absent"], ids=str)
def test_only_names_of_executions_are_files(execution: str | None) -> None:
    assert local_output.path_of(execution) is None


def test_output_of_another_database_survives_prune(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """All projects of a user keep it in one directory; each knows the runs of its own database."""
    files = []
    for name in ("theirs", "mine"):
        monkeypatch.setitem(connection.settings_dict, "HOST", name)
        local_output.Recorder(f"echo-{name}").close()
        files.append(local_output.path_of(f"echo-{name}"))
        assert files[-1] is not None
        os.utime(files[-1], (0, 10**9 * 1.7))
    assert cli("prune").status == 0

    assert [file is not None and file.exists() for file in files] == [True, False]


def test_outage_of_the_service_does_not_end_the_follower(
    cli: Cli, run: JobRun, write: Write, emulator: Emulator, followed: Callable[..., list[float]]
) -> None:
    """An outage is reported once, and the read is repeated."""
    write("first")
    followed(*[nothing] * 30)
    emulator.faults.fail("LoggingServiceV2.ListLogEntries", times=2)
    typed = cli("logs", str(run.pk), "--follow")

    assert (typed.status, [line.split()[-1] for line in typed.lines]) == (0, ["first"])
    assert typed.err.count("Trying again.") == 1


@pytest.mark.parametrize("code", ["UNAVAILABLE", "PERMISSION_DENIED"])
def test_follower_that_gives_up_names_the_run(
    cli: Cli,
    run: JobRun,
    emulator: Emulator,
    followed: Callable[..., list[float]],
    monkeypatch: pytest.MonkeyPatch,
    code: str,
) -> None:
    """After some minutes, or at once: the run continues, and can be followed again."""
    monkeypatch.setattr(following, "SERVICE_TIMEOUT", 20.0)
    followed(*[nothing] * 40)
    emulator.faults.fail("LoggingServiceV2.ListLogEntries", code, times=None)
    typed = cli("logs", str(run.pk), "--follow")
    name = str(run.pk)[:8]

    assert (typed.status, f"Run {name} continues." in typed.err) == (2, True)
    assert typed.err.endswith(
        f"Run {name} continues. `manage.py cloudrun_jobs logs {name} --follow` follows it.\n"
    )


def test_clock_of_this_machine_does_not_matter(
    cli: Cli, run: JobRun, write: Write, followed: Callable[..., list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service's clock says which entries are new."""
    write("first")
    followed(*[nothing] * 12, lambda: write("late", after=1), *[nothing] * 12)
    ahead = timezone.now() + timedelta(hours=1)
    monkeypatch.setattr("django.utils.timezone.now", lambda: ahead)

    assert [line.split()[-1] for line in cli("logs", str(run.pk), "--follow").lines] == ["first", "late"]


def test_pages_are_read_when_they_are_due(
    run: JobRun, write: Write, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long log is written from its first page on; after an error, it continues where it was."""
    monkeypatch.setattr(entries, "PAGE_SIZE", 1)
    write("first")
    write("second", after=1)
    source = log_sources.source_of(run, LogQuery())
    assert source is not None
    emulator.calls.clear()
    found = iter(source.read(run))

    assert (next(found).text, emulator.calls["LoggingServiceV2.ListLogEntries"]) == ("first", 1)
    emulator.faults.fail("LoggingServiceV2.ListLogEntries")
    with pytest.raises(ServiceUnavailable):
        next(found)
    assert [entry.text for entry in source.read(run)] == ["second"]


@pytest.mark.parametrize(("overrides", "declared"), [({"tasks": 2}, 1), (None, 2)])
def test_tasks_are_shown_before_the_record_has_their_number(
    cli: Cli,
    options: dict[str, Any],
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    overrides: dict[str, int] | None,
    declared: int,
) -> None:
    """They are known from the request, or from the declaration."""
    monkeypatch.setattr(echo.Command, "tasks", declared, raising=False)
    run = record(status=Status.SENT, execution=EXECUTION, created_at=NOW, overrides=overrides)
    write("first")

    assert cli("logs", str(run.pk)).lines == ["03-20 12:00:00 INFO    [task 0] first"]


def test_unknown_task_exits_2(cli: Cli, run: JobRun) -> None:
    typed = cli("logs", str(run.pk), "--task=2")

    assert (typed.status, typed.err) == (2, "CommandError: --task: the run has the tasks 0 to 1, got 2.\n")
