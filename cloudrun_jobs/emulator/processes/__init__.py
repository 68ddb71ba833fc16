"""Task attempts as local processes: a guardian that owns them, and the emulator's end of the line to it."""

from __future__ import annotations
