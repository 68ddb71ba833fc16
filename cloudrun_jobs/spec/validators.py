"""The validators of a declaration.

The ranges are Cloud Run's: https://cloud.google.com/run/quotas and the references of `Job` and `TaskTemplate`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from cloudrun_jobs import conf, environ
from cloudrun_jobs.exceptions import DeclarationError, Verbatim
from cloudrun_jobs.spec.resources import check_resources
from cloudrun_jobs.spec.schedule import check_delivery, check_schedules, check_time_zone
from cloudrun_jobs.spec.type_checks import is_duration, is_options, is_text, is_texts, is_whole_number
from cloudrun_jobs.suggestions import closest, did_you_mean

if TYPE_CHECKING:
    from cloudrun_jobs.spec.job import JobSpec

MAX_TIMEOUT = timedelta(hours=168)
MIN_LOCK_LEASE, MAX_LOCK_LEASE = timedelta(minutes=2), timedelta(hours=1)
MAX_LABELS = 64
MAX_VARIABLES, MAX_VARIABLE_BYTES = 1000, 32_768

# Integers: the minimum, the maximum, and what None means where it is allowed.
RANGES = {
    "parallelism": (1, 1000, "None (no limit) or "),
    "max_retries": (0, 10, ""),
    "tasks": (1, 10_000, ""),
    "task_parallelism": (1, 10_000, "None (as many as possible) or "),
}
CHOICES = {
    "overlap": ("skip", "wait", "fail", "allow"),
    "lock_scope": ("execution", "task"),
    "on_lock_error": ("fail", "run"),
}
VPC_TEXTS = ("connector", "network", "subnetwork")
VPC_KEYS = (*VPC_TEXTS, "egress", "tags")
EGRESS = ("private-ranges-only", "all-traffic")


def _check_name(spec: JobSpec) -> Iterator[DeclarationError]:
    names = spec.job_name if isinstance(spec.job_name, Mapping) else {spec.environment: spec.job_name}
    for environment, name in names.items():
        if not is_text(environment, conf.PATTERNS["ENVIRONMENT"][0]) or not _is_job_name(name):
            expected = "a name of up to 63 lower-case letters, digits and hyphens, or a dictionary by environment"
            yield DeclarationError("job_name", expected, spec.job_name)
            return
    if not is_text(spec.name, r"[a-z][a-z0-9-]*[a-z0-9]"):
        expected = "a module name of lower-case letters, digits and underscores, beginning with a letter"
        yield DeclarationError("name", expected, spec.command, id="cloudrun_jobs.E007")


def _is_job_name(name: object) -> bool:
    return name is None or is_text(name, r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


def _check_timeout(spec: JobSpec) -> Iterator[DeclarationError]:
    if not is_duration(spec.timeout, timedelta(seconds=1), MAX_TIMEOUT) or spec.timeout.microseconds:
        expected = "whole seconds from 1 to 604800 (168 hours), or a timedelta"
        yield DeclarationError("timeout", expected, spec.timeout)


def _check_ranges(spec: JobSpec) -> Iterator[DeclarationError]:
    for attribute, (low, high, none) in RANGES.items():
        value = getattr(spec, attribute)
        if not (none and value is None) and not (is_whole_number(value) and low <= value <= high):
            yield DeclarationError(attribute, f"{none}a whole number from {low} to {high}", value)


def _check_task_parallelism(spec: JobSpec) -> Iterator[DeclarationError]:
    tasks, at_once = spec.tasks, spec.task_parallelism
    if is_whole_number(tasks) and isinstance(at_once, int) and at_once > tasks >= 1:
        hint = "parallelism limits the number of executions, task_parallelism the tasks of one execution."
        yield DeclarationError("task_parallelism", f"at most tasks ({tasks})", at_once, hint)


def _check_choices(spec: JobSpec) -> Iterator[DeclarationError]:
    for attribute, known in CHOICES.items():
        value = getattr(spec, attribute)
        if value not in known:
            hint = closest(value, known) if isinstance(value, str) else ""
            yield DeclarationError(attribute, f"one of {', '.join(known)}", value, hint)


def _check_locks(spec: JobSpec) -> Iterator[DeclarationError]:
    if not is_duration(spec.lock_timeout, timedelta(0), MAX_TIMEOUT):
        yield DeclarationError("lock_timeout", "seconds from 0 to 604800, or a timedelta", spec.lock_timeout)
    if spec.lock_lease is not None and not is_duration(spec.lock_lease, MIN_LOCK_LEASE, MAX_LOCK_LEASE):
        yield DeclarationError("lock_lease", "None or seconds from 120 to 3600, or a timedelta", spec.lock_lease)
    if spec.lock_args is not None and not is_texts(spec.lock_args):
        yield DeclarationError("lock_args", "None or a tuple of the names of options", spec.lock_args)


def _check_resources(spec: JobSpec) -> Iterator[DeclarationError]:
    return check_resources(spec.cpu, spec.memory)


def _check_container(spec: JobSpec) -> Iterator[DeclarationError]:
    account, image, entrypoint, instances = spec.service_account, spec.image, spec.entrypoint, spec.cloud_sql
    if account is not None and not is_text(account, r"[\w.+-]+@[\w.-]+"):
        yield DeclarationError("service_account", "the e-mail address of a service account", account)
    if image is not None and not is_text(image, r"\S+"):
        yield DeclarationError("image", "None or the name of an image", image)
    if not is_texts(entrypoint) or not entrypoint or not all(entrypoint):
        yield DeclarationError("entrypoint", "a list of strings such as ['python', 'manage.py']", entrypoint)
    yield from _check_option_names(spec)
    if not is_options(spec.args):
        yield DeclarationError("args", "a dictionary of options, as delay() takes them by name", spec.args)
    if not is_texts(instances) or not all(is_text(name, r"[^:\s]+(:[^:\s]+){2,3}") for name in instances):
        expected = "a list of Cloud SQL instances such as ['project:region:instance']"
        yield DeclarationError("cloud_sql", expected, instances)


def _check_option_names(spec: JobSpec) -> Iterator[DeclarationError]:
    lists = {name: getattr(spec, name) for name in ("http_options", "secret_options")}
    if others := {name: names for name, names in lists.items() if not is_texts(names)}:
        for attribute, names in others.items():
            yield DeclarationError(attribute, "a tuple of the names of options", names)
    elif shared := sorted({*spec.http_options} & {*spec.secret_options}):
        expected, hint = "no option that is in secret_options", "Callers could name any secret of the account."
        yield DeclarationError("http_options", expected, shared, hint, id="cloudrun_jobs.E033")


def _check_target(spec: JobSpec) -> Iterator[DeclarationError]:
    for attribute, expected in (("backend", "the alias of a backend"), ("queue", "the name of a queue")):
        name = getattr(spec, attribute)
        if name is not None and not is_text(name, r"[\w.:-]{1,63}"):
            yield DeclarationError(attribute, f"None or {expected}", name)


def _check_variables(spec: JobSpec) -> Iterator[DeclarationError]:
    for attribute in ("env_vars", "secrets"):
        value = getattr(spec, attribute)
        # Never show a value: it may be a secret in the wrong place.
        if not isinstance(value, Mapping):
            yield DeclarationError(attribute, "a dictionary", _type_name(value))
            return
        if others := [name for name in value if not isinstance(value[name], str)]:
            yield DeclarationError(f"{attribute}[{others[0]!r}]", "a string", _type_name(value[others[0]]))
            return
        for name, text in value.items():
            yield from _check_variable(attribute, name, text)
    if both := sorted(spec.env_vars.keys() & spec.secrets.keys(), key=str):
        yield DeclarationError("env_vars", "no name that is also in secrets", both)
    if (count := len(spec.env_vars) + len(spec.secrets)) >= MAX_VARIABLES:
        yield DeclarationError("env_vars", f"fewer than {MAX_VARIABLES} variables together with secrets", count)


def _check_variable(attribute: str, name: object, value: str) -> Iterator[DeclarationError]:
    where = f"{attribute}[{name!r}]"
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        yield DeclarationError(attribute, "letters, digits and underscores as name", name)
    elif not _is_storable(value):
        yield DeclarationError(where, "text without NUL that UTF-8 can encode", Verbatim("other text"))
    elif re.match(r"CLOUD_RUN_|K_|X_GOOGLE_|PORT$", name) or name in environ.EXECUTION_VARIABLES:
        yield DeclarationError(attribute, "a name that neither Cloud Run nor this package reserves", name)
    elif (size := len(value.encode("utf-8", "surrogatepass"))) > MAX_VARIABLE_BYTES:
        yield DeclarationError(where, f"at most {MAX_VARIABLE_BYTES} bytes", size)
    elif attribute == "secrets" and not re.fullmatch(r"[\w-]{1,255}(:(latest|[0-9]+))?", value):
        expected = "the name of a secret in Secret Manager, such as 'api-key' or 'api-key:3'"
        yield DeclarationError(where, expected, Verbatim("something else"))


def _is_storable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # A lone surrogate.
        return False
    return "\0" not in value


def _type_name(value: object) -> Verbatim:
    return Verbatim(type(value).__name__)


def _check_vpc(spec: JobSpec) -> Iterator[DeclarationError]:
    vpc: object = spec.vpc
    if vpc is None:
        return
    if not isinstance(vpc, Mapping) or not vpc:
        yield DeclarationError("vpc", f"a dictionary with keys among {', '.join(VPC_KEYS)}", vpc)
        return
    for key, value in vpc.items():
        yield from _check_vpc_key(key, value)
    if "connector" in vpc and not {"network", "subnetwork", "tags"}.isdisjoint(vpc):
        yield DeclarationError("vpc", "a connector, or a network and subnetwork", dict(vpc))


def _check_vpc_key(key: object, value: object) -> Iterator[DeclarationError]:
    where = f"vpc[{key!r}]"
    if key not in VPC_KEYS:
        yield DeclarationError("vpc", "a known key", key, did_you_mean(str(key), VPC_KEYS))
    elif key in VPC_TEXTS and not (isinstance(value, str) and value):
        yield DeclarationError(where, "a name", value)
    elif key == "egress" and value not in EGRESS:
        yield DeclarationError(where, " or ".join(EGRESS), value)
    elif key == "tags" and not (isinstance(value, list | tuple) and is_texts(tuple(value))):
        yield DeclarationError(where, "a list of network tags", value)


def _check_labels(spec: JobSpec) -> Iterator[DeclarationError]:
    labels: object = spec.labels
    if not isinstance(labels, Mapping) or len(labels) > MAX_LABELS:
        yield DeclarationError("labels", f"a dictionary of at most {MAX_LABELS} labels", labels)
        return
    for key, value in labels.items():
        if not is_text(key, r"[a-z][a-z0-9_-]{0,62}"):
            expected = "names of lower-case letters, digits, hyphens and underscores"
            yield DeclarationError("labels", expected, key)
        elif not is_text(value, r"[a-z0-9_-]{0,63}"):
            expected = "lower-case letters, digits, hyphens and underscores"
            yield DeclarationError(f"labels[{key!r}]", expected, value)


VALIDATORS = (
    _check_name,
    check_schedules,
    check_time_zone,
    check_delivery,
    _check_timeout,
    _check_ranges,
    _check_task_parallelism,
    _check_choices,
    _check_locks,
    _check_resources,
    _check_container,
    _check_target,
    _check_variables,
    _check_vpc,
    _check_labels,
)
