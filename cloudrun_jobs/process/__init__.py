"""Signal-safe primitives of a process. They know nothing of jobs."""

from __future__ import annotations
