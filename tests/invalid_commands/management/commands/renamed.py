"""A job that is another's class under a new name."""

from __future__ import annotations

from tests.jobs.management.commands.echo import Command

__all__ = ["Command"]
