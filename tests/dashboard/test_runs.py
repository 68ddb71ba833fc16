"""The page of a run: what it shows, and what it links to."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone, translation
from pytest_django import Settings

from cloudrun_jobs.argv.redaction import HIDDEN
from cloudrun_jobs.dashboard.runs import excerpts
from cloudrun_jobs.dashboard.runs.reasons import REASONS
from cloudrun_jobs.models import ItemChunk, ItemList, Status, TaskRun, Trigger
from cloudrun_jobs.runs import local_output, reruns
from cloudrun_jobs.spec.shares import Shares
from cloudrun_jobs.terminal import is_unsafe
from tests.dashboard.conftest import SignIn
from tests.dashboard.job_pages import page, text_of, url
from tests.dashboard.run_pages import ALL, record_run, record_task
from tests.docs.test_reference import documented

HOSTILE = "<script>alert('x')</script>\"'&amp;\x1b[2J\x00\u202eevil\u2066 {{ 7 }} {% csrf_token %}"
SEEN = "<script>alert('x')</script>\"'&amp;\\x1b[2J\\x00\\u202eevil\\u2066 {{ 7 }} {% csrf_token %}"
STORED = HOSTILE.replace("\x00", "\\x00")  # As the package stores text.
LONG = "<b>\u202e" * 2**13
MEGABYTE = LONG * 2**5


@pytest.fixture
def operator(sign_in: SignIn) -> Client:
    return sign_in(*ALL)


def raw(response: Any) -> str:
    content: str = response.content.decode()
    return content


def test_run_that_has_failed(operator: Client) -> None:
    """The page names the outcome, the reason in words, the error, the arguments and the times."""
    now = timezone.now()
    run = record_run(
        "echo",
        argv=["echo", "--partner=7", "two words"],
        status=Status.FAILED,
        reason="timeout",
        error_class="JobInterrupted",
        error_message="The job was interrupted at its timeout.",
        traceback="Traceback (most recent call last):\n  File",
        started_at=now - timedelta(minutes=3, seconds=12),
        finished_at=now,
        requested_by="mina",
        image="app:1",
        execution="echo-test-x7k2p",
        retried_count=2,
    )
    response = page(operator, "run", run.pk)
    text = text_of(response)

    assert "failed The attempt exceeded its timeout." in text
    assert "JobInterrupted The job was interrupted at its timeout." in text
    assert "echo --partner=7 'two words'" in text
    assert "Duration 3 min 12 s" in text
    assert "Requested by mina" in text
    assert "Image app:1" in text
    assert "Retries: 2" in text
    assert "Times are in Asia/Tokyo." in text
    assert '<details id="traceback-details">' in raw(response)
    assert f'href="{url("job", "echo")}"' in raw(response)
    assert '<div id="run">' in raw(response)


def test_run_that_is_running(operator: Client) -> None:
    """The page follows the events of the run, and shows its progress."""
    run = record_run(status=Status.RUNNING, started_at=timezone.now(), task_count=2)
    record_task(run, 0, progress_done=900, progress_total=1000, progress_text="rows")
    record_task(run, 1, progress_done=100, progress_total=3000)
    response = page(operator, "run", run.pk)

    assert f'<div id="run" data-live="{url("events", run.pk)}">' in raw(response)
    assert '<progress max="100" value="25"' in raw(response)
    assert "1,000 of 4,000, 25% rows" in text_of(response)


@pytest.mark.parametrize(
    ("done", "total", "expected"),
    [
        (5, None, '<progress aria-label="Progress"></progress> <bdi>5</bdi>'),
        (7, 0, '<progress max="100" value="100"'),
        (9, 3, '<progress max="100" value="100"'),
        (-9, 3, '<progress max="100" value="0"'),
        (2**62, 2**63 - 1, '<progress max="100" value="50"'),
    ],
)
def test_progress_of_any_size(operator: Client, done: int, total: int | None, expected: str) -> None:
    """The bar stays within its range; without a total it is indeterminate."""
    run = record_run(status=Status.RUNNING, started_at=timezone.now())
    record_task(run, 0, progress_done=done, progress_total=total)

    assert expected in raw(page(operator, "run", run.pk))


@pytest.mark.parametrize(
    "field", ["error_class", "error_message", "traceback", "image", "log_uri", "requested_by"]
)
def test_hostile_text_is_text(operator: Client, field: str) -> None:
    """Markup, control characters and overrides in any field are shown as text."""
    run = record_run(status=Status.FAILED, **{field: STORED[:200]})
    response = page(operator, "run", run.pk)

    assert not {character for character in raw(response) if is_unsafe(character)} - {"\n", "\t"}
    assert "<script>alert" not in raw(response)
    assert (SEEN in text_of(response)) == (field != "log_uri")


@pytest.mark.parametrize(
    "value",
    [
        {"result": STORED},
        {"result": {STORED: [STORED]}},
        {"argv": ["echo", f"--note={STORED}"]},
        {"overrides": {"env": {STORED: STORED}}},
        {"command": STORED[:150], "argv": [STORED]},
        {"queue": STORED[:63], "backend": STORED[:63], "execution": STORED[:100], "schedule": STORED},
        {"environment": STORED[:63]},
        {"reason": STORED[:40]},
    ],
)
def test_hostile_values_are_text(operator: Client, value: dict[str, Any]) -> None:
    """So are JSON values, with the names in them, and the identifiers of a record."""
    run = record_run(**value)
    content = raw(page(operator, "run", run.pk))

    assert not {character for character in content if is_unsafe(character)} - {"\n", "\t"}
    assert "<script>alert" not in content
    assert "\\u202e" in content or "reason" in value
    assert raw(operator.get(url("runs"))).count("<script>alert") == 0


@pytest.mark.parametrize("value", ["\ud800", "", None, [], {}, 0, 1e308, False, [[[[[[[[[[]]]]]]]]]], "null"])
def test_any_result_is_shown(operator: Client, value: Any) -> None:
    """Lone surrogates, empty values, numbers and nesting do not break the page."""
    run = record_run(result=value)

    assert page(operator, "run", run.pk)


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 5000 + "]" * 5000, "NaN", '{"a": 1e999}', "9" * 5000, "{"])
def test_results_that_python_cannot_decode(text: str) -> None:
    """JSON text that is too deep or invalid is shown as it is."""
    assert excerpts.readable(text) in {text, '{\n  "a": Infinity\n}'}


@pytest.mark.parametrize(
    ("values", "field", "identifier"),
    [
        ({"error_message": MEGABYTE, "status": "failed"}, "error", "error"),
        ({"traceback": LONG, "status": "failed"}, "traceback", "traceback"),
        ({"result": LONG}, "result", "result"),
        ({"result": [LONG]}, "result", "result"),
        ({"argv": ["echo", LONG]}, "arguments", "arguments"),
        ({"overrides": {"env": {"NOTE": LONG}}}, "overrides", "overrides"),
        ({"image": LONG}, "image", "image"),
    ],
)
def test_rest_of_a_long_text_is_a_link(
    operator: Client, values: dict[str, Any], field: str, identifier: str
) -> None:
    """The page has the first 2,000 characters of a megabyte; the rest is plain text that no browser runs."""
    run = record_run(**values)
    response = page(operator, "run", run.pk)
    whole = operator.get(url("text", run.pk, field))

    assert f'<a id="{identifier}-rest" href="{url("text", run.pk, field)}">' in raw(response)
    assert len(response.content) < 120_000
    assert whole.status_code == 200
    assert whole["Content-Type"] == "text/plain; charset=utf-8"
    assert (whole["X-Content-Type-Options"], whole["Content-Disposition"]) == (
        "nosniff",
        f'inline; filename="{field}.txt"',
    )
    assert whole.content.decode().count("<b>\\u202e") in {2**13, 2**18}


def test_result_is_indented(operator: Client) -> None:
    """A result is readable: JSON is indented, and text is text."""
    found = raw(page(operator, "run", record_run(result={"a": [1, "日本"]}).pk))
    text = raw(page(operator, "run", record_run(result="two\nlines").pk))

    assert "{\n  &quot;a&quot;: [\n    1,\n    &quot;日本&quot;\n  ]\n}" in found
    assert ">two\nlines</bdi>" in text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["\x1b\x1b"], '"\\x1b\\x1b"'),
        (["\\\x1b"], '"\\\\\\x1b"'),
        (["\\u001b"], '"\\\\u001b"'),
        (["\x7f\u202e"], '"\\x7f\\u202e"'),
    ],
)
def test_control_characters_in_values(operator: Client, value: Any, expected: str) -> None:
    """They have one form, in JSON as elsewhere."""
    assert expected in text_of(page(operator, "run", record_run(result=value).pk))


def test_tasks_that_the_service_counts(operator: Client) -> None:
    """A task that Cloud Run reports has started, even if its container recorded nothing."""
    run = record_run(task_count=3, succeeded_count=1, failed_count=1, status=Status.FAILED)

    assert "1 task has not started." in text_of(page(operator, "run", run.pk))


def test_secrets_stay_hidden(operator: Client) -> None:
    """Pages, events and the command mask redacted arguments, and variables that are named like secrets."""
    run = record_run(
        argv=["echo", f"--token={HIDDEN}"],
        overrides={"env": {"API_TOKEN": "hunter2", "NOTE": "plain"}, "tasks": 2},
    )
    response = page(operator, "run", run.pk)
    whole = operator.get(url("text", run.pk, "overrides"))
    events = b"".join(operator.get(url("events", run.pk)))
    text, data = StringIO(), StringIO()
    call_command("cloudrun_jobs", "show", str(run.pk), stdout=text, stderr=StringIO())
    call_command("cloudrun_jobs", "show", str(run.pk), "--json", stdout=data)

    assert HIDDEN in text_of(response)
    assert "plain" in text_of(response)
    everywhere = raw(response) + raw(whole) + events.decode() + text.getvalue() + data.getvalue()
    assert ("hunter2" in everywhere, everywhere.count("NOTE")) == (False, 5)
    assert 'id="rerun"' not in raw(response)


@pytest.mark.parametrize(
    "field", ["nothing", "argv", "idempotency_key", "task-0-error", "task-0-traceback", "task-99999999999-error"]
)
def test_unknown_text_is_not_found(operator: Client, field: str) -> None:
    """Only the texts that a page shows have a page of their own."""
    run = record_run(idempotency_key="k")

    assert operator.get(url("text", run.pk, field)).status_code == 404
    assert operator.get(url("text", uuid4(), "error")).status_code == 404


def test_run_without_a_record(operator: Client) -> None:
    """A deleted run is a page that says so."""
    response = operator.get(url("run", uuid4()))

    assert (response.status_code, "It may have been deleted." in text_of(response)) == (404, True)


def test_failed_tasks_come_first(operator: Client) -> None:
    """Of 250 tasks a page has 100, the failed ones first, each with its error and a link to the rest of it."""
    run = record_run(tasks=250, status=Status.FAILED)
    TaskRun.objects.filter(run=run, index=240).update(
        status=Status.FAILED, reason="exit_code", error_class="ValueError", error_message=LONG, exit_code=3
    )
    pages = [raw(page(operator, "run", run.pk, query=f"?tasks={number}")) for number in (1, 2, 3)]
    shown = [[int(index) for index in re.findall(r'<tr id="task-(\d+)"', content)] for content in pages]

    assert shown == [[240, *range(99)], [*range(99, 199)], [*range(199, 240), *range(241, 250)]]
    assert "The job exited with a non-zero status." in pages[0]
    assert f'href="{url("text", run.pk, "task-240-error")}"' in pages[0]
    assert operator.get(url("text", run.pk, "task-240-error")).content.decode().startswith("<b>\\u202e<b>")
    assert ("tasks=3" in pages[1], "tasks=4" in pages[2]) == (True, False)


@pytest.mark.parametrize("number", ["0", "-1", "x", "99999999999999999999", "٣", "9999", ""])
def test_invalid_page_of_tasks(operator: Client, number: str) -> None:
    """Any number of a page is answered."""
    run = record_run(tasks=1)

    assert page(operator, "run", run.pk, query=f"?tasks={number}")


def test_number_of_queries_is_constant(operator: Client) -> None:
    """A run of 500 tasks needs the queries of a run of one task."""
    runs = [record_run(tasks=count, status=Status.FAILED, items_total=3) for count in (1, 500)]
    TaskRun.objects.filter(run__in=runs).update(status=Status.FAILED, progress_done=1, error_message="no")
    counts = [len(queries_of(operator, url("run", run.pk))) for run in runs]

    assert counts[0] == counts[1]


def queries_of(client: Client, address: str) -> list[str]:
    """Return the queries that a page makes of the records."""
    with CaptureQueriesContext(connection) as queries:
        assert client.get(address).status_code == 200
    return [query["sql"] for query in queries if "cloudrun_jobs_" in query["sql"]]


@pytest.mark.parametrize("address", ["cloudrun_jobs:dashboard_run", "admin:cloudrun_jobs_jobrun_change"])
@pytest.mark.parametrize(
    "values",
    [
        {"status": Status.SUCCEEDED},
        {"status": Status.RUNNING, "items_total": 60},
        {"status": Status.FAILED},
        {"status": Status.FAILED, "items_total": 60},
        {"status": Status.SUCCEEDED, "items_total": 60},
        {"status": Status.FAILED, "elements": 30},
        {"status": Status.FAILED, "elements": 30, "items_total": 60, "is_rerun": True},
    ],
)
def test_at_most_eight_queries(operator: Client, values: dict[str, Any], address: str) -> None:
    """The page of any run makes at most eight, and reads no tasks but those that it shows."""
    is_rerun = values.get("is_rerun", False)
    first = record_run(tasks=30, **{name: value for name, value in values.items() if name != "is_rerun"})
    shares = {
        "rerun_of": first,
        "shares": Shares(first.pk, 30, tuple(range(30))).encode(),
        "status": Status.FAILED,
    }
    again = record_run(tasks=30, **shares)
    claimed = ItemList.objects.create(run=first, kind="claim", number=0, count=60, writer=uuid4())
    chunk = {"list": claimed, "size": 1, "items": [1], "status": "failed"}
    ItemChunk.objects.bulk_create(ItemChunk(start=start, **chunk) for start in range(30))
    TaskRun.objects.update(status=Status.FAILED, argv=["echo"])
    queries = queries_of(operator, reverse(address, args=[again.pk if is_rerun else first.pk]))

    assert len(queries) <= 8
    assert all("LIMIT" in sql for sql in queries if 'FROM "cloudrun_jobs_taskrun"' in sql and "SUM(" not in sql)


def test_rerun_reads_only_arguments_of_elements() -> None:
    """The errors of thousands of tasks are not loaded to repeat those that failed."""
    run = record_run(status=Status.FAILED, elements=2, tasks=2)
    TaskRun.objects.update(status=Status.FAILED, argv=["echo", "x"], error_message=LONG)
    with CaptureQueriesContext(connection) as queries:
        again = reruns.repeat_failed(run, task_parallelism=1, runs_in_process=True)

    assert again.elements == [("echo", "x")] * 2
    assert not [query["sql"] for query in queries if 'taskrun"."error_message"' in query["sql"]]


def test_items_of_the_run(operator: Client) -> None:
    """The page counts the items of `claim()`, and lists the failed ones."""
    run = record_run(status=Status.FAILED, reason="items", items_total=3)
    claimed = ItemList.objects.create(run=run, kind="claim", number=0, count=3, writer=uuid4())
    ItemChunk.objects.create(list=claimed, start=0, size=2, items=[1, 2], cursor=1)
    failed = {"status": "failed", "error_class": "ValueError", "error_message": STORED}
    ItemChunk.objects.create(list=claimed, start=2, size=1, items=[{"id": STORED}], **failed)
    response = page(operator, "run", run.pk)

    assert "Done 1 Failed 1 Left 1" in text_of(response)
    assert '{"id": "' in text_of(response)
    assert SEEN in text_of(response)
    assert "<script>alert" not in raw(response)


def test_elements_have_their_arguments(operator: Client) -> None:
    """The tasks of `delay_many()` show arguments of their own."""
    run = record_run(elements=2, task_count=2)
    record_task(run, 0, argv=["echo", "--partner=7"])
    record_task(run, 1, argv=["echo", STORED], status=Status.PENDING)
    text = text_of(page(operator, "run", run.pk))

    assert "echo --partner=7" in text
    assert "\\u202eevil" in text


def test_result_of_a_task(operator: Client) -> None:
    """Results that are too long for the run are pages of the tasks."""
    run = record_run(task_count=2)
    record_task(run, 0, result={"rows": 3}, status=Status.SUCCEEDED)
    target = url("text", run.pk, "task-0-result")

    assert f'href="{target}"' in raw(page(operator, "run", run.pk))
    assert json.loads(operator.get(target).content) == {"rows": 3}


@pytest.mark.parametrize(
    ("execution_name", "log_uri", "links"),
    [
        (
            "projects/acme/locations/asia-northeast1/jobs/echo-test/executions/echo-test-x7",
            "https://console.cloud.google.com/logs",
            [
                "https://console.cloud.google.com/run/jobs/executions/details/asia-northeast1/echo-test-x7?project=acme",
                "https://console.cloud.google.com/logs",
            ],
        ),
        ("", "", []),
        ("projects/acme", "javascript:alert(1)", []),
        ("projects/acme", f"https://example.com/{'x' * 2000}", []),
        (
            'projects/a"b/locations/c/jobs/d/executions/e>f',
            "data:text/html,x",
            ["https://console.cloud.google.com/run/jobs/executions/details/c/e%3Ef?project=a%22b"],
        ),
    ],
)
def test_links_to_the_console(operator: Client, execution_name: str, log_uri: str, links: list[str]) -> None:
    """The execution and its logs are linked, and nothing that is no address of the web."""
    run = record_run(execution_name=execution_name, log_uri=log_uri)

    assert re.findall(r'href="([^"]*)" rel="noreferrer"', raw(page(operator, "run", run.pk))) == links


@pytest.mark.parametrize(
    ("values", "is_linked"),
    [
        ({"execution": "echo-production-x7k2p"}, True),
        ({"execution": "echo-production-abcdef"}, False),
        ({"execution": None}, False),
        ({"execution": "x", "backend": "gone"}, False),
    ],
)
def test_execution_that_a_schedule_started(
    operator: Client,
    cloud: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    values: dict[str, Any],
    is_linked: bool,
) -> None:
    """It is known by its short name alone, and linked unless it ran on this machine, or its backend is gone."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    local_output.Recorder("echo-production-abcdef").close()
    content = raw(page(operator, "run", record_run("echo", **values).pk))

    assert ("run/jobs/executions/details/" in content) == is_linked


@pytest.mark.parametrize("command", ["gone", "migrate", "a/b", "日本"])
def test_run_of_a_command_that_is_gone(operator: Client, command: str) -> None:
    """A run whose command is no job any more is shown, and not repeated."""
    run = record_run(command, status=Status.FAILED)
    response = page(operator, "run", run.pk)

    assert "no longer a job of this project" in text_of(response)
    assert f'href="{url("job", command)}"' in raw(response)
    assert 'id="rerun"' not in raw(response)


@pytest.mark.parametrize(
    ("permissions", "status", "seen"),
    [
        (("view_jobrun",), Status.RUNNING, set()),
        (("view_jobrun", "run_job"), Status.RUNNING, set()),
        (("view_jobrun", "cancel_job"), Status.RUNNING, {"cancel"}),
        (("view_jobrun", "cancel_job"), Status.FAILED, set()),
        (("view_jobrun", "run_job"), Status.FAILED, {"rerun", "rerun-failed"}),
        (("view_jobrun", "run_job"), Status.SUCCEEDED, {"rerun"}),
    ],
)
def test_actions_that_can_work_are_shown(
    sign_in: SignIn, permissions: tuple[str, ...], status: Status, seen: set[str]
) -> None:
    """A page shows the actions that its user may carry out, and that the run allows."""
    run = record_run(status=status, tasks=1)
    TaskRun.objects.filter(run=run).update(status=status)

    assert {*re.findall(r'<form .*?id="([\w-]+)-form"', raw(page(sign_in(*permissions), "run", run.pk)))} == seen


def test_reruns_are_linked(operator: Client) -> None:
    """A run links to the run whose failed tasks it repeats, and that one to it."""
    first = record_run(status=Status.FAILED)
    second = record_run(rerun_of=first)

    assert f'id="rerun-of" href="{url("run", first.pk)}"' in raw(page(operator, "run", second.pk))
    assert f'href="{url("run", second.pk)}"' in raw(page(operator, "run", first.pk))


def test_reasons_are_explained() -> None:
    """The pages explain each reason that the reference documents."""
    names = documented("reference/statuses.md")

    assert {*REASONS} == names - ({*Status.values, *Trigger.values} - {"failed", "cancelled"})


def test_page_in_another_language(operator: Client, settings: Settings) -> None:
    """Numbers in attributes and URLs are not localised."""
    settings.USE_THOUSAND_SEPARATOR = True
    run = record_run(status=Status.RUNNING, started_at=timezone.now(), task_count=2000)
    record_task(run, 1500, progress_done=1500, progress_total=3000)
    with translation.override("de"):
        content = raw(operator.get(url("run", run.pk), headers={"accept-language": "de"}))

    assert 'id="task-1500"' in content
    assert 'value="50"' in content
