"""What every backend can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.core.checks import CheckMessage

from ..conf import RUN_ID_VARIABLE, Settings
from ..spec import JobSpec

if TYPE_CHECKING:  # Of no use to a container that sends nothing.
    from ..operations import Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request to run a job, checked and complete."""

    spec: JobSpec
    argv: tuple[str, ...]  # What follows `manage.py`: the command's name, then its arguments.
    run_id: str
    work: Callable[[], Any]  # Runs the job in this process; returns its result in JSON form.

    @property
    def environment(self) -> dict[str, str]:
        """The variables the execution gets beside those of its job."""
        return {RUN_ID_VARIABLE: self.run_id}


class Backend(ABC):
    """A way to run jobs. `OPTIONS` of the settings arrive as keyword arguments; others are refused."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def start(self, request: Request) -> Operation:
        """Start an execution and return a handle on it, without waiting for its end if it runs elsewhere."""

    def check(self) -> Iterable[CheckMessage]:
        """Return system check messages about this backend's configuration."""
        return []
