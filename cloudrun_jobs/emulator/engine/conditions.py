"""The conditions of an execution or a task, and their messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.cloud import run_v2

from cloudrun_jobs.emulator.clock import write_timestamp

if TYPE_CHECKING:
    from datetime import datetime

# The members of proto-plus enumerations are integers to type checkers.
State = run_v2.Condition.State

PENDING, RUNNING = State.CONDITION_PENDING, State.CONDITION_RECONCILING
FAILED, SUCCEEDED = State.CONDITION_FAILED, State.CONDITION_SUCCEEDED

WAITING_TO_START = "Waiting for execution to start."
WAITING_TO_COMPLETE = "Waiting for execution to complete."
PROVISIONED = "Provisioned imported containers."
CANCELLED = "Cancelled by user."
CANCELLING = "Cancelling execution."


def set_condition(
    resource: run_v2.Execution | run_v2.Task,
    type_: str,
    state: int,
    now: datetime,
    message: str = "",
    **reason: int,
) -> None:
    """Set the condition of this type, keeping the order of first appearance."""
    conditions = type(resource).pb(resource).conditions
    condition = next((existing for existing in conditions if existing.type_ == type_), None) or conditions.add()
    condition.Clear()
    condition.type_, condition.state, condition.message = type_, state, message
    write_timestamp(condition.last_transition_time, now)
    for name, value in reason.items():
        setattr(condition, name, value)


def image_missing_message(image: str) -> str:
    return f"Image '{image}' not found."


def imported_message(seconds: float) -> str:
    return f"Imported container image in {format_duration(seconds)}."


def started_message(seconds: float) -> str:
    return f"Started deployed execution in {format_duration(seconds)}."


def completed_message(seconds: float) -> str:
    return f"Execution completed successfully in {format_duration(seconds)}."


def format_duration(seconds: float) -> str:
    """Format a duration as the service does: ``9.8s``, ``2m49.01s``."""
    minutes, rest = divmod(max(round(seconds, 2), 0.0), 60)
    text = f"{rest:.2f}".rstrip("0").rstrip(".") + "s"
    return f"{int(minutes)}m{text}" if minutes else text
