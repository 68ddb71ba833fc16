"""Read the outcome of an execution of Cloud Run.

Tasks are counted, because the long-running operation of a cancelled execution ends without an error.
"""

from __future__ import annotations

from google.cloud.run_v2 import Condition, Execution

from cloudrun_jobs.exceptions import JobCancelled, JobFailed, sentence
from cloudrun_jobs.operations import ExecutionState

TERMINAL_STATES = (Condition.State.CONDITION_SUCCEEDED, Condition.State.CONDITION_FAILED)
CANCELLED_REASONS = (Condition.ExecutionReason.CANCELLED, Condition.ExecutionReason.CANCELLING)

# By the text of the Completed condition, which has a code for the exit status only.
REASONS = {"timeout was reached": "timeout", "memory limit was reached": "out_of_memory"}


def failure(execution: Execution) -> JobFailed | None:
    """Return the error of an execution that ended, or None if every task succeeded."""
    if _succeeded(execution):
        return None
    message = f"{execution.name}: {execution.succeeded_count} of {execution.task_count} tasks succeeded."
    logs = execution.log_uri and f"Logs: {execution.log_uri}"
    hint = " ".join(filter(None, (sentence(_completed(execution).message), logs)))
    return (JobCancelled if _was_cancelled(execution) else JobFailed)(message, hint=hint)


def state_of(execution: Execution) -> ExecutionState:
    containers = execution.template.containers
    status, reason = _outcome(execution)
    # If its image is missing, an execution fails without a completion time.
    has_ended = execution.completion_time or _completed(execution).state in TERMINAL_STATES
    return ExecutionState(
        status=status if has_ended else None,
        reason=reason,
        message="" if _succeeded(execution) else _completed(execution).message,
        image=containers[0].image if containers else "",
        task_count=execution.task_count,
        succeeded_count=execution.succeeded_count,
        failed_count=execution.failed_count,
        cancelled_count=execution.cancelled_count,
        retried_count=execution.retried_count,
    )


def _outcome(execution: Execution) -> tuple[str, str]:
    """Return the status and the reason of an execution that has ended."""
    if _succeeded(execution):
        return "succeeded", ""
    if _was_cancelled(execution):
        return "cancelled", "cancelled"
    message = _completed(execution).message
    return "failed", next((reason for text, reason in REASONS.items() if text in message), "failed")


def _succeeded(execution: Execution) -> bool:
    return bool(execution.task_count) and execution.succeeded_count == execution.task_count


def _was_cancelled(execution: Execution) -> bool:
    return bool(execution.cancelled_count) or _completed(execution).execution_reason in CANCELLED_REASONS


def _completed(execution: Execution) -> Condition:
    """Return the Completed condition. The order of conditions is not stable, and it may be missing at first."""
    return next((condition for condition in execution.conditions if condition.type_ == "Completed"), Condition())
