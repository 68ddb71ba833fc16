"""Signal-safe primitives of a process, independent of jobs."""

from __future__ import annotations
