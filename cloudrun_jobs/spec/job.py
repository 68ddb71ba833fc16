"""What a job declares, as one frozen value that is valid from birth."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from hashlib import sha256
from types import MappingProxyType
from typing import Any

from django.conf import settings as django_settings

from cloudrun_jobs import conf
from cloudrun_jobs.exceptions import DeclarationError, InvalidJob, InvalidSettings
from cloudrun_jobs.spec.rules import RULES
from cloudrun_jobs.spec.schedule import Schedule
from cloudrun_jobs.spec.type_checks import is_whole_number
from cloudrun_jobs.suggestions import did_you_mean

MAX_NAME = 63
FROZEN = ("secrets", "env_vars", "args", "labels", "vpc", "retry_config")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A job as declared: what `sync` would write to the cloud and what `delay()` starts."""

    command: str
    environment: str
    schedule: str | Schedule | tuple[str | Schedule, ...] | None = None  # As declared; see `schedules`.
    time_zone: str = "Etc/UTC"
    target: str = "job"  # What a schedule starts: an execution, "job", or the work in the web service, "service".
    retry_config: Mapping[str, int | timedelta] | None = field(default=None, hash=False)  # Of the schedules.
    attempt_deadline: timedelta | None = None  # Of one delivery of a schedule.
    parallelism: int | None = 1  # Executions at once; None: any number.
    timeout: timedelta = timedelta(minutes=10)  # Of one attempt of one task, as Cloud Run counts it.
    max_retries: int = 0  # Of each task. Cloud Run's own default is 3.
    tasks: int = 1
    task_parallelism: int | None = None  # Tasks at once within an execution; None: as many as possible.
    overlap: str = "skip"  # What a run does while the same run is under way.
    lock_args: tuple[str, ...] | None = None  # The options that make two runs the same; None: all.
    lock_timeout: timedelta = timedelta(minutes=10)  # How long a run waits for a lock.
    lock_scope: str = "execution"  # Who holds a lock: an execution with all of its tasks, or each task.
    on_lock_error: str = "fail"  # What a run does when the server of the locks is away.
    lock_lease: timedelta | None = None  # The lease of the job's locks; None: that of the lock backend.
    cpu: str = "1"
    memory: str = "512Mi"
    service_account: str | None = None
    image: str | None = None
    entrypoint: tuple[str, ...] = ("python", "manage.py")
    args: Mapping[str, Any] = field(default_factory=dict, hash=False)  # Of an execution that is given none.
    vpc: Mapping[str, Any] | None = field(default=None, hash=False)
    cloud_sql: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    secrets: Mapping[str, str] = field(
        default_factory=dict, hash=False
    )  # Variable -> "secret" or "secret:version".
    env_vars: Mapping[str, str] = field(default_factory=dict, hash=False)
    declared: frozenset[str] = frozenset()  # The names of what is not our default.

    def __post_init__(self) -> None:
        if problems := [problem for rule in RULES for problem in rule(self)]:
            raise InvalidJob(self.command, problems)
        for name in FROZEN:
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, MappingProxyType(dict(value)))

    @property
    def name(self) -> str:
        """The name of the Cloud Run Job resource."""
        return resource_name(self.command, self.environment)

    @property
    def is_shortened(self) -> bool:
        """Whether that name had to be shortened, and ends in a hash."""
        return self.name != full_name(self.command, self.environment)

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        """When it runs by itself, each with its time zone, and its name unless it is the only one."""
        if self.schedule is None:
            return ()
        if isinstance(self.schedule, tuple):
            return tuple(
                Schedule.of(item).completed(self.time_zone, str(number))
                for number, item in enumerate(self.schedule, start=1)
            )
        return (Schedule.of(self.schedule).completed(self.time_zone),)


DECLARATIONS = tuple(f.name for f in fields(JobSpec) if f.name not in {"command", "environment", "declared"})


def declare(command: str, declared: Mapping[str, Any]) -> JobSpec:
    """Build the spec of a command from what its class declares, over `DEFAULTS`, over our own defaults."""
    settings = conf.load()
    check_declarations("DEFAULTS", settings.defaults)
    values = {"time_zone": django_settings.TIME_ZONE, **settings.defaults, **declared}
    for name, normalise in NORMALISERS.items():
        if name in values:
            values[name] = normalise(values[name])
    explicit = frozenset({*settings.defaults, *declared})
    try:
        return JobSpec(command=command, environment=settings.environment, declared=explicit, **values)
    except InvalidJob as error:
        inherited = settings.defaults.keys() - declared.keys()
        raise InvalidJob(command, [_traced(problem, inherited) for problem in error.problems]) from None


def _traced(problem: DeclarationError, inherited: Set[str]) -> DeclarationError:
    """Say of a fault that is not the class's where it is."""
    if re.split(r"\W", problem.attribute)[0] not in inherited:
        return problem
    return replace(problem, hint=f"{problem.hint} It is from {conf.setting_name('DEFAULTS')}.".strip())


def check_declarations(key: str, declared: Iterable[str]) -> None:
    """Raise `InvalidSettings` for what is no declaration, in a dictionary of the settings."""
    for name in declared:
        if name not in DECLARATIONS:
            hint = did_you_mean(str(name), DECLARATIONS)
            raise InvalidSettings(f"{conf.setting_name(key)}: unknown key {name!r}.", hint=hint)


def resource_name(command: str, environment: str) -> str:
    """Return the Cloud Run name of a command's job; beyond 63 characters its end becomes a hash."""
    name = full_name(command, environment)
    if len(name) <= MAX_NAME:
        return name
    digest = sha256(name.encode()).hexdigest()[:8]
    return f"{name[: MAX_NAME - len(digest) - 1].rstrip('-')}-{digest}"


def full_name(command: str, environment: str) -> str:
    return f"{command.replace('_', '-')}-{environment}"


def _seconds(value: object) -> object:
    # Beyond a year nothing is valid, and far beyond it timedelta itself overflows.
    if isinstance(value, int) and is_whole_number(value) and abs(value) < 10**8:
        return timedelta(seconds=value)
    return value


def _text(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _names(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


NORMALISERS: dict[str, Callable[[object], object]] = {
    "timeout": _seconds,
    "lock_timeout": _seconds,
    "lock_lease": _seconds,
    "attempt_deadline": _seconds,
    "lock_args": _names,
    "schedule": _names,
    "entrypoint": _names,
    "cloud_sql": _names,
    "cpu": _text,
}
