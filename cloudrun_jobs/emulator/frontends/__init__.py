"""The protocols that the emulator is reached by; thin, over one service."""

from __future__ import annotations
