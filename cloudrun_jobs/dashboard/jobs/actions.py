"""Pause and resume the schedules of a job, and release its locks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext as _

from cloudrun_jobs.dashboard.errors import describe
from cloudrun_jobs.dashboard.site import Level, Site
from cloudrun_jobs.dashboard.text import isolated, plain
from cloudrun_jobs.deploy import schedules
from cloudrun_jobs.deploy.target import cloudrun_backend_or_none
from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.http.audit import audit_job
from cloudrun_jobs.locks.jobs import holders_by_job, release
from cloudrun_jobs.registry import find_specs

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponseBase

    from cloudrun_jobs.deploy.cloudrun.pausing import StateChange
    from cloudrun_jobs.http.authentication import Caller
    from cloudrun_jobs.locks import Holder


def pause(site: Site, request: HttpRequest, caller: Caller, command: str) -> HttpResponseBase:
    """Pause the schedules of the job."""
    return _set_paused(site, request, caller, command, paused=True)


def resume(site: Site, request: HttpRequest, caller: Caller, command: str) -> HttpResponseBase:
    """Resume the schedules of the job."""
    return _set_paused(site, request, caller, command, paused=False)


def _set_paused(
    site: Site, request: HttpRequest, caller: Caller, command: str, *, paused: bool
) -> HttpResponseBase:
    spec = next((spec for spec in find_specs() if spec.command == command), None)
    if spec is None:
        message = _("The job %(job)s is no longer declared, so its schedules were not changed.")
        site.notify(request, Level.ERROR, message % {"job": plain(command)})
        return redirect(site.url("jobs"))
    backend = cloudrun_backend_or_none()
    if not spec.schedules or backend is None or not schedules.is_deployed(spec, backend):
        message = _("Cloud Scheduler does not start the job %(job)s, so nothing was changed.")
        site.notify(request, Level.ERROR, message % {"job": plain(command)})
        return redirect(site.url("job", command))
    from cloudrun_jobs.deploy.cloudrun.pausing import set_states

    changes = [*set_states(backend, spec, paused=paused)]
    for level, message in _state_messages(changes, paused=paused):
        site.notify(request, level, message)
    if changed := [change.scheduler_job for change in changes if change.is_changed]:
        audit_job(caller, "pause" if paused else "resume", command, ", ".join(changed))
    # With the state of the schedules, which only Google knows.
    return redirect(f"{site.url('job', command)}?cloud=1")


def _state_messages(changes: Sequence[StateChange], *, paused: bool) -> Iterator[tuple[Level, str]]:
    """Yield a message for those that were changed, for those that were not, and for each error."""
    changed = [change.scheduler_job for change in changes if change.is_changed]
    same = [change.scheduler_job for change in changes if not (change.is_changed or change.error)]
    if changed:
        message = _("Paused: %(names)s.") if paused else _("Resumed: %(names)s.")
        yield Level.SUCCESS, message % {"names": ", ".join(changed)}
    if same:
        message = _("Already paused: %(names)s.") if paused else _("Not paused, so not resumed: %(names)s.")
        yield Level.WARNING, message % {"names": ", ".join(same)}
    for error in dict.fromkeys(describe(change.error) for change in changes if change.error):
        yield Level.ERROR, error


def release_lock(site: Site, request: HttpRequest, caller: Caller, command: str) -> HttpResponseBase:
    """Release a lock of the job, unless its holder has changed since the page was shown."""
    lock, slot, token = (request.POST.get(name, "") for name in ("lock", "slot", "token"))
    try:
        level, message = _release(caller, command, (lock, slot), token)
    except CloudRunJobsError as error:
        level, message = Level.ERROR, describe(error)
    site.notify(request, level, message)
    return redirect(site.url("job", command))


def _release(caller: Caller, command: str, slot: tuple[str, str], token: str) -> tuple[Level, str]:
    """Release the slot if its holder has this token, and return what is so now. Raises `LockError`."""
    holder = _holder(command, slot)
    if holder and str(holder.token) == token and release(holder.lock, holder.slot, holder.token):
        audit_job(caller, "release_lock", command, f"{holder.label} ({holder.holder})")
        message = _("The lock %(lock)s, which %(holder)s held, is released.")
        return Level.SUCCESS, message % _names(holder)
    if holder := _holder(command, slot):
        message = _("Nothing was released: the lock %(lock)s has another holder, %(holder)s since %(since)s.")
        return Level.WARNING, message % _names(holder)
    return Level.WARNING, _("Nothing was released: the lock is no longer held.")


def _holder(command: str, slot: tuple[str, str]) -> Holder | None:
    holders = holders_by_job([command]).get(command, ())
    return next((holder for holder in holders if (holder.lock, str(holder.slot)) == slot), None)


def _names(holder: Holder) -> dict[str, str]:
    since = isolated(f"{timezone.localtime(holder.since):%F %T}")
    return {"lock": plain(holder.label), "holder": plain(holder.holder), "since": since}
