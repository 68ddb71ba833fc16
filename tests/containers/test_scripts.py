"""The container's scripts, run as the first process of a PID namespace: as in a container, without one.

Inside, the user is the image's; nginx and Django are real, the project is a stand-in.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO
from urllib.parse import quote

import pytest

from tests.containers.web import answers, free_port, get, refuses
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
ENTRYPOINT = ROOT / "docker/server/entrypoint.sh"
PROJECT = Path(__file__).parent / "project"
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
CONTAINED = [
    *("unshare", "--user", "--map-user=10001", "--map-group=10001"),
    *("--pid", "--fork", "--kill-child", "--mount-proc"),
]

Start = Callable[..., "Contained"]
Serve = Callable[..., tuple["Contained", str]]
Hold = Callable[[str], tuple[Future[tuple[int, str, str]], IO[bytes]]]


class Contained:
    """The entrypoint in a PID namespace of its own."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._outside = subprocess.Popen(
            [*CONTAINED, str(ENTRYPOINT), *arguments],
            cwd=PROJECT,
            env={"PATH": PATH, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def readline(self) -> str:
        assert self._outside.stdout is not None
        return self._outside.stdout.readline()

    def terminate(self) -> None:
        """Signal the namespace's first process, as Cloud Run does."""
        os.kill(self._first(), signal.SIGTERM)

    def running(self, name: str) -> int | None:
        """Return the pid, as seen from here, of the first process's child that runs this program, or None.

        Not 0, which to `os.kill` is the whole group of the caller.
        """
        return next((pid for pid in _children(self._first()) if _is(pid, name)), None)

    def end(self, *, seconds: float = 30) -> tuple[int, str]:
        """Wait for it, and return the exit code and what is left of the output."""
        output, _ = self._outside.communicate(timeout=seconds)
        return self._outside.returncode, output

    def kill(self) -> None:
        self._outside.kill()
        self._outside.communicate()

    def _first(self) -> int:
        return wait_for(lambda: _children(self._outside.pid))[0]


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is(pid: int, program: str) -> bool:
    """Look at the whole command line: from a path with a space, a script's process is called python."""
    return program in Path(f"/proc/{pid}/cmdline").read_text()


@pytest.fixture(scope="session")
def _namespaces() -> None:
    tried = shutil.which("unshare") and subprocess.run(
        [*CONTAINED, "true"], capture_output=True, text=True, check=False
    )
    if not tried or tried.returncode:
        pytest.skip(f"This machine gives no PID namespace: {tried.stderr if tried else 'no unshare'}")


@pytest.fixture
def start(_namespaces: None, process_database: Path) -> Iterator[Start]:
    """Start the entrypoint; kill at the end what a failed test left."""
    started: list[Contained] = []

    def start(*arguments: str, **environment: str) -> Contained:
        started.append(Contained(*arguments, TESTS_DATABASE=str(process_database), **environment))
        return started[-1]

    yield start
    for contained in started:
        contained.kill()


@pytest.mark.parametrize("code", [0, 7])
def test_job_gets_sigterm_itself(start: Start, code: int) -> None:
    """The job's Python is the process that Cloud Run signals: it gets SIGTERM, and its exit code is kept."""
    job = start("leave", "--at-sigterm", str(code))

    assert job.readline() == "pid 1\n"

    job.terminate()
    ended_with, output = job.end()

    assert ended_with == code
    assert "got SIGTERM\n" in output


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_code_is_kept(start: Start, code: int) -> None:
    """What the job's process ends with, the container ends with."""
    ended_with, _ = start("leave", str(code)).end()

    assert ended_with == code


@pytest.mark.parametrize("name", ["no_such_job", ""])
def test_unknown_command_fails(start: Start, name: str) -> None:
    """A job that does not exist ends non-zero and names itself; one without a name is not the web role."""
    code, output = start(name).end()

    assert code == 1
    assert f"Unknown command: '{name}'" in output


def test_hyphens_in_the_name_stand_for_underscores(start: Start) -> None:
    """Jobs that were created elsewhere name their command as Cloud Run names jobs."""
    code, output = start("cloudrun-jobs", "token", "ci").end()

    assert code == 0, output
    assert "'name': 'ci'" in output


def test_celery_is_started(start: Start) -> None:
    """Arguments that begin with `celery` are a command line of Celery, whose exit code is kept."""
    code, output = start("celery", "no_such_command").end()

    assert code == 2
    assert "No such command 'no_such_command'" in output


HARD_WORDS = [
    *("two words", " ", "", "it's", '"quoted"', "line\nline", "\ttab", "back\\slash", "$HOME `id` $(id)"),
    *("*", "?", "~", "-x", "--note=evil", "--settings=evil", "--", "web", "日本語 🚀", "!", "a;b|c&d>e"),
]


def test_arguments_arrive_unchanged(start: Start) -> None:
    """Spaces, quotes, newlines, leading dashes, globs and empty strings pass both scripts as they are."""
    arguments = ["--note=two\nlines 'and' \"quotes\"", "--", *HARD_WORDS]

    code, output = start("arrive", *arguments).end()

    assert code == 0, output
    assert json.loads(output)["arguments"] == arguments


@pytest.fixture
def writable() -> Iterator[Path]:
    """A directory with a short name: a unix socket's path has 108 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="web ") as path:
        yield Path(path)


@pytest.fixture
def serve(start: Start, writable: Path) -> Serve:
    """Start the web role and wait until its page is there."""
    if not shutil.which("nginx", path=PATH):
        pytest.skip("nginx is not installed: apt-get install nginx-light")

    def serve(*arguments: str) -> tuple[Contained, str]:
        address = f"127.0.0.1:{free_port()}"
        web = start(
            *arguments,
            PORT=address,
            TMPDIR=str(writable),
            STATIC_ROOT=str(PROJECT / "static"),
            WSGI_APPLICATION="standin.web:application",
        )
        wait_for(lambda: answers(f"http://{address}/"))
        return web, f"http://{address}"

    return serve


@pytest.mark.parametrize("arguments", [[], ["web"]], ids=["no arguments", "web"])
def test_web_role_serves(serve: Serve, arguments: list[str]) -> None:
    """Without arguments, or with `web`, nginx serves the static files and passes the pages on."""
    web, url = serve(*arguments)

    assert get(f"{url}/static/standin.css") == (200, "nginx", "body { color: teal }\n")
    assert get(f"{url}/static/none.css")[0] == 404
    assert json.loads(get(url)[2])["scheme"] == "http"

    web.terminate()

    assert web.end()[0] == 0


def test_page_knows_how_it_was_asked_for(serve: Serve) -> None:
    """The scheme that Cloud Run's front was asked with, and the host with its port, reach Django."""
    _, url = serve()
    status, server, body = get(url, **{"X-Forwarded-Proto": "https"})

    assert (status, server) == (200, "nginx")
    assert json.loads(body) == {"scheme": "https", "host": url.removeprefix("http://")}


@pytest.fixture
def hold(writable: Path) -> Iterator[Hold]:
    """Ask for a page that is held open; return the asker, and the pipe that the page reads its answer from."""
    path = writable / "pipe"
    os.mkfifo(path)
    pipes: list[IO[bytes]] = []

    def opened() -> bool:
        """Open the pipe for writing, which succeeds as soon as the page reads."""
        with suppress(OSError):
            pipes.append(os.fdopen(os.open(path, os.O_WRONLY | os.O_NONBLOCK), "wb", buffering=0))
        return bool(pipes)

    with ThreadPoolExecutor() as pool:

        def hold(url: str) -> tuple[Future[tuple[int, str, str]], IO[bytes]]:
            asker = pool.submit(get, f"{url}/held/?pipe={quote(str(path))}")
            wait_for(opened)
            return asker, pipes[0]

        yield hold
        for pipe in pipes:
            pipe.close()


def test_sigterm_lets_a_request_finish(serve: Serve, hold: Hold) -> None:
    """After SIGTERM new connections are refused, and a request in progress gets the whole response."""
    web, url = serve()
    asker, pipe = hold(url)
    web.terminate()
    wait_for(lambda: refuses(url))
    pipe.write(b"the whole answer")
    pipe.close()

    assert asker.result(timeout=10) == (200, "nginx", "the whole answer")
    assert web.end()[0] == 0


def test_sigterm_ends_within_ten_seconds(serve: Serve, hold: Hold) -> None:
    """A request that never ends does not keep the container past the ten seconds that Cloud Run gives."""
    web, url = serve()
    hold(url)
    web.terminate()

    assert web.end(seconds=10)[0] == 0


@pytest.mark.parametrize("name", ["nginx", "gunicorn"])
def test_death_of_either_ends_the_container(serve: Serve, name: str) -> None:
    """When nginx or gunicorn dies the other is stopped and the container fails, so that it is started anew."""
    web, url = serve()
    os.kill(wait_for(lambda: web.running(name)), signal.SIGKILL)
    code, output = web.end()

    assert code == 1
    assert "nginx or gunicorn exited" in output
    assert refuses(url)
