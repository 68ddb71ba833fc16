"""Convert options to container arguments and back, with the command's own parser.

`delay()`'s values are written as arguments and parsed again; a value that does not survive the round trip is
rejected. The forms are `--option=value`, then `--`, then the positionals: no value in them can be read as an
option of `manage.py`, which parses every argument before the command does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudrun_jobs.argv.binding import dests
    from cloudrun_jobs.argv.limits import check_limits
    from cloudrun_jobs.argv.parsing import parse, parser_of
    from cloudrun_jobs.argv.round_trip import serialise

# Imported when first used: a job's start needs `argv.reading` alone.
_MODULES = {
    "check_limits": "limits",
    "dests": "binding",
    "parse": "parsing",
    "parser_of": "parsing",
    "serialise": "round_trip",
}

__all__ = ["check_limits", "dests", "parse", "parser_of", "serialise"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
