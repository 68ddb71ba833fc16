"""Draw the durations and outcomes of a job's last runs as bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.utils import timezone
from django.utils.translation import gettext as _

from cloudrun_jobs.dashboard.runs.rows import RunRow
from cloudrun_jobs.dashboard.text import duration, isolated
from cloudrun_jobs.models import Status

MAX_RUNS = 60
BAR_WIDTH, GAP, HEIGHT = 8, 2, 100  # Units of the drawing.
MIN_BAR_HEIGHT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """The bar of a run: higher for a longer one."""

    row: RunRow
    x: int
    y: int
    height: int
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A drawing, the newest run on the right."""

    bars: Sequence[Bar]
    statuses: Sequence[Status]  #: Those of its runs, for the legend.
    longest: timedelta  #: Of those that have ended; the height of the drawing.
    width: int = MAX_RUNS * (BAR_WIDTH + GAP)
    height: int = HEIGHT
    bar_width: int = BAR_WIDTH


def draw(rows: Sequence[RunRow]) -> History:
    """Return the drawing of these runs, the newest of which is the first."""
    # A run that hangs would flatten the bars of other runs.
    longest = max((row.took for row in rows if row.took and row.run.is_finished), default=timedelta(0))
    found = {row.run.status for row in rows}
    return History(
        bars=[_bar(row, number, longest) for number, row in enumerate(rows[:MAX_RUNS])],
        statuses=[status for status in Status if status in found],
        longest=longest,
    )


def _bar(row: RunRow, number: int, longest: timedelta) -> Bar:
    share = (row.took or timedelta(0)) / longest if longest else 0.0
    height = max(round(min(share, 1.0) * HEIGHT), MIN_BAR_HEIGHT)
    values = {
        "status": row.run.get_status_display(),
        "time": isolated(f"{timezone.localtime(row.run.created_at):%F %T}"),
        "duration": isolated(duration(row.took)),
    }
    return Bar(
        row=row,
        x=(MAX_RUNS - 1 - number) * (BAR_WIDTH + GAP) + GAP // 2,
        y=HEIGHT - height,
        height=height,
        title=_("%(status)s, requested %(time)s, duration %(duration)s") % values,
    )
