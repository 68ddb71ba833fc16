"""Cloud Logging: the log entries of tasks and deliveries, and their filter language."""

from __future__ import annotations
