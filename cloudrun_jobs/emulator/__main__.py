"""``python -m cloudrun_jobs.emulator``: the emulator without Django."""

from __future__ import annotations

import sys

from cloudrun_jobs.emulator.cli import main

sys.exit(main())
