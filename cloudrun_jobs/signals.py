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
