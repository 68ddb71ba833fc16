"""Task attempts as local processes: a supervisor that owns them, and the emulator's end of the line to it."""

from __future__ import annotations
