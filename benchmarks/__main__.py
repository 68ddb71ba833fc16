"""Run the benchmarks, or those named: `python -m benchmarks startup sending`."""

from __future__ import annotations

import sys

from benchmarks import (
    admin,
    celery,
    claim,
    cli,
    dashboard,
    emulator,
    http,
    locks,
    logs,
    many,
    runs,
    sending,
    shard,
    startup,
    streams,
    sync,
    urls,
)

BENCHMARKS = {
    "admin": admin.main,
    "startup": startup.main,
    "urls": urls.main,
    "sending": sending.main,
    "many": many.main,
    "emulator": lambda: emulator.main([]),
    "claim": lambda: claim.main([]),
    "locks": lambda: locks.main([]),
    "runs": runs.main,
    "logs": logs.main,
    "http": http.main,
    "streams": streams.main,
    "shard": shard.main,
    "sync": lambda: sync.main([]),
    "cli": cli.main,
    "dashboard": dashboard.main,
    "celery": lambda: celery.main([]),
}

for name in sys.argv[1:] or BENCHMARKS:
    BENCHMARKS[name]()
