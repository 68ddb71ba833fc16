"""The lines that the command line prints about executions, tasks, deliveries and calls."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.emulator.clients import Clients
from cloudrun_jobs.emulator.engine.outcomes import Kind, Outcome
from cloudrun_jobs.emulator.events import AttemptEnded, CallFailed, Delivered, ExecutionEnded, ExecutionStarted
from cloudrun_jobs.emulator.http_delivery import Result
from cloudrun_jobs.emulator.logs.store import Entry
from cloudrun_jobs.emulator.terminal import Formatter, Line, escape, has_colours, is_shown
from tests.emulator.cloud import PLACE, eventually, job, script
from tests.emulator.test_cli import COMMAND, ROOT, serving

NAME = f"{PLACE}/jobs/report/executions/report-ab12c"
TICK, TASK = f"{PLACE}/jobs/tick", f"{PLACE}/queues/mail/tasks/7"
COUNTS = {"succeeded": 0, "failed": 0, "cancelled": 0, "retried": 0}
SUCCEEDED, FAILED = Outcome(Kind.SUCCEEDED), Outcome(Kind.EXITED, 3)


def formatted(*events, now=0.0):
    """Return the lines for these events, in order."""
    formatter = Formatter()
    return [f"{line.subject}  {line.text}" for event in events for line in formatter.lines(event, now)]


def output(payload, log="stdout", severity=0, **fields):
    """Return a log entry of the first task."""
    entry = Entry(log_name=f"projects/acme/logs/run.googleapis.com%2F{log}", severity=severity, **fields)
    entry.resource.type = "cloud_run_job"
    entry.labels["run.googleapis.com/execution_name"] = "report-ab12c"
    entry.labels["run.googleapis.com/task_index"] = "0"
    if isinstance(payload, str):
        entry.text_payload = payload
    else:
        entry.json_payload.update(payload)
    return entry


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (ExecutionStarted(NAME, 1), "report-ab12c  started: 1 task"),
        (ExecutionStarted(NAME, 1000), "report-ab12c  started: 1000 tasks"),
        (AttemptEnded(NAME, 0, 0, SUCCEEDED, False), "report-ab12c  task 0 succeeded: exit code 0"),
        (AttemptEnded(NAME, 0, 1, SUCCEEDED, False), "report-ab12c  task 0 (attempt 2) succeeded: exit code 0"),
        (AttemptEnded(NAME, 2, 0, FAILED, False), "report-ab12c  task 2 failed: exit code 3"),
        (AttemptEnded(NAME, 2, 0, FAILED, True), "report-ab12c  task 2 (attempt 1) failed: exit code 3; retrying"),
        (AttemptEnded(NAME, 0, 0, Outcome(Kind.EXITED, -9), False), "report-ab12c  task 0 failed: signal 9"),
        (AttemptEnded(NAME, 0, 0, Outcome(Kind.EXITED, -35), False), "report-ab12c  task 0 failed: signal 35"),
        (AttemptEnded(NAME, 0, 0, Outcome(Kind.TIMED_OUT, -15), False), "report-ab12c  task 0 failed: timed out"),
        (
            AttemptEnded(NAME, 0, 0, Outcome(Kind.OUT_OF_MEMORY), False),
            "report-ab12c  task 0 failed: out of memory",
        ),
        (AttemptEnded(NAME, 0, 0, Outcome(Kind.CANCELLED), False), "report-ab12c  task 0 cancelled"),
        (
            AttemptEnded(NAME, 0, 0, Outcome(Kind.INFRASTRUCTURE), True),
            "report-ab12c  task 0 (attempt 1) failed: infrastructure; retrying",
        ),
        (
            ExecutionEnded(NAME, "succeeded", 2.04, COUNTS | {"succeeded": 1}, "Execution completed."),
            "report-ab12c  succeeded in 2.0 s: 1 task succeeded",
        ),
        (
            ExecutionEnded(
                NAME, "failed", 61, {"succeeded": 2, "failed": 1, "cancelled": 0, "retried": 3}, "Task…"
            ),
            "report-ab12c  failed in 61.0 s: 2 tasks succeeded, 1 failed, 3 retried",
        ),
        (
            ExecutionEnded(NAME, "failed", 0, COUNTS, "Image 'app' not found."),
            "report-ab12c  failed in 0.0 s: Image 'app' not found.",
        ),
        (
            ExecutionEnded(NAME, "cancelled", 1, COUNTS, "Cancelled."),
            "report-ab12c  cancelled in 1.0 s: 0 tasks started",
        ),
        (Delivered(TICK, "POST", "http://a/", Result.of(204)), "tick  delivered: POST http://a/ 204"),
        (Delivered(TICK, "POST", "http://a/", Result.of(503)), "tick  delivery failed: POST http://a/ 503"),
        (
            Delivered(TASK, "GET", "http://a/", Result(0, "UNAVAILABLE", "Connection refused")),
            "mail/7  delivery failed: GET http://a/ UNAVAILABLE Connection refused",
        ),
        (CallFailed("Jobs.GetJob", "NOT_FOUND", "No job."), "Jobs.GetJob  NOT_FOUND: No job."),
        (output("hello"), "report-ab12c  task 0 | hello"),
        (output({"message": "hello", "partner": 7}, severity=400), "report-ab12c  task 0 | WARNING hello"),
        (output({"partner": 7}), 'report-ab12c  task 0 | {"partner": 7.0}'),
    ],
)
def test_event_has_line(event, line):
    """Each event is one line, of the short id and what happened."""
    assert formatted(event) == [line]


def test_error_of_the_platform_precedes_the_end_of_the_task():
    """A command that does not exist is named, not only its exit code."""
    error = output("Application failed to start: no such file", "varlog%2Fsystem", 500)
    ended = AttemptEnded(NAME, 0, 0, Outcome(Kind.EXITED, 127), False)

    assert formatted(ExecutionStarted(NAME, 1), error, ended)[1:] == [
        "report-ab12c  task 0: Application failed to start: no such file",
        "report-ab12c  task 0 failed: exit code 127",
    ]


def test_large_execution_has_few_lines():
    """Of 1 000 tasks, only the first failures have lines, and each tenth has one."""
    ended = [AttemptEnded(NAME, index, 0, FAILED if index % 20 else SUCCEEDED, False) for index in range(1000)]
    lines = formatted(ExecutionStarted(NAME, 1000), *ended)

    assert len(lines) == 1 + 10 + 1 + 9
    assert lines[1] == "report-ab12c  task 1 failed: exit code 3"
    assert lines[11] == "report-ab12c  further lines about its tasks are left out"
    assert lines[-1] == "report-ab12c  900 of 1000 tasks finished, 855 failed"


def test_successes_of_a_large_execution_leave_room_for_a_failure():
    """A failure after many successes still has its line."""
    ended = [AttemptEnded(NAME, index, 0, SUCCEEDED, False) for index in range(18)]
    failed = AttemptEnded(NAME, 18, 0, FAILED, False)

    assert formatted(ExecutionStarted(NAME, 20), *ended, failed)[1:] == [
        "report-ab12c  10 of 20 tasks finished",
        "report-ab12c  task 18 failed: exit code 3",
    ]


@pytest.mark.parametrize(
    "event",
    [CallFailed("Jobs.GetJob", "NOT_FOUND", "No job."), Delivered(TASK, "POST", "http://a/", Result.of(200))],
)
def test_repeated_events_are_left_out(event):
    """Of many events of one kind, the first ten have lines, and the tenth says that more are left out."""
    lines = formatted(*[event] * 50)

    assert len(lines) == 10
    assert lines[-1] == f"{lines[0]} (more of the kind are left out for some seconds)"


def test_repeated_events_are_shown_again_later():
    """Ten seconds later, events of the kind have lines again."""
    formatter, event = Formatter(), CallFailed("Jobs.GetJob", "NOT_FOUND", "No job.")
    early = [line for _ in range(50) for line in formatter.lines(event, 0.0)]

    assert len(early) == 10
    assert len(list(formatter.lines(event, 10.0))) == 1


@pytest.mark.parametrize(
    ("entry", "quiet", "verbose"),
    [
        (output("hello"), False, True),
        (output("hello", "stderr", 500), False, True),
        (output("Container called exit(0).", "varlog%2Fsystem", 200), False, False),
        (output("Application failed to start", "varlog%2Fsystem", 500), True, True),
        (Entry(log_name="projects/acme/logs/own", text_payload="of a client"), False, False),
    ],
    ids=["stdout", "stderr", "information", "error", "client"],
)
def test_entries_that_have_lines(entry, quiet, verbose):
    """The platform's errors are shown, with --verbose also the output of tasks, but no entry of a client."""
    assert (is_shown(entry, verbose=False), is_shown(entry, verbose=True)) == (quiet, verbose)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("10%\r20%", "10%\\r20%"),
        ("a\nb", "a\\nb"),
        ("\x9b2J", "\\x9b2J"),
        ("user\u202etxt.exe", "user\\u202etxt.exe"),
        ("\ud800", "\\ud800"),
        ("zażółć\tgęślą 東京 👩‍🚀", "zażółć\tgęślą 東京 👩‍🚀"),
    ],
)
def test_control_characters_are_escaped(text, shown):
    """What could control the terminal is shown as an escape sequence; other text stays."""
    assert escape(text) == shown


@given(st.text(), st.text())
def test_line_is_one_line_without_control_characters(subject, text):
    """Whatever the text, it is one line, and the only control characters are those of colours."""
    plain = Line(subject, text).render("12:00:00", colours=False)

    assert plain.endswith("\n")
    assert all(character.isprintable() or ord(character) >= 0xA0 or character == "\t" for character in plain[:-1])


@pytest.mark.parametrize(
    ("environ", "colours"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_of_a_terminal(environ, colours):
    """A terminal has colours, unless the environment says no."""
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as stream:
        found = has_colours(stream, environ)
    os.close(leader)

    assert found is colours


def test_pipe_has_no_colours(tmp_path):
    """A file or a pipe gets no colours."""
    with (tmp_path / "log").open("w") as stream:
        assert not has_colours(stream, {})


def run_work(address, declared):
    """Create and run a job, and return the short id of its execution when it is done."""
    clients = Clients(address)
    name = clients.jobs.create_job(parent=PLACE, job=declared, job_id="work").result().name
    execution = clients.jobs.run_job(name=name).metadata.name
    eventually(lambda: clients.executions.get_execution(name=execution).completion_time)
    clients.close()
    return execution.rpartition("/")[2]


def without_times(path, count):
    """Return the lines of a file without their times, when there are so many."""
    text = eventually(lambda: (text := path.read_text()).count("\n") >= count and text)
    return [line.partition("  ")[2] for line in text.splitlines()]


def test_process_prints_executions_calls_and_end(tmp_path):
    """The process writes lines to stderr, nothing more to stdout, and a last line when it is stopped."""
    log = tmp_path / "log"
    with log.open("w") as stderr, serving("--verbose", stderr=stderr) as (process, addresses):
        name = run_work(addresses["grpc"], script("echo out; sleep 0.1; printf '\\033[2J' >&2; exit 3"))
        requests.get(f"{addresses['http']}/v2/{PLACE}/nothing", timeout=10)
        without_times(log, 6)
        process.send_signal(signal.SIGINT)

        assert process.wait(timeout=20) == 0
        assert process.stdout.read() == ""

    started, *written, failed, ended, call, last = without_times(log, 7)

    assert started == f"{name}  started: 1 task"
    assert written == [f"{name}  task 0 | out", f"{name}  task 0 | \\x1b[2J"]
    assert failed == f"{name}  task 0 failed: exit code 3"
    assert ended.startswith(f"{name}  failed in 0.")
    assert call.startswith(f"GET /v2/{PLACE}/nothing  UNIMPLEMENTED: The emulator does not serve GET ")
    assert last == "Stopping"


def test_process_prints_cancelled_work_and_deliveries(tmp_path):
    """Cloud Scheduler's deliveries have lines, and the last line counts the executions that it kills."""
    log = tmp_path / "log"
    with log.open("w") as stderr, serving(stderr=stderr) as (process, addresses):
        clients = Clients(addresses["grpc"])
        clients.jobs.create_job(parent=PLACE, job=job("sleep", "60"), job_id="work").result()
        url = f"https://run.googleapis.com/v2/{PLACE}/jobs/work:run"
        target = {"uri": url, "oauth_token": {"service_account_email": "a@acme.iam.gserviceaccount.com"}}
        tick = {"name": TICK, "schedule": "0 0 1 1 *", "http_target": target}
        clients.scheduler.create_job(parent=PLACE, job=tick)
        clients.scheduler.run_job(name=TICK)
        lines = without_times(log, 2)
        clients.close()
        process.send_signal(signal.SIGTERM)

        assert process.wait(timeout=20) == 0

    assert lines[1] == f"tick  delivered: POST {url} 200"
    assert without_times(log, 3)[-1] == "Stopping, and killing 1 unfinished execution"


def test_closed_pipe_does_not_stop_emulator():
    """Without a reader of its output, the emulator goes on, and ends with exit status 0."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stderr, serving(stderr=stderr) as (process, addresses):
        run_work(addresses["grpc"], job("true"))
        run = requests.get(f"{addresses['http']}/v2/{PLACE}/jobs/work", timeout=10)
        process.send_signal(signal.SIGINT)

        assert run.json()["executionCount"] == 1
        assert process.wait(timeout=20) == 0


def test_stopped_terminal_does_not_stop_emulator():
    """While the terminal is stopped, as by Ctrl-S, executions go on, and a signal still ends the emulator."""
    leader, follower = pty.openpty()
    termios.tcflow(follower, termios.TCOOFF)
    with os.fdopen(follower, "w") as stderr, serving("--verbose", stderr=stderr) as (process, addresses):
        run_work(addresses["grpc"], script("seq 20000"))
        process.send_signal(signal.SIGINT)

        assert process.wait(timeout=20) == 0

    os.close(leader)


def test_process_without_stderr():
    """The emulator serves if its stderr is closed."""
    command = ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", *COMMAND]
    with serving(command=command) as (process, addresses):
        run_work(addresses["grpc"], job("true"))
        process.send_signal(signal.SIGINT)

        assert process.wait(timeout=20) == 0


def test_emulator_in_a_test_prints_nothing(tmp_path):
    """Only the command line prints: an `Emulator` writes nothing to stdout or stderr."""
    program = (
        "from cloudrun_jobs.emulator import Emulator\n"
        "from tests.emulator.cloud import Cloud, job\n"
        "with Emulator() as emulator: Cloud(emulator).finish(job('false'))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
