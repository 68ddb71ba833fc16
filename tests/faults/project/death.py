"""Ends this process as SIGKILL does, at the step that a test names."""

from __future__ import annotations

import os
import signal
from pathlib import Path

STEPS = ("before the claim", "after the claim", "in run()", "after run()", "after the outcome")


def here(step: str) -> None:
    """Die if this is the step, and the first time that it is reached."""
    wanted, _, mark = os.environ.get("DIE_AT", "").partition("@")
    if step == wanted and not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
