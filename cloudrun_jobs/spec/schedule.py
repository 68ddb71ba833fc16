"""When a job runs by itself: the value, and the rules of the attributes that are about schedules."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, available_timezones

from cloudrun_jobs.exceptions import DeclarationError, InvalidSchedule, Verbatim
from cloudrun_jobs.spec.type_checks import is_options, is_whole_number
from cloudrun_jobs.suggestions import closest, did_you_mean

if TYPE_CHECKING:
    from cloudrun_jobs.spec.job import JobSpec

TARGETS = ("job", "service")
DEADLINES = (timedelta(seconds=15), timedelta(minutes=30))
RETRY_COUNTS = {"retry_count": 5, "max_doublings": 1000}  # And the most of each.
RETRY_DURATIONS = ("max_retry_duration", "min_backoff_duration", "max_backoff_duration")
RETRY_FIELDS = (*RETRY_COUNTS, *RETRY_DURATIONS)

# "<job>-reserved-…" are the entries of reservations.
NAME = r"(?!reserved)[A-Za-z0-9][A-Za-z0-9_-]{0,99}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """One of several times a job runs, or one with arguments:

        schedule = [
            Schedule("0 9 * * 1-5", args={"partner": 7}),
            Schedule("0 12 * * SAT", time_zone="Asia/Seoul", args={"partner": 8}, name="weekend"),
        ]

    `args` are options as `delay()` takes them by name. `name` tells it from the others of the list, in the name of
    its entry in Cloud Scheduler; without one its number does.
    """

    # Checked with the job and not here: an error while a module is imported would hide the job from the checks.
    cron: str
    time_zone: str | None = field(default=None, kw_only=True)
    args: Mapping[str, Any] = field(default_factory=dict, kw_only=True, hash=False)
    name: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.args, Mapping):
            object.__setattr__(self, "args", MappingProxyType(dict(self.args)))

    @classmethod
    def of(cls, declared: str | Schedule) -> Schedule:
        return declared if isinstance(declared, Schedule) else cls(declared)

    def completed(self, time_zone: str, name: str | None = None) -> Schedule:
        """Return it with what the job and its place in the list give it."""
        return replace(self, time_zone=self.time_zone or time_zone, name=self.name or name)


def check_schedules(spec: JobSpec) -> Iterator[DeclarationError]:
    if spec.schedule is None:
        return
    if not isinstance(spec.schedule, tuple):
        yield from _check_schedule("schedule", spec.schedule)
        return
    for number, schedule in enumerate(spec.schedule):
        yield from _check_schedule(f"schedule[{number}]", schedule)
    yield from _check_names(spec.schedule)


def _check_schedule(attribute: str, declared: object) -> Iterator[DeclarationError]:
    if not isinstance(declared, str | Schedule):
        expected = "None, a Cloud Scheduler expression, or a list of Schedule(...)"
        yield DeclarationError(attribute=attribute, expected=expected, got=declared, id="cloudrun_jobs.E004")
        return
    schedule = Schedule.of(declared)
    yield from _check_cron(attribute, schedule.cron)
    if schedule.time_zone is not None:
        yield from _check_zone(f"{attribute}.time_zone", schedule.time_zone)
    if not is_options(schedule.args):
        expected = "a dictionary of options, as delay() takes them by name"
        yield DeclarationError(attribute=f"{attribute}.args", expected=expected, got=schedule.args)
    name = schedule.name
    if name is not None and not (isinstance(name, str) and re.fullmatch(NAME, name)):
        expected = "letters, digits, hyphens and underscores, not beginning with 'reserved'"
        yield DeclarationError(attribute=f"{attribute}.name", expected=expected, got=name)


def _check_cron(attribute: str, expression: object) -> Iterator[DeclarationError]:
    from cloudrun_jobs.cron import validate  # A job without a schedule does not pay for it.

    hint = ""
    if isinstance(expression, str):
        try:
            validate(expression)
        except InvalidSchedule as error:
            hint = str(error)
        else:
            return
    expected = "None or a Cloud Scheduler expression"
    yield DeclarationError(
        attribute=attribute, expected=expected, got=expression, hint=hint, id="cloudrun_jobs.E004"
    )


def _check_names(declared: tuple[object, ...]) -> Iterator[DeclarationError]:
    schedules = [item if isinstance(item, Schedule) else None for item in declared]
    names = Counter(
        str(schedule.name if schedule and schedule.name else number)
        for number, schedule in enumerate(schedules, start=1)
    )
    if twice := [name for name, count in names.items() if count > 1]:
        got = Verbatim(f"{twice[0]!r} more than once")
        yield DeclarationError(attribute="schedule", expected="a name of its own for each Schedule", got=got)


def check_time_zone(spec: JobSpec) -> Iterator[DeclarationError]:
    return _check_zone("time_zone", spec.time_zone)


def _check_zone(attribute: str, name: object) -> Iterator[DeclarationError]:
    if not _is_time_zone(name):
        expected = "a time zone of the tz database such as 'Asia/Tokyo'"
        hint = closest(name, available_timezones()) if isinstance(name, str) else ""
        yield DeclarationError(
            attribute=attribute, expected=expected, got=name, hint=hint, id="cloudrun_jobs.E005"
        )


def _is_time_zone(name: object) -> bool:
    # Files that lie beside the zones, and mean another thing on every machine, or in every second.
    if not isinstance(name, str) or re.match(r"(localtime|posixrules|Factory)$|posix/|right/", name):
        return False
    try:
        return bool(ZoneInfo(name))
    except (KeyError, ValueError, OSError):  # Unknown, a path, a directory.
        return False


def check_delivery(spec: JobSpec) -> Iterator[DeclarationError]:
    if spec.target not in TARGETS:
        hint = closest(spec.target, TARGETS) if isinstance(spec.target, str) else ""
        yield DeclarationError(attribute="target", expected="'job' or 'service'", got=spec.target, hint=hint)
    deadline = spec.attempt_deadline
    if deadline is not None and not (isinstance(deadline, timedelta) and DEADLINES[0] <= deadline <= DEADLINES[1]):
        yield DeclarationError(attribute="attempt_deadline", expected="None or 15 to 1800 seconds", got=deadline)
    if spec.retry_config is not None:
        yield from _check_retries(spec.retry_config)


def _check_retries(config: object) -> Iterator[DeclarationError]:
    if not isinstance(config, Mapping):
        yield DeclarationError(attribute="retry_config", expected="None or a dictionary", got=config)
        return
    known = (*RETRY_COUNTS, *RETRY_DURATIONS)
    for key, value in config.items():
        if key not in known:
            hint = did_you_mean(str(key), known)
            yield DeclarationError(attribute="retry_config", expected="a known key", got=key, hint=hint)
        elif key in RETRY_COUNTS and not (is_whole_number(value) and 0 <= value <= RETRY_COUNTS[key]):
            expected = f"a whole number from 0 to {RETRY_COUNTS[key]}"
            yield DeclarationError(attribute=f"retry_config[{key!r}]", expected=expected, got=value)
        elif key in RETRY_DURATIONS and not _is_duration(value):
            yield DeclarationError(
                attribute=f"retry_config[{key!r}]", expected="seconds, or a timedelta", got=value
            )


def _is_duration(value: object) -> bool:
    if isinstance(value, timedelta):
        return timedelta(0) <= value <= timedelta(days=365)
    return isinstance(value, int) and is_whole_number(value) and 0 <= value <= 365 * 86_400
