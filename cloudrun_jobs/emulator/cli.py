"""The command line: parse the options, print what happens, and serve until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudrun_jobs.emulator import MissingExtra
from cloudrun_jobs.emulator.config import (
    DEFAULT_GRPC_PORT,
    DEFAULT_PORT,
    Config,
    InvalidConfiguration,
    read_json,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from cloudrun_jobs.emulator.server import Emulator

DESCRIPTION = "Serve a local Cloud Run, Cloud Scheduler and Cloud Tasks to Google's clients and gcloud."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--port", type=int, default=DEFAULT_PORT, help="HTTP port; 0 chooses a free port (default: %(default)s)")
    grpc_default = f"default: {DEFAULT_GRPC_PORT}, or with --port 0 a free port"
    add("--grpc-port", type=int, help=f"gRPC port; 0 chooses a free port ({grpc_default})")
    add("--json", action="store_true", help="print the addresses as one line of JSON when ready")
    add("--verbose", action="store_true", help="print the output of tasks to stderr")
    add(
        "--image",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="run this container image in a directory; repeatable",
    )
    add(
        "--no-entrypoint",
        action="append",
        default=[],
        metavar="NAME",
        help="this image has no entry point: its arguments are the whole command; repeatable",
    )
    add(
        "--service",
        action="append",
        default=[],
        metavar="NAME=URL",
        help="the local URL that answers for a service; repeatable",
    )
    add("--directory", type=Path, default=Path.cwd(), help="directory of all other images (default: current)")
    add("--grace", type=float, default=10.0, help="seconds between SIGTERM and SIGKILL (default: 10)")
    add("--max-parallelism", type=int, help="maximum concurrent tasks of a job without a parallelism limit")
    add("--enforce-memory", action="store_true", help="kill tasks that exceed their job's memory limit")
    add("--pass-env", action="append", default=[], metavar="NAME", help="pass this environment variable to tasks")
    add(
        "--allow-host",
        action="append",
        default=[],
        metavar="HOST",
        help="let tasks call this host and its subdomains over HTTP and gRPC; repeatable",
    )
    add(
        "--state",
        type=Path,
        metavar="DIR",
        help="keep the resources, but not the logs, here across restarts",
    )
    add("--secrets", type=Path, metavar="FILE", help="JSON object of secrets by id: values, or lists of versions")
    add("--iam", type=Path, metavar="FILE", help="check callers against this JSON IAM policy")
    add(
        "--disable-api",
        action="append",
        default=[],
        metavar="NAME",
        help="start with this API disabled, such as run.googleapis.com; repeatable",
    )
    add("--registry", type=Path, metavar="FILE", help="JSON list of the container images that exist")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("cloudrun_emulator", description=DESCRIPTION)
    add_arguments(parser)
    return run(vars(parser.parse_args(argv)))


def run(options: dict[str, Any]) -> int:
    """Serve until SIGINT or SIGTERM; write one line to stderr and return 1 if the emulator cannot start."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        _serve(options, stopped)
    except (InvalidConfiguration, MissingExtra, OSError) as error:
        sys.stderr.write(f"cloudrun_emulator: {error}\n")
        return 1
    return 0


def _serve(options: dict[str, Any], stopped: threading.Event) -> None:
    settings = _settings(options)
    # Imported late: --help and invalid options do not need the Google clients, which take most of a second.
    from cloudrun_jobs.emulator import Emulator

    with Emulator(**settings) as emulator, _terminal(emulator, options):
        ready = {"grpc": emulator.grpc, "http": emulator.http}
        text = json.dumps(ready) if options["json"] else f"Ready: gRPC {emulator.grpc}, HTTP {emulator.http}"
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
        stopped.wait()


def _terminal(emulator: Emulator, options: dict[str, Any]) -> AbstractContextManager[object]:
    from cloudrun_jobs.emulator.terminal import Terminal, has_colours

    if sys.stderr is None:  # It was closed before the start.
        return nullcontext()
    # Two options of every management command.
    colours = not options.get("no_color") and has_colours(sys.stderr, os.environ)
    colours = colours or bool(options.get("force_color"))
    return Terminal(emulator, sys.stderr, verbose=options["verbose"], colours=colours)


def _settings(options: dict[str, Any]) -> dict[str, Any]:
    """Convert command line options to the arguments of `Config`."""
    settings: dict[str, Any] = {
        name: options[name]
        for name in ("port", "directory", "grace", "max_parallelism", "enforce_memory", "state")
        if options[name] is not None
    }
    default_grpc_port = DEFAULT_GRPC_PORT if options["port"] else 0
    settings["grpc_port"] = default_grpc_port if options["grpc_port"] is None else options["grpc_port"]
    settings["no_entrypoint"] = tuple(options["no_entrypoint"])
    settings["pass_env"] = tuple(options["pass_env"])
    settings["allow_hosts"] = tuple(options["allow_host"])
    settings["disabled_apis"] = tuple(options["disable_api"])
    settings["images"] = {name: Path(text) for name, text in _pairs("image", "DIR", options)}
    settings["services"] = dict(_pairs("service", "URL", options))
    for name in ("secrets", "iam"):
        if options[name] is not None:
            settings[name] = read_json(options[name])
    if options["registry"] is not None:
        settings["registry"] = _names(options["registry"])
    Config(**settings)
    return settings


def _names(path: Path) -> tuple[str, ...]:
    content = read_json(path)
    if not isinstance(content, list):
        raise InvalidConfiguration(f"expected a JSON list of images at {str(path)!r}, got another value")
    return tuple(content)


def _pairs(option: str, value: str, options: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Split the texts of a repeatable option ``--image NAME=DIR``."""
    for text in options[option]:
        name, equals, rest = text.partition("=")
        if not (name and equals and rest):
            raise InvalidConfiguration(f"expected --{option} NAME={value}, got {text!r}")
        yield name, rest
