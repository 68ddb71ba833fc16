"""A job whose class is that of another command."""

from __future__ import annotations

from tests.jobs.management.commands.echo import Command

__all__ = ["Command"]
