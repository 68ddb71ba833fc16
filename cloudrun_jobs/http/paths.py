"""The paths of the HTTP API, by name. `http.routes` has what answers there."""

from __future__ import annotations

from collections.abc import Mapping

# The first match wins: fixed words stand before the names of commands.
PATHS: Mapping[str, str] = {
    "schema": "schema/",
    "health": "health/",
    "runs": "jobs/",
    "stats": "jobs/stats/",
    "run": "jobs/<str:name>/",
    "events": "jobs/<str:name>/events/",
    "cancel": "jobs/<str:name>/cancel/",
    "rerun": "jobs/<str:name>/rerun/",
    "triggers": "run/",
    "trigger": "run/<str:name>/",
}


def reserved_words() -> frozenset[str]:
    """Return the fixed words below `jobs/` and `run/`, which win over the names of commands there."""
    paths = [path.strip("/").split("/") for path in PATHS.values()]
    words = {part for first, *rest in paths if first in {"jobs", "run"} for part in rest}
    return frozenset(word for word in words if not word.startswith("<"))
