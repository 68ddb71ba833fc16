"""Run one attempt of a task: build its program, enforce its timeout and report its outcome."""

from __future__ import annotations

import os
import site
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from cloudrun_jobs.emulator import closed_world, names, template_limits
from cloudrun_jobs.emulator.config import Config, bin_directory
from cloudrun_jobs.emulator.engine.outcomes import Kind, Outcome
from cloudrun_jobs.emulator.processes.spawner import Program, Spawner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from google.cloud import run_v2

    from cloudrun_jobs.emulator.clock import Clock, Timer
    from cloudrun_jobs.emulator.logs.tasks import TaskLog

IDENTITY_VARIABLES = ("CLOUD_RUN_EXECUTION", "CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_ATTEMPT")


class AttemptListener(Protocol):
    """Receives the events of an attempt."""

    def attempt_started(self, attempt: Attempt) -> None: ...
    def attempt_ended(self, attempt: Attempt, outcome: Outcome) -> None: ...


@dataclass(slots=True, eq=False)
class Attempt:
    """A running process. It receives the spawner's events and reports to its listener."""

    listener: AttemptListener
    index: int
    number: int
    container: Container
    log: TaskLog
    clock: Clock
    spawner: Spawner
    grace: float
    end_reason: Kind | None = None  # Set when the emulator stops the process.
    forced_end: Kind | None = None  # A planned fault that ends the attempt when it has started.
    key: int = 0
    timer: Timer | None = field(default=None)

    def start(self, program: Program) -> None:
        self.key = self.spawner.start(program, self)

    def started(self) -> None:
        self.listener.attempt_started(self)
        self.timer = self.clock.call_later(self.container.timeout, self.on_timeout)
        if self.forced_end is not None:
            self.end(self.forced_end, grace=0)

    def wrote(self, stream: str, line: str) -> None:
        self.log.line(stream, line)

    def dropped(self, lines: int) -> None:
        self.log.system(f"The emulator kept the first lines of this output and dropped {lines} more.", "WARNING")

    def start_failed(self, reason: str) -> None:
        self.log.system(f"Application failed to start: {reason}", "ERROR")
        # A shell, and so a container, exits with 127 if the command does not exist.
        self._finish(Outcome(Kind.EXITED, 127))

    def exited(self, code: int, memory: int) -> None:
        if memory:
            self.end_reason = Kind.OUT_OF_MEMORY
            self.log.out_of_memory(self.container.memory, memory)
        self._finish(Outcome(self.end_reason, code) if self.end_reason else Outcome.of_exit(code))

    def on_timeout(self) -> None:
        self.log.system(
            f"Terminating task because it has reached the maximum timeout of {self.container.timeout:g} seconds.",
            "ERROR",
        )
        self.end(Kind.TIMED_OUT, grace=self.grace)

    def end(self, kind: Kind, *, grace: float) -> None:
        """Stop the process. The first reason given is the one reported."""
        self.end_reason = self.end_reason or kind
        self.spawner.stop(self.key, grace=grace)

    def _finish(self, outcome: Outcome) -> None:
        if self.timer is not None:
            self.timer.cancel()
        line = outcome.log_line()
        if line is not None:
            self.log.system(line, "WARNING" if outcome.code else "INFO")
        self.listener.attempt_ended(self, outcome)


@dataclass(frozen=True, slots=True)
class Container:
    """The container of an execution: what its attempts share, read once from its messages."""

    argv: Sequence[str]
    cwd: str
    env: Mapping[str, str]
    closed: Mapping[str, str]  # Variables that keep a task on the emulator.
    secrets: Mapping[str, run_v2.EnvVar]  # Variables that refer to secrets, looked up at each start.
    replaced: Sequence[str]  # Declared variables whose values a task does not get.
    memory: int  # bytes; enforced if `enforce_memory`.
    enforce_memory: bool
    timeout: float  # seconds

    @classmethod
    def of(cls, execution: run_v2.Execution, config: Config, closed: Mapping[str, str]) -> Container:
        container = execution.template.containers[0]
        directory = config.directory_of(container.image)
        working = directory / container.working_dir if container.working_dir else directory
        variables = {each.name: each for each in container.env if not closed_world.is_closed(each.name)}
        secrets = {name: each for name, each in variables.items() if each.value_source.secret_key_ref.secret}
        return cls(
            argv=_argv(container, directory, has_entrypoint=config.has_entrypoint(container.image)),
            cwd=str(working if working.is_dir() else directory),
            env={
                "PATH": f"{bin_directory(directory)}:/usr/local/bin:/usr/bin:/bin",
                **_user_site(),
                **{name: os.environ[name] for name in config.pass_env if name in os.environ},
                **{name: each.value for name, each in variables.items()},
            },
            closed={
                **closed,
                "CLOUD_RUN_JOB": execution.job,
                "CLOUD_RUN_EXECUTION": names.short(execution.name),
                "CLOUD_RUN_TASK_COUNT": str(execution.task_count),
            },
            secrets=secrets,
            replaced=closed_world.replaced(container),
            memory=template_limits.memory_bytes(container),
            enforce_memory=config.enforce_memory,
            timeout=execution.template.timeout.total_seconds(),
        )

    def environment(
        self, index: int, number: int, files: closed_world.TaskDirectory, secret: Callable[[run_v2.EnvVar], str]
    ) -> dict[str, str]:
        """Return all variables of an attempt."""
        return {
            **self.env,
            **{name: secret(variable) for name, variable in self.secrets.items()},
            **self.closed,
            **files.variables,
            "CLOUD_RUN_TASK_INDEX": str(index),
            "CLOUD_RUN_TASK_ATTEMPT": str(number),
        }

    def program(self, env: Mapping[str, str], files: closed_world.TaskDirectory) -> Program:
        """Return the program that replaces the container of an attempt."""
        return Program(
            argv=self.argv,
            cwd=self.cwd,
            env=env,
            directory=files.path,
            files=files.content,
            identity=IDENTITY_VARIABLES,
            memory=self.memory if self.enforce_memory else 0,
        )


def _argv(container: run_v2.Container, directory: Path, *, has_entrypoint: bool) -> list[str]:
    command = list(container.command)
    if not command and has_entrypoint and (directory / "manage.py").exists():
        command = _image_command(container.args)
    argv = [*command, *container.args]
    if argv and "/" not in argv[0]:
        inside = bin_directory(directory) / argv[0]
        return [str(inside), *argv[1:]] if inside.exists() else argv
    return argv


def _image_command(args: Iterable[str]) -> list[str]:
    """Return the entry point of a Django project's image, which accepts hyphens in the command's name."""
    name = next(iter(args), "")
    has_hyphens = "-" in name and not name.startswith("-")
    return ["python", "manage.py", *(["cloudrun_exec"] if has_hyphens else [])]


def _user_site() -> dict[str, str]:
    """Keep the packages of ``pip install --user`` importable although the home directory is different."""
    return {"PYTHONUSERBASE": site.getuserbase()} if site.ENABLE_USER_SITE else {}
