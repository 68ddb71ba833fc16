"""What happens to jobs, as Django signals. The sender is the command's class.

Receivers are called with `send_robust`: one that raises is logged by Django and harms no job.
"""

from __future__ import annotations

from django.dispatch import Signal

# An execution was asked for. Arguments: spec (JobSpec), run (JobRun), operation (Operation).
job_delayed = Signal()

# run() is about to be called. Arguments: spec, run, task (CloudRunTask or None outside Cloud Run).
job_started = Signal()

# run() got on, at most once a second. Arguments: spec, run, task, done (int), total (int or None), text.
job_progressed = Signal()

# run() ended, its locks are given back, and its record says how it ended, or `run` alone where that could not be
# written. Arguments: spec, run, task, seconds (float, of run() alone), error (what run() raised, or None).
job_finished = Signal()

# An execution stepped aside because its run is another's, or ended before. Arguments: spec, run, task.
execution_superseded = Signal()

# A request was not sent and will be later. The sender is `models.JobRun`. Arguments: run, error.
dispatch_postponed = Signal()

# A run's request was given up. The sender is `models.JobRun`. Arguments: run, error.
dispatch_failed = Signal()

# A container found no record of its run and made one. The sender is `models.JobRun`. Arguments: run.
run_recreated = Signal()

# A run's record could not be written while its work goes on, or is done. The sender is `models.JobRun`.
# Arguments: run, error.
run_record_failed = Signal()

# A run was ended from outside of its container. The sender is `models.JobRun`. Arguments: run.
run_reconciled = Signal()

# A run waits for a lock. Arguments: spec, lock (its name), holders (of `locks.Holder`).
job_waiting = Signal()

# A run stepped aside because the same job runs already, as its record says. Arguments: spec, run, task, lock,
# holders.
job_skipped = Signal()

# A run goes on without a lock whose server is away. Arguments: spec, task, lock, error.
lock_bypassed = Signal()

# A renewal or a release did not reach the server that keeps the locks. The sender is `locks.Lease`.
# Arguments: lease, error.
lease_renewal_failed = Signal()

# A lock is no longer held while its work goes on. The sender is `locks.Lease`. Arguments: lease, reason (str).
lease_lost = Signal()
