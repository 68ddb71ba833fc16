"""Celery apps for tests that have no worker."""

from __future__ import annotations

from celery import Celery

app = Celery("tests", set_as_current=False)  # Replaced by the tests.
without_broker = Celery("tests without a broker", set_as_current=False)
