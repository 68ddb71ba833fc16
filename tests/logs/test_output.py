"""On Cloud Run, a command's stdout and stderr write entries with the severities of its style."""

from __future__ import annotations

import fcntl
import io
import logging
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen
from threading import Thread
from typing import Any

import pytest
from celery.utils.log import LoggingProxy
from django.core.management import call_command
from django.core.management.color import Style
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.logs import output, styles
from tests.jobs.management.commands import echo
from tests.logs.reading import entries
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]


class Writer:
    """A command's stdout that writes to a file, and its style."""

    def __init__(self, path: Path, name: str = "stdout") -> None:
        self._path = path
        self._file = path.open("w", encoding="utf-8")
        self.stream = output.EntryStream(name, self._file)
        self.style: Any = styles.entry_style(echo.Command(no_color=True).style)

    def entries(self) -> list[dict[str, Any]]:
        self.stream.finish()
        return entries(self._path.read_text(encoding="utf-8"))

    def lines(self) -> list[tuple[str, str]]:
        return [(entry["severity"], entry["message"]) for entry in self.entries()]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    made = Writer(tmp_path / "out")
    yield made
    made._file.close()


STYLED: dict[str, Callable[[Style], Any]] = {
    "f-string": lambda style: f"<{style.WARNING('x')}>",
    "width": lambda style: f"<{style.WARNING('x'):>5}>",
    "format": lambda style: "<{}>".format(style.WARNING("x")),
    "percent": lambda style: "<%s>" % style.WARNING("x"),  # noqa: UP031
    "percent of two": lambda style: "%s %s" % (style.WARNING("x"), 1),  # noqa: UP031
    "percent of a dictionary": lambda style: "%(a)s" % {"a": style.WARNING("x")},  # noqa: UP031
    "sum": lambda style: "<" + style.WARNING("x") + ">",
    "template": lambda style: style.WARNING("%s rows") % 3,
    "template of format": lambda style: style.WARNING("{} rows").format(3),
    "join of lines": lambda style: "\n".join([style.WARNING("x"), "y"]),
    "join by a style": lambda style: style.WARNING(", ").join(["x", "y"]),
    "join of one": lambda style: ", ".join([style.WARNING("x")]),
    "unit": lambda style: f"{style.WARNING(5)}s",
    "Japanese": lambda style: f"{style.WARNING('失敗')}しました",
    "slice": lambda style: style.WARNING("xyz")[:2] + "!",
    "ljust": lambda style: style.WARNING("x").ljust(9) + "|",
    "within": lambda style: style.WARNING(style.SUCCESS("x")),
    "most severe": lambda style: f"{style.SUCCESS('a')} {style.WARNING('b')} {style.NOTICE('c')}",
    "plain within": lambda style: style.WARNING(style.SQL_KEYWORD("x")),
    "number": lambda style: style.WARNING(7),
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("make", STYLED.values(), ids=STYLED.keys())
def test_style_survives_formatting(writer: Writer, make: Callable[[Style], Any]) -> None:
    """The most severe part sets the severity, however the text was composed; the next line has the default."""
    text = make(writer.style)
    writer.stream.write(text)
    writer.stream.write(f"{text} again")
    writer.stream.write("then")

    lines = writer.lines()
    assert lines[0] == ("WARNING", "".join(text))
    assert lines[2] == ("INFO", "then")


def test_styled_text_is_plain(writer: Writer, capsys: pytest.CaptureFixture[str]) -> None:
    """A styled text that is not written as an entry is plain."""
    styled = writer.style.ERROR("bad")
    print(styled, f"{styled}")  # noqa: T201

    assert capsys.readouterr().out == "bad bad\n"
    assert styled == "bad"
    assert {styled: 1} == {"bad": 1}


def test_stored_styles_do_not_colour_other_lines(writer: Writer) -> None:
    """A styled text that is used later does not change lines that merely resemble it."""
    mark = writer.style.ERROR("E")
    writer.stream.write("Export started")
    writer.stream.write(f"{mark}: broken")
    writer.stream.write("Export ended")

    assert [severity for severity, _ in writer.lines()] == ["INFO", "ERROR", "INFO"]


@pytest.mark.parametrize(
    "make",
    [
        lambda style: style.ERROR("failed"),
        lambda style: style.ERROR("2"),
        lambda style: f"{style.ERROR('o')} rows",
        lambda style: f"{style.ERROR(1)} failed",
    ],
    ids=["made", "number", "within a word", "within a number"],
)
def test_text_that_is_not_written_decides_no_other_line(writer: Writer, make: Callable[[Style], Any]) -> None:
    """An unwritten styled text does not change a line that contains the same words, letters or digits."""
    made = make(writer.style)
    writer.stream.write("nothing failed of 210 rows, 2 wait")
    writer.stream.write(made)

    assert [severity for severity, _ in writer.lines()] == ["INFO", "ERROR"]


def test_texts_are_styled_until_they_are_written(writer: Writer) -> None:
    """Several texts may be formatted before the first is written; each sets the severity of one line."""
    made = [f"{writer.style.ERROR('x')} {number}" for number in range(3)]
    made.append(f"{writer.style.WARNING('a')} {writer.style.SUCCESS('x')}")
    for text in ["starts", *made, "x a"]:
        writer.stream.write(text)

    assert [severity for severity, _ in writer.lines()] == ["INFO", *["ERROR"] * 3, "WARNING", "INFO"]


def test_style_function_of_write(writer: Writer) -> None:
    """The style function sets the severity, as an argument and as an attribute."""
    writer.stream.write("a", writer.style.WARNING)
    writer.stream.write("b", str.upper)
    writer.stream.style_func = writer.style.SUCCESS
    writer.stream.write("c")

    assert writer.lines() == [("WARNING", "a"), ("INFO", "B"), ("NOTICE", "c")]


@given(st.lists(st.tuples(st.sampled_from(["a", "b c", "x\ny", "z\n", "\n", "", " ", "\r\n"]), st.booleans())))
def test_parts_are_joined_and_nothing_is_lost(tmp_path_factory: Any, parts: list[tuple[str, bool]]) -> None:
    """The messages are the written texts, in order, without blank lines and trailing line breaks."""
    writer = Writer(tmp_path_factory.mktemp("joined") / "out")
    for text, ends in parts:
        writer.stream.write(text, ending=None if ends else "")
        writer.stream.flush()
    written = "".join(text + ("\n" if ends and not text.endswith("\n") else "") for text, ends in parts)

    messages = [message for _, message in writer.lines()]
    assert "".join("".join(messages).split()) == "".join(written.split())
    assert not any(message.isspace() or message.strip("\r\n") != message for message in messages)
    writer._file.close()


def test_finished_streams_are_not_kept(writer: Writer) -> None:
    """A worker runs jobs for weeks."""
    writer.stream.write("begun", ending="")
    assert writer.stream in output._streams.values()
    writer.stream.finish()

    assert writer.stream not in output._streams.values()


def test_threads_do_not_join_each_others_parts(writer: Writer) -> None:
    """A line belongs to the thread that began it."""
    writer.stream.write("main ", ending="")
    thread = Thread(target=lambda: (writer.stream.write("thread ", ending=""), writer.stream.write("ends")))
    thread.start()
    thread.join()
    writer.stream.write("ends")

    assert writer.lines() == [("INFO", "thread ends"), ("INFO", "main ends")]


def test_values_other_than_text_are_written(writer: Writer) -> None:
    """Bytes and objects raise nothing."""
    writer.stream.write(b"Z\xfcrich")
    writer.stream.write(7)
    print("a", 1, file=writer.stream)

    assert writer.lines() == [("INFO", "Z\ufffdrich"), ("INFO", "7"), ("INFO", "a"), ("INFO", "1")]


def test_place_is_that_of_the_call(writer: Writer) -> None:
    """The source location is a line of the job, not of Django or of this package."""
    writer.stream.write("a", ending="")
    writer.stream.write("b")
    output.OutputWrapper(writer.stream).write("c")

    places = [entry["logging.googleapis.com/sourceLocation"] for entry in writer.entries()]
    assert {place["file"] for place in places} == {__file__}
    assert {place["function"] for place in places} == {"test_place_is_that_of_the_call"}


def test_stream_of_the_caller_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that a caller passes gets plain text, on Cloud Run too."""
    monkeypatch.setenv("CLOUD_RUN_EXECUTION", "echo-production-x7k2p")
    monkeypatch.setenv("ECHO_TO_STDOUT", "1")
    out, err = io.StringIO(), io.StringIO()
    call_command("outcome", "text", stdout=out, stderr=err)

    assert (out.getvalue(), err.getvalue()) == ("all done\n", "")


def test_worker_that_logs_its_output_writes_entries(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """In a worker, Celery replaces stdout with a logger; a job's output still has its own severity."""
    proxy = LoggingProxy(logging.getLogger("celery"), logging.WARNING)
    monkeypatch.setenv("CLOUD_RUN_WORKER_POOL", "workers")
    monkeypatch.setattr(sys, "stdout", proxy)
    command = echo.Command()
    command.stdout.write(command.style.SUCCESS("done"))
    monkeypatch.undo()

    assert isinstance(command.stdout, output.EntryStream)
    [entry] = entries(capfd.readouterr().out)
    assert (entry["severity"], entry["message"]) == ("NOTICE", "done")


def program(code: str) -> list[str]:
    """Return the command line of a process that runs the code after it has made `command`."""
    prelude = "import django; django.setup(); from tests.jobs.management.commands.speak import Command\n"
    return [sys.executable, "-c", f"{prelude}command = Command()\n{code}"]


def environment(**variables: str) -> dict[str, str]:
    """Return the variables of a container."""
    own = {"CLOUD_RUN_EXECUTION": "speak-x7k2p", "DJANGO_SETTINGS_MODULE": "tests.settings"}
    return {**os.environ, **own, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "", **variables}


def run(code: str, *, env: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    env = environment(**(env or {}))
    return subprocess.run(program(code), env=env, text=True, timeout=60, check=False, **options)


BROKEN = {
    "closed": "sys.stdout.close(); sys.stderr.close()",
    "closed descriptor": "os.close(1); os.close(2)",
    "no reader": "read, write = os.pipe(); os.dup2(write, 1); os.dup2(write, 2); os.close(read); os.close(write)",
    "none": "sys.stdout = sys.stderr = None; command = Command()",
    "full": "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)",
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN.keys())
def test_broken_output_raises_nothing(tmp_path: Path, change: str) -> None:
    """If the output is closed or broken, the job continues."""
    write = (
        "command.stdout.write('x' * 9000); command.stderr.write('x', command.style.ERROR); command.stdout.flush()"
    )
    code = f"import os, sys\n{change}\n{write}\nopen({str(tmp_path / 'done')!r}, 'w').close(); os._exit(0)"

    assert run(code).returncode == 0
    assert (tmp_path / "done").exists()


def test_order_of_prints_and_entries_is_kept() -> None:
    """The buffer of print() is written before an entry, and unfinished lines at the exit."""
    code = "print('one'); command.stdout.write('two'); print('three', end='')"
    code += "; command.stdout.write('four', ending='')"
    done = run(code)

    assert done.stdout.startswith("one\n")
    assert done.stdout.index("one") < done.stdout.index('"two"') < done.stdout.index("three")
    assert [entry["message"] for entry in entries(done.stdout)] == ["two", "four"]


def test_full_pipe_that_does_not_block_loses_nothing() -> None:
    """A write to a full pipe waits for the reader."""
    code = "import os; os.set_blocking(1, False)\nfor _ in range(40): command.stdout.write('x' * 100_000)"

    assert len(entries(run(code).stdout)) == 40


def test_a_terminal_stays_a_terminal() -> None:
    """On a terminal, the output is plain and coloured."""
    terminal, end = pty.openpty()
    run("command.stdout.write(command.style.SUCCESS('good'))", stdout=end, stderr=end, env={"TERM": "xterm"})
    os.close(end)

    assert os.read(terminal, 1000).decode().strip().endswith("good\x1b[0m")
    os.close(terminal)


@pytest.mark.parametrize("option", ["--force-color", "--no-color"])
@pytest.mark.usefixtures("process_database")
def test_colour_options_change_no_severity(option: str) -> None:
    """An entry has a severity instead of a colour."""
    code = f"command.run_from_argv(['manage.py', 'speak', '{option}'])"
    found = {entry["message"]: entry["severity"] for entry in entries(run(code).stdout)}

    assert (found["a success"], found["a warning in a text"]) == ("NOTICE", "WARNING")


@pytest.mark.usefixtures("process_database")
def test_error_of_a_command_is_reported_once() -> None:
    """Error Reporting gets the traceback of a CommandError, and what Django prints of it is a warning."""
    code = """
from tests.jobs.management.commands import outcome
outcome.Command().run_from_argv(['manage.py', 'outcome', 'command error'])
"""
    done = run(code)
    found = entries(done.stdout + done.stderr)
    reported = [entry for entry in found if entry["severity"] == "ERROR"]

    assert [entry["action"] for entry in reported] == ["job_finished"]
    assert reported[0]["stack_trace"].rstrip().endswith("CommandError: bad input")
    assert [entry["message"] for entry in found if entry["severity"] == "WARNING"] == ["CommandError: bad input"]


@pytest.mark.usefixtures("process_database")
def test_error_before_the_run_is_an_error() -> None:
    """Nothing else reports a CommandError without a run."""
    code = """
from tests.jobs.management.commands import outcome
import os; os.environ["CLOUDRUN_JOBS_RUN_ID"] = "no id"
outcome.Command().run_from_argv(['manage.py', 'outcome', 'none'])
"""
    done = run(code)

    assert [entry["severity"] for entry in entries(done.stdout + done.stderr)] == ["ERROR"]


LINES = """
import multiprocessing, signal, threading

def work(kind):
    own = Command()
    for number in range(21):
        own.stdout.write(f"{kind} {number} " + kind * (220_000 if number % 3 else 20))

children = [multiprocessing.get_context("fork").Process(target=work, args=(kind,)) for kind in "abc"]
[child.start() for child in children]
signal.signal(signal.SIGALRM, lambda *_: command.stdout.write("handler"))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
threads = [threading.Thread(target=work, args=(kind,)) for kind in "ef"]
[thread.start() for thread in threads]
work("d")
[thread.join() for thread in threads]
signal.setitimer(signal.ITIMER_REAL, 0)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
[child.join() for child in children]
"""


def test_lines_of_processes_threads_and_handlers_do_not_mix() -> None:
    """Lines of any length stay whole while processes, threads and handlers write to a full pipe."""
    reading, writing = os.pipe()
    with Popen(program(LINES), env=environment(), stdout=writing, stderr=subprocess.PIPE) as process:
        os.close(writing)
        wait_for(lambda: available(reading) > output.PIPE_BYTES // 2)
        written = b"".join(iter(lambda: os.read(reading, 4096), b""))
        assert process.stderr is not None
        assert process.stderr.read() == b""
    os.close(reading)

    lines = written.decode().splitlines()
    messages = [entry["message"] for entry in entries(written.decode())]
    assert len(messages) == len(lines)
    assert sum(message != "handler" for message in messages) == 6 * 21
    assert "handler" in messages


def available(fd: int) -> int:
    """Return the number of bytes in the pipe."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)
