"""Parsers to test with, made as Django makes a command's."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser


def make_parser(**kwargs: Any) -> CommandParser:
    """Return the parser of a command without arguments of its own."""
    return BaseCommand().create_parser("manage.py", "job", allow_abbrev=False, **kwargs)


def manage_parser() -> CommandParser:
    """Return the parser with which `manage.py` reads all arguments first (ManagementUtility.execute)."""
    parser = CommandParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--settings")
    parser.add_argument("--pythonpath")
    parser.add_argument("args", nargs="*")
    return parser
