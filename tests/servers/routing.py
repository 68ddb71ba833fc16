"""Keeps the app's tables in one of the databases under test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pytest_django import Settings

from cloudrun_jobs.models import JobRun, LockSlot


@dataclass(frozen=True)
class To:
    """A router for `settings.DATABASE_ROUTERS`."""

    alias: str

    def db_for_read(self, model: type, **hints: Any) -> str:
        return self.alias

    db_for_write = db_for_read


class ToJobs(To):
    """A router that keeps this app in the database "jobs", and out of all others."""

    def __init__(self) -> None:
        super().__init__("jobs")

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return db == self.alias if app_label == "cloudrun_jobs" else None


@contextmanager
def records_in(alias: str, settings: Settings, blocker: Any) -> Iterator[None]:
    """Keep the records in this database while the block runs, without those of other tests."""
    settings.DATABASE_ROUTERS = [To(alias)]
    with blocker.unblock():
        forget(alias)
        yield


def forget(alias: str) -> None:
    """Delete all run records and expire all locks."""
    JobRun.objects.using(alias).all().delete()
    LockSlot.objects.using(alias).update(expires_us=0)
