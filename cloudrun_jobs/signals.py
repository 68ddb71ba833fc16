"""What happens to jobs, as Django signals. The sender is the command's class.

Receivers are called with `send_robust`: one that raises is logged by Django and harms no job.
"""

from __future__ import annotations

from django.dispatch import Signal

# An execution was asked for. Arguments: spec (JobSpec), operation (Operation).
job_delayed = Signal()

# run() is about to be called. Arguments: spec (JobSpec), task (TaskContext or None outside Cloud Run).
job_started = Signal()

# run() ended. Arguments: spec, task, seconds (float), error (what run() raised, or None).
job_finished = Signal()

# A run waits for a lock. Arguments: spec, lock (its name), holders (of `locks.Holder`).
job_waiting = Signal()

# A run stepped aside because the same job runs already. Arguments: spec, task, lock, holders.
job_skipped = Signal()

# A run goes on without a lock whose server is away. Arguments: spec, task, lock, error.
job_unlocked = Signal()

# A renewal or a release did not reach the server that keeps the locks. The sender is `locks.Lease`.
# Arguments: lease, error.
lease_troubled = Signal()

# A lock is no longer held while its work goes on. The sender is `locks.Lease`. Arguments: lease, reason (str).
lease_lost = Signal()
