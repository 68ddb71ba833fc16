"""The type of a job's command, for modules that cannot import `cloudrun_jobs.command`."""

from __future__ import annotations

from typing import Any, Protocol

from django.core.management.base import CommandParser, OutputWrapper

from cloudrun_jobs.spec.job import JobSpec


class JobCommand(Protocol):
    """The members of `CloudRunJobs` that this package uses."""

    stdout: OutputWrapper
    stderr: OutputWrapper
    test_mode: Any
    _active: Any  # See `execution.active`.

    @property
    def reduce_partial(self) -> bool: ...

    @property
    def command_name(self) -> str: ...

    @property
    def spec(self) -> JobSpec: ...

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser: ...

    def execute(self, *args: Any, **options: Any) -> Any: ...

    def get_lock_key(self, **options: Any) -> Any: ...

    def run(self, *args: Any, **options: Any) -> Any: ...
