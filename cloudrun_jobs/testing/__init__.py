"""What the tests of projects that use the app need."""

from __future__ import annotations
