"""Kill this process at the step that a test names."""

from __future__ import annotations

import os
import signal
from pathlib import Path

STEPS = ("before the claim", "after the claim", "in run()", "after run()", "after the outcome")


def here(step: str) -> None:
    """Send SIGKILL to this process if this is the step, the first time that it is reached."""
    chosen, _, mark = os.environ.get("DIE_AT", "").partition("@")
    if step == chosen and not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
