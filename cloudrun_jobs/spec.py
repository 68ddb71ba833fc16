"""What a job declares, as one frozen value that is valid from birth.

The ranges are Cloud Run's: https://cloud.google.com/run/quotas and the references of `Job` and `TaskTemplate`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from decimal import Decimal
from hashlib import sha256
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings as django_settings

from . import conf, cron
from .exceptions import InvalidJob, InvalidSchedule, InvalidSettings, Problem, did_you_mean

MAX_TIMEOUT = timedelta(hours=168)
MAX_NAME = 63
MAX_VARIABLES = 1000
MAX_VARIABLE_SIZE = 32_768

OVERLAPS = ("skip", "wait", "fail", "allow")
LOCK_SCOPES = ("execution", "task")
BACKEND_ERRORS = ("fail", "run")
HEARTBEATS = ("thread", "process")

# The least memory that Cloud Run demands with so many CPUs, and the most it gives: CPUs, least, most, in MiB.
MEMORY_FOR_CPU = ((1, 512, 4096), (2, 512, 8192), (4, 2048, 16_384), (6, 4096, 24_576), (8, 4096, 32_768))
LEAST_MEMORY_BELOW_ONE_CPU = 128
MEMORY_UNITS = {
    "Mi": Decimal(1),
    "Gi": Decimal(1024),
    "M": Decimal(10**6) / 2**20,
    "G": Decimal(10**9) / 2**20,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A job as declared: what `sync` would write to the cloud and what `delay()` starts."""

    command: str
    environment: str
    schedule: str | None = None  # In Cloud Scheduler's dialect.
    time_zone: str = "Etc/UTC"
    parallelism: int | None = 1  # Executions at once; None: any number.
    timeout: timedelta = timedelta(minutes=10)  # Of one attempt of one task, as Cloud Run counts it.
    max_retries: int = 0  # Of each task. Cloud Run's own default is 3.
    tasks: int = 1
    task_parallelism: int | None = None  # Tasks at once within an execution; None: as many as possible.
    overlap: str = "skip"  # What a run does while the same run is under way.
    lock_args: tuple[str, ...] | None = None  # The options that make two runs the same; None: all.
    lock_timeout: timedelta = timedelta(minutes=10)  # How long a run waits for a lock.
    lock_scope: str = "execution"  # Who holds a lock: an execution with all of its tasks, or each task.
    on_backend_error: str = "fail"  # What a run does when the server of the locks is away.
    heartbeat: str = "thread"  # What renews the locks while the job runs: a thread, or another process.
    cpu: str = "1"
    memory: str = "512Mi"
    service_account: str | None = None
    secrets: Mapping[str, str] = field(
        default_factory=dict, hash=False
    )  # Variable -> "secret" or "secret:version".
    env_vars: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if problems := [problem for rule in RULES for problem in rule(self)]:
            raise InvalidJob(self.command, problems)
        for name in ("secrets", "env_vars"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def name(self) -> str:
        """The name of the Cloud Run Job resource."""
        return resource_name(self.command, self.environment)


DECLARATIONS = tuple(f.name for f in fields(JobSpec) if f.name not in {"command", "environment"})


def declare(command: str, declared: Mapping[str, Any]) -> JobSpec:
    """Build the spec of a command from what its class declares, over `DEFAULTS`, over our own defaults."""
    settings = conf.load()
    for key in settings.defaults:
        if key not in DECLARATIONS:
            hint = did_you_mean(str(key), DECLARATIONS)
            raise InvalidSettings(f"CLOUDRUN_JOBS['DEFAULTS']: unknown key {key!r}.", hint=hint)
    values = {"time_zone": django_settings.TIME_ZONE, **settings.defaults, **declared}
    for name, normalise in NORMALISERS.items():
        if name in values:
            values[name] = normalise(values[name])
    return JobSpec(command=command, environment=settings.environment, **values)


def resource_name(command: str, environment: str) -> str:
    """Return the Cloud Run name of a command's job; beyond 63 characters its end becomes a hash."""
    name = f"{command.replace('_', '-')}-{environment}"
    if len(name) <= MAX_NAME:
        return name
    digest = sha256(name.encode()).hexdigest()[:8]
    return f"{name[: MAX_NAME - len(digest) - 1].rstrip('-')}-{digest}"


def _whole_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _seconds(value: object) -> object:
    # Beyond a year nothing is valid, and far beyond it timedelta itself overflows.
    if isinstance(value, int) and _whole_number(value) and abs(value) < 10**8:
        return timedelta(seconds=value)
    return value


def _text(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _names(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


NORMALISERS: dict[str, Callable[[object], object]] = {
    "timeout": _seconds,
    "lock_timeout": _seconds,
    "lock_args": _names,
    "cpu": _text,
}


def _check_name(spec: JobSpec) -> Iterator[Problem]:
    if not re.fullmatch(r"[a-z][a-z0-9-]*[a-z0-9]", spec.name):
        yield Problem(
            attribute="name",
            expected="a module name of lower-case letters, digits and underscores, beginning with a letter",
            got=spec.command,
            id="cloudrun_jobs.E007",
        )


def _check_schedule(spec: JobSpec) -> Iterator[Problem]:
    if spec.schedule is None:
        return
    expected, hint = "None or a Cloud Scheduler expression", ""
    if isinstance(spec.schedule, str):
        try:
            cron.validate(spec.schedule)
        except InvalidSchedule as error:
            hint = str(error)
        else:
            return
    yield Problem(attribute="schedule", expected=expected, got=spec.schedule, hint=hint, id="cloudrun_jobs.E004")


def _check_time_zone(spec: JobSpec) -> Iterator[Problem]:
    if not _is_time_zone(spec.time_zone):
        expected = "a time zone of the tz database such as 'Asia/Tokyo'"
        yield Problem(attribute="time_zone", expected=expected, got=spec.time_zone, id="cloudrun_jobs.E005")


def _is_time_zone(name: object) -> bool:
    # Files that lie beside the zones, and mean another thing on every machine, or in every second.
    if not isinstance(name, str) or re.match(r"(localtime|posixrules|Factory)$|posix/|right/", name):
        return False
    try:
        return bool(ZoneInfo(name))
    except (KeyError, ValueError, OSError):  # Unknown, a path, a directory.
        return False


def _check_timeout(spec: JobSpec) -> Iterator[Problem]:
    value = spec.timeout
    if isinstance(value, timedelta) and timedelta(seconds=1) <= value <= MAX_TIMEOUT and not value.microseconds:
        return
    yield Problem(
        attribute="timeout", expected="whole seconds from 1 to 604800 (168 hours), or a timedelta", got=value
    )


def _check_numbers(spec: JobSpec) -> Iterator[Problem]:
    for attribute, low, high, none in (
        ("parallelism", 1, 1000, "None (no limit) or "),
        ("max_retries", 0, 10, ""),
        ("tasks", 1, 10_000, ""),
        ("task_parallelism", 1, 10_000, "None (as many as possible) or "),
    ):
        value = getattr(spec, attribute)
        if (none and value is None) or (_whole_number(value) and low <= value <= high):
            continue
        yield Problem(attribute=attribute, expected=f"{none}a whole number from {low} to {high}", got=value)


def _check_task_parallelism(spec: JobSpec) -> Iterator[Problem]:
    tasks, at_once = spec.tasks, spec.task_parallelism
    if _whole_number(tasks) and isinstance(at_once, int) and at_once > tasks >= 1:
        expected = f"at most tasks ({tasks})"
        hint = "parallelism is the number of executions at once; task_parallelism that of tasks in one."
        yield Problem(attribute="task_parallelism", expected=expected, got=at_once, hint=hint)


def _check_locks(spec: JobSpec) -> Iterator[Problem]:
    for attribute, known in (
        ("overlap", OVERLAPS),
        ("lock_scope", LOCK_SCOPES),
        ("on_backend_error", BACKEND_ERRORS),
        ("heartbeat", HEARTBEATS),
    ):
        value = getattr(spec, attribute)
        if value not in known:
            hint = did_you_mean(value, known) if isinstance(value, str) else ""
            yield Problem(attribute=attribute, expected=f"one of {', '.join(known)}", got=value, hint=hint)
    wait = spec.lock_timeout
    if not isinstance(wait, timedelta) or not timedelta(0) <= wait <= MAX_TIMEOUT:
        yield Problem(attribute="lock_timeout", expected="seconds from 0 to 604800, or a timedelta", got=wait)
    names = spec.lock_args
    if names is not None and not (isinstance(names, tuple) and all(isinstance(name, str) for name in names)):
        yield Problem(attribute="lock_args", expected="None or a tuple of the names of options", got=names)


def _check_resources(spec: JobSpec) -> Iterator[Problem]:
    cpus, memory = _cpus(spec.cpu), _mebibytes(spec.memory)
    if cpus is None:
        yield Problem(attribute="cpu", expected="0.08 to 1, 2, 4, 6 or 8 CPUs such as 2 or '500m'", got=spec.cpu)
    if memory is None:
        yield Problem(attribute="memory", expected="an amount such as '512Mi' or '2Gi'", got=spec.memory)
    if cpus is not None and memory is not None:
        least, most = next((least, most) for cpu, least, most in MEMORY_FOR_CPU if cpus <= cpu)
        least = least if cpus >= 1 else LEAST_MEMORY_BELOW_ONE_CPU
        if not least <= memory <= most:
            expected = f"{least}Mi to {most}Mi with {spec.cpu} CPU"
            yield Problem(attribute="memory", expected=expected, got=spec.memory)


def _cpus(text: object) -> Decimal | None:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(m?)", text) if isinstance(text, str) else None
    if match is None:
        return None
    cpus = Decimal(match[1]) / (1000 if match[2] else 1)
    return cpus if Decimal("0.08") <= cpus <= 1 or cpus in (2, 4, 6, 8) else None


def _mebibytes(text: object) -> Decimal | None:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(Mi|Gi|M|G)", text) if isinstance(text, str) else None
    return Decimal(match[1]) * MEMORY_UNITS[match[2]] if match else None


def _check_service_account(spec: JobSpec) -> Iterator[Problem]:
    value = spec.service_account
    if value is not None and not (isinstance(value, str) and re.fullmatch(r"[\w.+-]+@[\w.-]+", value)):
        expected = "the e-mail address of a service account"
        yield Problem(attribute="service_account", expected=expected, got=value)


def _check_variables(spec: JobSpec) -> Iterator[Problem]:
    for attribute in ("env_vars", "secrets"):
        value = getattr(spec, attribute)
        if not isinstance(value, Mapping) or not all(isinstance(v, str) for v in value.values()):
            # Never show the value: it may be what should have been a secret.
            kind = type(value).__name__
            yield Problem(attribute=attribute, expected="a dictionary of text", got=f"<{kind}>")
            return
        yield from _check_variable_names(attribute, value)
    yield from _check_variables_together(spec)


def _check_variable_names(attribute: str, variables: Mapping[str, str]) -> Iterator[Problem]:
    for name, value in variables.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            yield Problem(attribute=attribute, expected="letters, digits and underscores as name", got=name)
        elif re.match(r"CLOUD_RUN_|K_|X_GOOGLE_|PORT$", name) or name in conf.TOLD_VARIABLES:
            expected = "a name that Cloud Run and this package do not keep for themselves"
            yield Problem(attribute=attribute, expected=expected, got=name)
        elif (size := len(value.encode("utf-8", "surrogatepass"))) > MAX_VARIABLE_SIZE:
            yield Problem(attribute=f"{attribute}[{name!r}]", expected="at most 32768 bytes", got=size)
        elif attribute == "secrets" and not re.fullmatch(r"[\w-]{1,255}(:(latest|[0-9]+))?", value):
            expected = "the name of a secret in Secret Manager, such as 'api-key' or 'api-key:3'"
            yield Problem(attribute=f"secrets[{name!r}]", expected=expected, got="<hidden>")


def _check_variables_together(spec: JobSpec) -> Iterator[Problem]:
    if both := sorted(spec.env_vars.keys() & spec.secrets.keys(), key=str):
        yield Problem(attribute="env_vars", expected="no name that secrets has too", got=both)
    if (count := len(spec.env_vars) + len(spec.secrets)) >= MAX_VARIABLES:
        expected = f"fewer than {MAX_VARIABLES} variables together with secrets"
        yield Problem(attribute="env_vars", expected=expected, got=count)


RULES = (
    _check_name,
    _check_schedule,
    _check_time_zone,
    _check_timeout,
    _check_numbers,
    _check_task_parallelism,
    _check_locks,
    _check_resources,
    _check_service_account,
    _check_variables,
)
