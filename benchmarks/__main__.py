"""Run the benchmarks, or those named: `python -m benchmarks startup sending`."""

from __future__ import annotations

import sys

from benchmarks import emulator, locks, runs, sending, startup, streams, sync

BENCHMARKS = {
    "startup": startup.main,
    "sending": sending.main,
    "emulator": lambda: emulator.main([]),
    "locks": lambda: locks.main([]),
    "runs": runs.main,
    "streams": streams.main,
    "sync": lambda: sync.main([]),
}

for name in sys.argv[1:] or BENCHMARKS:
    BENCHMARKS[name]()
