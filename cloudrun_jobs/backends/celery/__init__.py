"""The backend that runs jobs on Celery workers.

The message contains only the id of the run. A worker reads everything else from the run's record.
Celery is imported when it is first used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.core.checks import CheckMessage, Error, Warning  # noqa: A004
from django.utils import timezone
from django.utils.module_loading import import_string

from cloudrun_jobs import conf
from cloudrun_jobs.backends.base import Backend, Request, check_number
from cloudrun_jobs.conf import Settings
from cloudrun_jobs.exceptions import DeclarationError, InvalidSettings
from cloudrun_jobs.suggestions import did_you_mean

if TYPE_CHECKING:
    from cloudrun_jobs.models import JobRun
    from cloudrun_jobs.operations import Operation
    from cloudrun_jobs.spec import JobSpec
    from cloudrun_jobs.spec.reservation import Reservation

DISABLED_VARIABLE = "DISABLE_CELERY"

SWITCH = {"": False, "false": False, "0": False, "true": True, "1": True}

DEFAULT_VISIBILITY_TIMEOUT = 3600  # seconds; Celery's own


class CeleryBackend(Backend):
    """Sends runs to the workers of the project's Celery app.

    Options: `app`, the dotted path of the app, imported when first used (default: Celery's current app, which the
    project has imported); `queues`, the names of the queues that jobs may name, the first of which is the default;
    `send_deadline`, the timeout of `delay()` in seconds; `disabled`, True to run the jobs in the process that
    requests them (default: the environment variable DISABLE_CELERY is "true").
    """

    supports_reserve = True
    supports_terminate = True  # In the prefork pool; in other pools, a job ends at its next progress().
    supports_tasks = True
    tracks_executions = False
    submits_triggers = True
    # The deployment of the worker determines these.
    ignored_declarations = (
        "cpu",
        "memory",
        "image",
        "service_account",
        "entrypoint",
        "vpc",
        "cloud_sql",
        "labels",
        "secrets",
    )

    def __init__(
        self,
        settings: Settings,
        *,
        app: str | None = None,
        queues: Sequence[str] = (),
        send_deadline: float = 20.0,
        disabled: bool | None = None,
    ) -> None:
        super().__init__(settings)
        self.queues = _queues(queues)
        check_number("send_deadline", send_deadline)
        self.send_deadline = float(send_deadline)
        is_inline = settings.environment in conf.INLINE_ENVIRONMENTS
        self.is_disabled = is_inline or _is_off(disabled)
        self.app_path = app

    @property
    def app(self) -> Any:
        """The project's Celery app. Raises `InvalidSettings` if it is missing, or has no broker."""
        try:
            from celery import Celery, current_app
        except ImportError as error:
            hint = 'pip install "django-cloudrun-jobs[celery]"'
            raise InvalidSettings(f"{self._where('BACKEND')}: Celery is not installed.", hint=hint) from error
        if self.app_path is None:
            app = current_app._get_current_object()
        else:
            app = self._import_app(self.app_path)
            if not isinstance(app, Celery):
                raise InvalidSettings(f"{self._where('OPTIONS', 'app')}: {self.app_path} is not a Celery app.")
        if not app.conf.broker_url:
            raise InvalidSettings(
                f"{self._where('BACKEND')}: the Celery app {app.main or 'default'!r} has no broker URL.",
                hint="Set CELERY_BROKER_URL, or name the project's app in OPTIONS['app']: 'acme.celery.app'.",
            )
        return app

    def check_transport(self) -> None:
        """Raise `InvalidSettings` if the scheme of the broker's URL is unknown, or its client is not installed."""
        try:
            _ = self.app.connection_for_write().transport_cls
        except (KeyError, ImportError, ValueError) as error:
            detail = str(error.args[0]) if error.args else type(error).__name__
            hint = "Set CELERY_BROKER_URL to a URL such as redis://10.0.0.3:6379/0."
            message = f"{self._where('BACKEND')}: the broker URL of the Celery app cannot be used: {detail}."
            raise InvalidSettings(message, hint=hint) from error

    def _import_app(self, path: str) -> Any:
        try:
            return import_string(path)
        except ImportError as error:
            raise InvalidSettings(f"{self._where('OPTIONS', 'app')}: {error}.") from error

    def _where(self, *keys: str) -> str:
        return conf.setting_name("BACKENDS", self.alias, *keys) if self.alias else conf.setting_name(*keys)

    @property
    def visibility_timeout(self) -> int:
        """The seconds after which the broker delivers a message again that no worker has acknowledged."""
        options = self.app.conf.broker_transport_options or {}
        value = options.get("visibility_timeout", DEFAULT_VISIBILITY_TIMEOUT)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            message = f"broker_transport_options: visibility_timeout: expected seconds, got {value!r}."
            raise InvalidSettings(message, hint="Leave it out: a worker sets it.")
        return int(value)

    def queue_of(self, spec: JobSpec) -> str:
        return spec.queue or (self.queues[0] if self.queues else "")

    def problems(self, spec: JobSpec) -> Iterable[DeclarationError]:
        if spec.queue is not None and self.queues and spec.queue not in self.queues:
            expected = f"one of the queues {', '.join(self.queues)}"
            hint = did_you_mean(spec.queue, self.queues)
            yield DeclarationError("queue", expected, spec.queue, hint, id="cloudrun_jobs.E027")
        if spec.target == "job":
            yield from _english_schedules(spec)
        if spec.task_parallelism is not None:
            hint = "Workers run tasks as they become free: limit the number of workers of a queue instead."
            expected = "None, because Celery does not limit the tasks of one run"
            yield DeclarationError(
                "task_parallelism", expected, spec.task_parallelism, hint, id="cloudrun_jobs.E028"
            )

    def check(self) -> Iterable[CheckMessage]:
        try:
            self.check_transport()
        except InvalidSettings as error:
            yield Error(error.args[0], hint=error.hint or None, id="cloudrun_jobs.E030")

    def check_jobs(self, specs: Sequence[JobSpec]) -> Iterable[CheckMessage]:
        """Check that the broker does not deliver a message again while its run may still be working.

        Without a visibility timeout in the app's settings, a worker sets it.
        """
        try:
            self.check_transport()
        except InvalidSettings:
            return  # check() reports it.
        options = self.app.conf.broker_transport_options or {}
        longest = max((spec.timeout for spec in specs), default=timedelta(0))
        try:
            configured = timedelta(seconds=self.visibility_timeout)
        except InvalidSettings as error:
            yield Error(error.args[0], hint=error.hint, id="cloudrun_jobs.E029")
            return
        if "visibility_timeout" not in options or 2 * longest < configured:
            return
        message = (
            f"broker_transport_options: visibility_timeout: expected more than twice the longest timeout of the "
            f"jobs, {2 * longest.total_seconds():g} seconds, got {options['visibility_timeout']}."
        )
        hint = "The broker would deliver a run again while it is working. Raise it, or leave it out."
        yield Error(message, hint=hint, id="cloudrun_jobs.E029")

    def check_workers(self, specs: Sequence[JobSpec]) -> Iterable[CheckMessage]:
        """Name each queue that no worker listens to."""
        from cloudrun_jobs.backends.celery import messages

        listened = messages.listened_queues(self, timeout=self.send_deadline)
        default = self.app.conf.task_default_queue
        for queue in sorted({*self.queues, *(self.queue_of(spec) or default for spec in specs)} - listened):
            message = f"No worker listens to the queue {queue!r}, so its runs wait."
            hint = f"Start one: celery -A APP worker --queues={queue}"
            yield Warning(message, hint=hint, id="cloudrun_jobs.W015")

    def submit(self, run: JobRun, request: Request, *, timeout: float | None = None) -> Operation:
        """Send a message for each task. Idempotent: the record decides whether it starts an attempt."""
        from cloudrun_jobs.backends.celery import messages
        from cloudrun_jobs.backends.recorded import RecordOperation

        name = messages.send(self, request, timeout=timeout or self.send_deadline)
        return RecordOperation(run, self, name)

    def terminate(self, run: JobRun, *, timeout: float) -> None:
        from cloudrun_jobs.backends.celery import messages

        request = Request(job=run.job, argv=(), run_id=str(run.pk), tasks=run.task_count)
        ids = list(messages.task_ids(request))
        if run.tasks_execution_name:  # Another message calls `reduce()`.
            ids = [f"{run.pk}{messages.REDUCE_SUFFIX}"]
        messages.revoke(self, ids, timeout=timeout)

    def count_waiting(self, queue: str) -> int | None:
        from cloudrun_jobs.backends.celery import messages

        return messages.count_waiting(self, queue, timeout=self.send_deadline)

    def reservation_at(self, time: datetime, spec: JobSpec, now: datetime) -> Reservation:
        """Return exactly this time: the record keeps it, for as long as needed."""
        from cloudrun_jobs.spec.reservation import Reservation

        return Reservation(at=time)

    def reserve(self, request: Request, reservation: Reservation, *, timeout: float) -> str:
        """Keep the run for `reconcile`, which sends it when it is due; send it now if that is soon.

        A message with an ETA waits in a worker's memory, and is delivered again after the visibility timeout.
        """
        from cloudrun_jobs.backends.celery import messages

        delay = reservation.at - timezone.now()
        if delay <= timedelta(0):
            return ""
        self.check_transport()  # Now: the message may follow much later.
        if delay < timedelta(seconds=self.visibility_timeout / 2):
            messages.send(self, request, timeout=timeout, eta=reservation.at)
        return f"reserve:{request.run_id}"

    def unreserve(self, key: str, *, timeout: float) -> None:
        """Do nothing: a worker drops the message of a run that has ended."""


def _is_off(disabled: object) -> bool:
    """Return True if the option, or without it the variable, disables the backend."""
    if disabled is not None:
        if not isinstance(disabled, bool):
            raise InvalidSettings(f"CeleryBackend: disabled: expected True or False, got {disabled!r:.100}.")
        return disabled
    value = os.environ.get(DISABLED_VARIABLE, "").lower()
    if value not in SWITCH:
        raise InvalidSettings(f"{DISABLED_VARIABLE}: expected 'true' or 'false', got {value!r:.100}.")
    return SWITCH[value]


def _queues(names: object) -> tuple[str, ...]:
    given = names if isinstance(names, list | tuple) else (None,)
    if not all(isinstance(name, str) and re.fullmatch(r"[\w.:-]{1,63}", name) for name in given):
        expected = "a list of the names of queues, of up to 63 letters, digits, '_', '.', ':' and '-'"
        raise InvalidSettings(f"CeleryBackend: queues: expected {expected}, got {names!r:.100}.")
    return tuple(given)


def _english_schedules(spec: JobSpec) -> Iterator[DeclarationError]:
    from cloudrun_jobs.cron.english import is_english  # Most jobs have no schedule.

    for schedule in spec.schedules:
        if is_english(schedule.cron):
            expected = "a cron expression of five fields, because celery beat serves it"
            hint = "Their due times are known to Cloud Scheduler alone, which serves jobs with target = 'service'."
            yield DeclarationError("schedule", expected, schedule.cron, hint, id="cloudrun_jobs.E031")
