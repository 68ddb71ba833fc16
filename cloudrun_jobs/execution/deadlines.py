"""The deadlines of a run's start, heartbeat and shutdown.

Cloud Run sends SIGTERM, and SIGKILL ten seconds later:
https://cloud.google.com/run/docs/container-contract#jobs-shutdown
"""

from __future__ import annotations

# Cloud Run's clock for a task starts first, so a SIGTERM this close to the timeout is caused by the timeout.
TIMEOUT_TOLERANCE_SECONDS = 15.0

SIGTERM_CLEANUP_SECONDS = 8.0  # Afterwards the outcome is recorded without waiting for `run()`.

# In a worker's pool. The worker sends the signal two seconds after its own SIGTERM, and ends after its processes.
POOL_CLEANUP_SECONDS = 6.0

# A worker's clock for a task starts first, so its signal for the time limit may come this early.
TIME_LIMIT_TOLERANCE_SECONDS = 2.0

# The fraction of a lease for which a job may clean up after losing it, before its process is ended. It is smaller
# than `locks.keeper.DEADLINE_MARGIN`, after which the server grants the lock again.
LOST_LEASE_CLEANUP_SHARE = 1 / 12

# How long a run retries while the database of the records is unavailable.
RECORD_START_LIMIT_SECONDS = 30.0
RECORD_END_LIMIT_SECONDS = 60.0
RECORD_END_AFTER_SIGTERM_LIMIT_SECONDS = 4.0

# How long a run waits for the deletion of its reservation. Its outcome is recorded by then.
UNRESERVE_LIMIT_SECONDS = 5.0

HEARTBEAT_INTERVAL = 20.0  # seconds; `models.querysets.HEARTBEAT_TIMEOUT` is six of these
PROGRESS_INTERVAL = 1.0  # seconds between two writes of the progress
