"""The validators of a declaration.

The ranges are Cloud Run's: https://cloud.google.com/run/quotas and the references of `Job` and `TaskTemplate`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from cloudrun_jobs.exceptions import DeclarationError
from cloudrun_jobs.spec.network import check_network
from cloudrun_jobs.spec.resources import check_resources
from cloudrun_jobs.spec.schedule import check_delivery, check_schedules, check_time_zone
from cloudrun_jobs.spec.type_checks import is_options, is_texts, is_whole_number
from cloudrun_jobs.spec.variables import check_variables
from cloudrun_jobs.suggestions import closest

if TYPE_CHECKING:
    from cloudrun_jobs.spec.job import JobSpec

MAX_TIMEOUT = timedelta(hours=168)
MIN_LOCK_LEASE, MAX_LOCK_LEASE = timedelta(minutes=2), timedelta(hours=1)

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


def _check_name(spec: JobSpec) -> Iterator[DeclarationError]:
    if not re.fullmatch(r"[a-z][a-z0-9-]*[a-z0-9]", spec.name):
        expected = "a module name of lower-case letters, digits and underscores, beginning with a letter"
        yield DeclarationError(attribute="name", expected=expected, got=spec.command, id="cloudrun_jobs.E007")


def _check_timeout(spec: JobSpec) -> Iterator[DeclarationError]:
    value = spec.timeout
    if not _is_duration(value, timedelta(seconds=1), MAX_TIMEOUT) or value.microseconds:
        expected = "whole seconds from 1 to 604800 (168 hours), or a timedelta"
        yield DeclarationError(attribute="timeout", expected=expected, got=value)


def _check_ranges(spec: JobSpec) -> Iterator[DeclarationError]:
    for attribute, (low, high, none) in RANGES.items():
        value = getattr(spec, attribute)
        if not (none and value is None) and not (is_whole_number(value) and low <= value <= high):
            expected = f"{none}a whole number from {low} to {high}"
            yield DeclarationError(attribute=attribute, expected=expected, got=value)


def _check_task_parallelism(spec: JobSpec) -> Iterator[DeclarationError]:
    tasks, at_once = spec.tasks, spec.task_parallelism
    if is_whole_number(tasks) and isinstance(at_once, int) and at_once > tasks >= 1:
        expected = f"at most tasks ({tasks})"
        hint = "parallelism is the number of executions at once; task_parallelism that of tasks in one."
        yield DeclarationError(attribute="task_parallelism", expected=expected, got=at_once, hint=hint)


def _check_choices(spec: JobSpec) -> Iterator[DeclarationError]:
    for attribute, known in CHOICES.items():
        value = getattr(spec, attribute)
        if value not in known:
            expected, hint = f"one of {', '.join(known)}", closest(value, known) if isinstance(value, str) else ""
            yield DeclarationError(attribute=attribute, expected=expected, got=value, hint=hint)


def _check_locks(spec: JobSpec) -> Iterator[DeclarationError]:
    if not _is_duration(spec.lock_timeout, timedelta(0), MAX_TIMEOUT):
        expected = "seconds from 0 to 604800, or a timedelta"
        yield DeclarationError(attribute="lock_timeout", expected=expected, got=spec.lock_timeout)
    if spec.lock_lease is not None and not _is_duration(spec.lock_lease, MIN_LOCK_LEASE, MAX_LOCK_LEASE):
        expected = "None or seconds from 120 to 3600, or a timedelta"
        yield DeclarationError(attribute="lock_lease", expected=expected, got=spec.lock_lease)
    if spec.lock_args is not None and not is_texts(spec.lock_args):
        expected = "None or a tuple of the names of options"
        yield DeclarationError(attribute="lock_args", expected=expected, got=spec.lock_args)


def _is_duration(value: object, low: timedelta, high: timedelta) -> bool:
    return isinstance(value, timedelta) and low <= value <= high


def _check_resources(spec: JobSpec) -> Iterator[DeclarationError]:
    return check_resources(spec.cpu, spec.memory)


def _check_service_account(spec: JobSpec) -> Iterator[DeclarationError]:
    value = spec.service_account
    if value is not None and not (isinstance(value, str) and re.fullmatch(r"[\w.+-]+@[\w.-]+", value)):
        expected = "the e-mail address of a service account"
        yield DeclarationError(attribute="service_account", expected=expected, got=value)


def _check_container(spec: JobSpec) -> Iterator[DeclarationError]:
    image, entrypoint = spec.image, spec.entrypoint
    if image is not None and not (isinstance(image, str) and re.fullmatch(r"\S+", image)):
        yield DeclarationError(attribute="image", expected="None or the name of an image", got=image)
    if not is_texts(entrypoint) or not entrypoint or not all(entrypoint):
        expected = "a list of text such as ['python', 'manage.py']"
        yield DeclarationError(attribute="entrypoint", expected=expected, got=entrypoint)
    if not is_options(spec.args):
        expected = "a dictionary of options, as delay() takes them by name"
        yield DeclarationError(attribute="args", expected=expected, got=spec.args)


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
    _check_service_account,
    _check_container,
    check_variables,
    check_network,
)
