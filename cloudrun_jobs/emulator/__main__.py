"""Run the emulator without Django: ``python -m cloudrun_jobs.emulator``."""

from __future__ import annotations

import sys

from cloudrun_jobs.emulator.cli import main

sys.exit(main())
