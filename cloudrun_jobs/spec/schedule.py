"""The schedules of a job: `Schedule`, and the validators of the attributes about schedules."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, available_timezones

from cloudrun_jobs.exceptions import DeclarationError, InvalidSchedule, Verbatim
from cloudrun_jobs.spec.frozen import Frozen
from cloudrun_jobs.spec.type_checks import is_duration, is_options, is_text, is_whole_number
from cloudrun_jobs.suggestions import closest, did_you_mean

if TYPE_CHECKING:
    from cloudrun_jobs.spec.job import JobSpec

TARGETS = ("job", "service")
MIN_ATTEMPT_DEADLINE, MAX_ATTEMPT_DEADLINE = timedelta(seconds=15), timedelta(minutes=30)
RUN_AS_JOB = "Run it as a job: remove target = 'service', which runs the job during Cloud Scheduler's request."
MAX_RETRY_DURATION = timedelta(days=365)

# The fields of Cloud Scheduler's RetryConfig: those that are counts, with their maximum, and durations.
MAX_RETRY_COUNTS = {"retry_count": 5, "max_doublings": 1000}
RETRY_DURATIONS = ("max_retry_duration", "min_backoff_duration", "max_backoff_duration")
RETRY_FIELDS = (*MAX_RETRY_COUNTS, *RETRY_DURATIONS)

# Abbreviations of the time of one country; others, such as IST and CST, have several meanings.
ABBREVIATIONS = {"jst": "Asia/Tokyo", "kst": "Asia/Seoul", "hkt": "Asia/Hong_Kong", "nzst": "Pacific/Auckland"}

# The Scheduler jobs of reservations are named "<job>-reserved-...".
NAME = r"(?!reserved)[A-Za-z0-9][A-Za-z0-9_-]{0,99}"


class Schedule(Frozen):
    """One of several times at which a job runs, or one with arguments:

        schedule = [
            Schedule("0 9 * * 1-5", args={"partner": 7}),
            Schedule("0 12 * * SAT", time_zone="Asia/Seoul", args={"partner": 8}, name="weekend"),
        ]

    Validated with the job: an exception while a module is imported would hide the job from the system checks.
    """

    #: The expression, in Cloud Scheduler's dialect.
    cron: str
    #: Its time zone. Default: None, the job's `time_zone`.
    time_zone: str | None
    #: The job's options, as `delay()` takes them by name. Default: none.
    args: Mapping[str, Any]
    #: What distinguishes it in its list, and ends the name of its Scheduler job. Default: None, its number.
    name: str | None

    def __init__(
        self,
        cron: str,
        *,
        time_zone: str | None = None,
        args: Mapping[str, Any] = MappingProxyType({}),
        name: str | None = None,
    ) -> None:
        args = MappingProxyType(dict(args)) if isinstance(args, Mapping) else args
        vars(self).update(cron=cron, time_zone=normalise_zone(time_zone), args=args, name=name)

    @classmethod
    def of(cls, declared: str | Schedule) -> Schedule:
        return declared if isinstance(declared, Schedule) else cls(declared)

    def completed(self, time_zone: str, name: str | None = None) -> Schedule:
        """Return the schedule with the job's time zone and its number in the list in place of None."""
        return Schedule(self.cron, time_zone=self.time_zone or time_zone, args=self.args, name=self.name or name)


def normalise_zone(name: Any) -> Any:
    """Return the name that the tz database has for "utc", which Cloud Scheduler's API documents."""
    return "UTC" if name == "utc" else name


def check_schedules(spec: JobSpec) -> Iterator[DeclarationError]:
    if spec.schedule is None:
        return
    if not isinstance(spec.schedule, tuple):
        yield from _check_schedule("schedule", spec.schedule)
        return
    for number, schedule in enumerate(spec.schedule):
        yield from _check_schedule(f"schedule[{number}]", schedule)
    names = Counter(
        str(item.name if isinstance(item, Schedule) and item.name else number)
        for number, item in enumerate(spec.schedule, start=1)
    )
    if duplicates := [name for name, count in names.items() if count > 1]:
        got = Verbatim(f"{duplicates[0]!r} more than once")
        yield DeclarationError("schedule", "a different name for each Schedule", got)


def _check_schedule(attribute: str, declared: object) -> Iterator[DeclarationError]:
    if not isinstance(declared, str | Schedule):
        expected = "None, a Cloud Scheduler expression, or a list of Schedule(...)"
        yield DeclarationError(attribute, expected, declared, id="cloudrun_jobs.E004")
        return
    schedule = Schedule.of(declared)
    yield from _check_cron(attribute, schedule.cron)
    if schedule.time_zone is not None:
        yield from _check_zone(f"{attribute}.time_zone", schedule.time_zone)
    if not is_options(schedule.args):
        expected = "a dictionary of options, as delay() takes them by name"
        yield DeclarationError(f"{attribute}.args", expected, schedule.args)
    if schedule.name is not None and not is_text(schedule.name, NAME):
        expected = "letters, digits, hyphens and underscores, not beginning with 'reserved'"
        yield DeclarationError(f"{attribute}.name", expected, schedule.name)


def _check_cron(attribute: str, expression: object) -> Iterator[DeclarationError]:
    from cloudrun_jobs.cron import validate  # A job without a schedule does not need it.

    hint = ""
    try:
        if isinstance(expression, str):
            validate(expression)
            return
    except InvalidSchedule as error:
        hint = str(error)
    expected = "None or a Cloud Scheduler expression"
    yield DeclarationError(attribute, expected, expression, hint, id="cloudrun_jobs.E004")


def check_time_zone(spec: JobSpec) -> Iterator[DeclarationError]:
    return _check_zone("time_zone", spec.time_zone)


def _check_zone(attribute: str, name: object) -> Iterator[DeclarationError]:
    if not _is_time_zone(name):
        hint = _zone_hint(name.strip()) if isinstance(name, str) else ""
        expected = "a time zone of the tz database such as 'Asia/Tokyo'"
        yield DeclarationError(attribute, expected, name, hint, id="cloudrun_jobs.E005")


def _zone_hint(name: str) -> str:
    """Suggest a zone. The name that resembles an abbreviation most is another zone's, so none is suggested."""
    if offset := re.fullmatch(r"(?:UTC|GMT)?([+-])0?([0-9]|1[0-4])(?::?00)?", name, re.IGNORECASE):
        sign, hours = offset[1], int(offset[2])
        zone, side = f"Etc/GMT{'-' if sign == '+' else '+'}{hours}", "ahead of" if sign == "+" else "behind"
        if not hours:
            return "Did you mean 'Etc/UTC'?"
        opposite = f"Its sign is the opposite: it is {hours} hours {side} UTC."
        return f"Did you mean {zone!r}? {opposite}" if _is_time_zone(zone) else ""
    zones = {zone.casefold(): zone for zone in sorted(available_timezones())}
    cities = {zone.rpartition("/")[2]: name for zone, name in reversed(zones.items()) if "/" in zone}
    folded = name.casefold().replace(" ", "_")
    if found := ABBREVIATIONS.get(folded) or zones.get(folded) or cities.get(folded):
        return f"Did you mean {found!r}?"
    is_short = re.fullmatch(r"[A-Z]{1,5}|[a-z]{1,5}|[A-Za-z]{0,5}[0-9:+-]+", name)
    return "" if is_short else closest(name, zones.values())


def _is_time_zone(name: object) -> bool:
    # Files next to the zones whose meaning depends on the machine, or that count leap seconds.
    if not isinstance(name, str) or re.match(r"(localtime|posixrules|Factory)$|posix/|right/", name):
        return False
    try:
        return bool(ZoneInfo(name))
    except (KeyError, ValueError, OSError):  # Unknown, a path, a directory.
        return False


def check_delivery(spec: JobSpec) -> Iterator[DeclarationError]:
    target, deadline, config = spec.target, spec.attempt_deadline, spec.retry_config
    if target not in TARGETS:
        hint = closest(target, TARGETS) if isinstance(target, str) else ""
        yield DeclarationError("target", "'job' or 'service'", target, hint)
    if deadline is not None and not is_duration(deadline, MIN_ATTEMPT_DEADLINE, MAX_ATTEMPT_DEADLINE):
        hint = RUN_AS_JOB if target == "service" else ""
        yield DeclarationError("attempt_deadline", "None or 15 to 1800 seconds", deadline, hint)
    elif spec.runs_in_request and isinstance(spec.timeout, timedelta):
        limit = deadline or MAX_ATTEMPT_DEADLINE
        if spec.timeout > limit:
            of = "attempt_deadline" if deadline else "longest attempt_deadline of Cloud Scheduler"
            expected = f"at most {limit.total_seconds():g} seconds, the {of}"
            yield DeclarationError("timeout", expected, spec.timeout, RUN_AS_JOB, id="cloudrun_jobs.E019")
    if isinstance(config, Mapping):
        for key, value in config.items():
            yield from _check_retry_field(key, value)
    elif config is not None:
        yield DeclarationError("retry_config", "None or a dictionary", config)


def _check_retry_field(key: Any, value: object) -> Iterator[DeclarationError]:
    where = f"retry_config[{key!r}]"
    if key not in RETRY_FIELDS:
        yield DeclarationError("retry_config", "a known key", key, did_you_mean(str(key), RETRY_FIELDS))
    elif key in RETRY_DURATIONS:
        if not _is_retry_duration(value):
            yield DeclarationError(where, "seconds, or a timedelta", value)
    elif not (is_whole_number(value) and 0 <= value <= MAX_RETRY_COUNTS[key]):
        yield DeclarationError(where, f"a whole number from 0 to {MAX_RETRY_COUNTS[key]}", value)


def _is_retry_duration(value: object) -> bool:
    if isinstance(value, timedelta):
        return is_duration(value, timedelta(0), MAX_RETRY_DURATION)
    return is_whole_number(value) and 0 <= value <= MAX_RETRY_DURATION.total_seconds()
