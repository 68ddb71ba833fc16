"""A job's declarations as one frozen value, valid from birth."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from fnmatch import fnmatchcase
from hashlib import sha256
from types import MappingProxyType
from typing import Any

from django.conf import settings as django_settings

from cloudrun_jobs import conf
from cloudrun_jobs.exceptions import DeclarationError, InvalidJob, InvalidSettings
from cloudrun_jobs.spec.frozen import Frozen
from cloudrun_jobs.spec.schedule import MIN_ATTEMPT_DEADLINE, Schedule, normalise_zone
from cloudrun_jobs.spec.type_checks import is_whole_number
from cloudrun_jobs.spec.validators import VALIDATORS
from cloudrun_jobs.suggestions import did_you_mean

MAX_NAME = 63
SCRIPT = "manage.py"
# The last program of an entrypoint, if it is Python, and its options without -c and -m; elements end in NUL.
INTERPRETER = re.compile(r"(?:^|[/\0])python[0-9.]*(?:\0(?:-[WX]\0[^\0]+|-(?!c|m)[^\0]*))*$")
NO_ITEMS: Mapping[str, Any] = MappingProxyType({})


class JobSpec(Frozen):
    """A job as declared: what `sync` writes to the cloud and `delay()` starts. Raises `InvalidJob`."""

    command: str
    environment: str
    #: The names that the class or the settings declare.
    declared: frozenset[str]

    #: The attributes of `CloudRunJobs`, normalised: durations are timedeltas, lists are tuples.
    job_name: str | Mapping[str, str] | None = None
    schedule: str | Schedule | tuple[str | Schedule, ...] | None = None
    time_zone: str = "Etc/UTC"
    target: str = "job"
    backend: str | None = None
    queue: str | None = None
    retry_config: Mapping[str, int | timedelta] | None = None
    attempt_deadline: timedelta | None = None
    parallelism: int | None = 1
    timeout: timedelta = timedelta(minutes=10)
    max_retries: int = 0
    tasks: int = 1
    task_parallelism: int | None = None
    overlap: str = "skip"
    lock_args: tuple[str, ...] | None = None
    lock_timeout: timedelta = timedelta(minutes=10)
    lock_scope: str = "execution"
    on_lock_error: str = "fail"
    lock_lease: timedelta | None = None
    cpu: str = "1"
    memory: str = "512Mi"
    service_account: str | None = None
    image: str | None = None
    entrypoint: tuple[str, ...] = ("python", "manage.py")
    args: Mapping[str, Any] = NO_ITEMS
    http_options: tuple[str, ...] = ()
    secret_options: tuple[str, ...] = ()
    vpc: Mapping[str, Any] | None = None
    cloud_sql: tuple[str, ...] = ()
    labels: Mapping[str, str] = NO_ITEMS
    secrets: Mapping[str, str] = NO_ITEMS
    env_vars: Mapping[str, str] = NO_ITEMS

    def __init__(
        self, command: str, environment: str, declared: frozenset[str], values: Mapping[str, Any]
    ) -> None:
        vars(self).update(values, command=command, environment=environment, declared=declared)
        if problems := [problem for validator in VALIDATORS for problem in validator(self)]:
            raise InvalidJob(command, problems)
        # The caller's dictionaries may change.
        copies = {name: MappingProxyType(dict(v)) for name, v in values.items() if isinstance(v, Mapping)}
        vars(self).update(copies)

    @property
    def name(self) -> str:
        """The name of the Cloud Run Job resource."""
        return self.declared_name or resource_name(self.command, self.environment)

    @property
    def declared_name(self) -> str:
        """The name that `job_name` declares for the environment; "" if it declares none."""
        name = self.job_name.get(self.environment) if isinstance(self.job_name, Mapping) else self.job_name
        return name or ""

    @property
    def is_shortened(self) -> bool:
        """True if the name is too long for Cloud Run, so that `name` ends in a hash."""
        return not self.declared_name and self.name != _full_name(self.command, self.environment)

    @property
    def script(self) -> str:
        """The first argument of the container: "manage.py" if `entrypoint` is a Python interpreter, else ""."""
        return SCRIPT if is_interpreter(self.entrypoint) else ""

    @property
    def backend_alias(self) -> str:
        """The alias of its backend: the job's own, or that of the first matching route; "" for the default one."""
        routes = conf.load().routes
        matching = (routes[pattern] for pattern in routes if fnmatchcase(self.command, pattern))
        alias = self.backend or next(matching, "")
        return "" if alias == conf.DEFAULT_ALIAS else alias

    @property
    def runs_in_request(self) -> bool:
        """True if the job runs while Cloud Scheduler waits for the response of the web service."""
        if self.target != "service" or self.backend_alias:
            return False
        return conf.load().backend in conf.OWN_BACKENDS

    @property
    def delivery_deadline(self) -> timedelta | None:
        """How long Cloud Scheduler waits for a delivery; None is its own default."""
        if not self.runs_in_request or self.attempt_deadline is not None:
            return self.attempt_deadline
        return max(self.timeout, MIN_ATTEMPT_DEADLINE)

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        """The schedules, each with its time zone, and in a list with its name."""
        if self.schedule is None:
            return ()
        if isinstance(self.schedule, tuple):
            return tuple(
                Schedule.of(item).completed(self.time_zone, str(number))
                for number, item in enumerate(self.schedule, start=1)
            )
        return (Schedule.of(self.schedule).completed(self.time_zone),)

    def scheduler_job_id(self, schedule: Schedule) -> str:
        """Return the name of the Scheduler job of one of the schedules."""
        return f"{self.name}-{schedule.name}" if schedule.name else self.name


def is_interpreter(entrypoint: Sequence[str]) -> bool:
    """Return True if the entrypoint ends in a Python interpreter, so that the first argument is a script."""
    return bool(INTERPRETER.search("\0".join(entrypoint)))


DECLARATIONS = tuple(
    name for name in JobSpec.__annotations__ if name not in {"command", "environment", "declared"}
)


def declare(command: str, declared: Mapping[str, Any]) -> JobSpec:
    """Build the spec of a command from the defaults, `DEFAULTS`, its own declarations, and `RECONCILE`."""
    settings = conf.load()
    reconcile = settings.reconcile if command == conf.RECONCILE_COMMAND else {}
    for key, values in (("DEFAULTS", settings.defaults), ("RECONCILE", reconcile)):
        check_declarations(key, values)
    explicit = {**settings.defaults, **declared, **reconcile}
    values = {"time_zone": django_settings.TIME_ZONE, **explicit}
    for name in NORMALISERS.keys() & values:
        values[name] = NORMALISERS[name](values[name])
    try:
        return JobSpec(command, settings.environment, frozenset(explicit), values)
    except InvalidJob as error:
        inherited = {**dict.fromkeys(settings.defaults, "DEFAULTS"), **dict.fromkeys(declared, "")}
        inherited |= dict.fromkeys(reconcile, "RECONCILE")
        raise InvalidJob(command, [_with_setting(problem, inherited) for problem in error.problems]) from None


def replaced(spec: JobSpec, values: Mapping[str, Any]) -> JobSpec:
    """Return the spec with other values of some declarations. Raises `InvalidJob`."""
    given = {name: NORMALISERS[name](value) if name in NORMALISERS else value for name, value in values.items()}
    own = {name: value for name, value in vars(spec).items() if name in DECLARATIONS}
    return JobSpec(spec.command, spec.environment, spec.declared, {**own, **given})


def _with_setting(problem: DeclarationError, settings: Mapping[str, str]) -> DeclarationError:
    """Name the setting that an invalid value comes from, if it is not the class's."""
    setting = settings.get(re.split(r"\W", problem.attribute)[0])
    if not setting:
        return problem
    return problem._replace(hint=f"{problem.hint} It is from {conf.setting_name(setting)}.".strip())


def check_declarations(key: str, declared: Iterable[str]) -> None:
    """Raise `InvalidSettings` for an unknown declaration in a dictionary of the settings."""
    for name in declared:
        if name not in DECLARATIONS:
            hint = did_you_mean(str(name), DECLARATIONS)
            raise InvalidSettings(f"{conf.setting_name(key)}: unknown key {name!r}.", hint=hint)


def resource_name(command: str, environment: str) -> str:
    """Return the Cloud Run name of a command's job; beyond 63 characters its end becomes a hash."""
    name = _full_name(command, environment)
    if len(name) <= MAX_NAME:
        return name
    digest = sha256(name.encode()).hexdigest()[:8]
    return f"{name[: MAX_NAME - len(digest) - 1].rstrip('-')}-{digest}"


def declared_name(job: str, command: str, environment: str) -> str:
    """Return the name of a Cloud Run Job; "" if it follows from the command and the environment."""
    return "" if job == resource_name(command, environment) else job


def _full_name(command: str, environment: str) -> str:
    return f"{command.replace('_', '-')}-{environment}"


def _seconds(value: object) -> object:
    # No valid duration exceeds a year, and timedelta itself overflows far beyond that.
    return timedelta(seconds=value) if is_whole_number(value) and abs(value) < 10**8 else value


def _text(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


NORMALISERS: dict[str, Callable[[object], object]] = {
    **dict.fromkeys(("timeout", "lock_timeout", "lock_lease", "attempt_deadline"), _seconds),
    **dict.fromkeys(
        ("lock_args", "schedule", "entrypoint", "http_options", "secret_options", "cloud_sql"), _tuple
    ),
    "cpu": _text,
    "time_zone": normalise_zone,
}
