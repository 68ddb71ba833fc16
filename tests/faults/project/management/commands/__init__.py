"""The job."""

from __future__ import annotations
