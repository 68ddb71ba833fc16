"""Cloud Tasks: queues, tasks and their dispatch to HTTP targets."""

from __future__ import annotations
