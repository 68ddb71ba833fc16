"""Django signals of jobs, runs and locks.

They are sent with `send_robust()`: Django logs a receiver's exception, and the job continues. The sender is the
command's class, unless stated otherwise.
"""

from __future__ import annotations

from django.dispatch import Signal

#: An execution was requested. Arguments: spec (JobSpec), run (JobRun), operation (Operation).
job_delayed = Signal()

#: run() is about to be called. Arguments: spec, run, task (CloudRunTask or None outside Cloud Run).
job_started = Signal()

#: run() made progress; sent at most once a second.
#: Arguments: spec, run, task, done (int), total (int or None), text.
job_progressed = Signal()

#: run(), and reduce() if this task called it, ended, the locks are released, and the outcome is recorded, or only
#: in `run` if the database failed.
#: Arguments: spec, run, task, seconds (float, of run() and reduce()), error (the exception of one, or None),
#: propagates (True if the caller gets it, or it is an uncaught exception of the process), result (what run() or
#: reduce() returned, in JSON form; None if it raised).
job_finished = Signal()

#: `with self.item(...)` or the loop over `claim()` raised. Arguments: spec, run, task, item, error,
#: tries (int, how often the item has failed), max_tries (int), is_final (True if it is not retried).
item_failed = Signal()

#: A task was stopped for longer than its lease, and another task took over its items.
#: Arguments: spec, run, task, first, last (int, their indexes in the list).
items_lost = Signal()

#: An execution ended without work: another execution claimed the run, or the run had ended.
#: Arguments: spec, run, task.
execution_superseded = Signal()

#: A request was not dispatched and will be later. The sender is `models.JobRun`. Arguments: run, error.
dispatch_postponed = Signal()

#: A request was not dispatched and will not be. The sender is `models.JobRun`.
#: Arguments: run, error, propagates (True if the caller gets it).
dispatch_failed = Signal()

#: A caller of the HTTP API, or a user of the admin or the dashboard, started, cancelled or reran a run. The sender
#: is `models.JobRun`. Arguments: run, action ("start", "cancel" or "rerun"), caller (the name of the credential or
#: of the user).
run_action = Signal()

#: A member of staff paused or resumed the schedules of a job, or released one of its locks. The sender is
#: `models.JobRun`. Arguments: command, action ("pause", "resume" or "release_lock"), subject (str, the Scheduler
#: jobs, or the lock and its holder), caller (the name of the user).
job_action = Signal()

#: A request to the HTTP API was not counted, because Django's cache is unavailable: `RATE` does not limit it.
#: The sender is `http.credentials.Rate`. Arguments: caller, error.
rate_limit_failed = Signal()

#: A container found no record of its run and created one. The sender is `models.JobRun`. Arguments: run.
run_recreated = Signal()

#: The record of a run could not be written during or after its work. The sender is `models.JobRun`.
#: Arguments: run, error.
run_record_failed = Signal()

#: The outcome of a run was recorded by another process. The sender is `models.JobRun`. Arguments: run.
run_reconciled = Signal()

#: A run without a heartbeat was sent to its queue again: its message or its worker may be lost. The sender is
#: `models.JobRun`. Arguments: run, silent_since (the time of the last heartbeat, or of the request).
run_redelivered = Signal()

#: A queue worker has dropped a message that names no run of this environment. The sender is `models.JobRun`.
#: Arguments: task_id, error.
message_rejected = Signal()

#: The locks of an ended run could not be released, so they expire. The sender is `models.JobRun`.
#: Arguments: run, error.
lock_release_failed = Signal()

#: A run waits for a lock. Arguments: spec, lock (its name), holders (of `locks.Holder`).
job_waiting = Signal()

#: A run was skipped because the lock is held. Arguments: spec, run, task, lock, holders (empty if another task
#: of the execution decided that).
job_skipped = Signal()

#: A run continues without a lock whose server is unavailable. Arguments: spec, task, lock, error.
lock_bypassed = Signal()

#: A renewal or a release of a lock failed. The sender is `locks.Lease`. Arguments: lease, error.
lease_renewal_failed = Signal()

#: A lock was lost while its work continues. The sender is `locks.Lease`. Arguments: lease, reason (str).
lease_lost = Signal()
