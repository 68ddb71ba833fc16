"""Render jobs, executions and tasks as v1 resources, with their metadata and status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.cloud import run_v2

from cloudrun_jobs.emulator import names
from cloudrun_jobs.emulator.frontends.knative import specs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

API_VERSION = "run.googleapis.com/v1"
ANNOTATION_PREFIX = "run.googleapis.com/"
State = run_v2.Condition.State
STATUS = {State.CONDITION_SUCCEEDED: "True", State.CONDITION_FAILED: "False"}
ExecutionReason = run_v2.Condition.ExecutionReason
CommonReason = run_v2.Condition.CommonReason


def job(resource: run_v2.Job) -> dict[str, Any]:
    v1 = v1_resource("Job", resource, resource.labels, {})
    annotations = v1["metadata"]["annotations"]
    annotations[f"{ANNOTATION_PREFIX}creator"] = resource.creator
    annotations[f"{ANNOTATION_PREFIX}lastModifier"] = resource.last_modifier
    if resource.client:
        annotations[specs.CLIENT_NAME] = resource.client
    if resource.client_version:
        annotations[specs.CLIENT_VERSION] = resource.client_version
    v1["spec"] = specs.job_spec_to_v1(resource)
    v1["status"] = {
        "observedGeneration": resource.observed_generation,
        "conditions": conditions([resource.terminal_condition]),
        "executionCount": resource.execution_count,
        "latestCreatedExecution": _reference(resource.latest_created_execution),
    }
    return v1


def execution(resource: run_v2.Execution) -> dict[str, Any]:
    job_id = resource.job
    v1 = v1_resource("Execution", resource, resource.labels, {f"{ANNOTATION_PREFIX}job": job_id})
    v1["metadata"]["annotations"][f"{ANNOTATION_PREFIX}creator"] = resource.creator
    v1["spec"] = {
        "parallelism": resource.parallelism,
        "taskCount": resource.task_count,
        "template": {"spec": specs.task_spec_to_v1(resource.template)},
    }
    v1["status"] = without_empty(
        observedGeneration=resource.observed_generation,
        conditions=conditions(resource.conditions),
        startTime=timestamp(resource.start_time),
        completionTime=timestamp(resource.completion_time),
        runningCount=resource.running_count,
        succeededCount=resource.succeeded_count,
        failedCount=resource.failed_count,
        cancelledCount=resource.cancelled_count,
        retriedCount=resource.retried_count,
        logUri=resource.log_uri,
    )
    return v1


def task(resource: run_v2.Task) -> dict[str, Any]:
    own = {
        f"{ANNOTATION_PREFIX}job": resource.job,
        f"{ANNOTATION_PREFIX}execution": resource.execution,
        f"{ANNOTATION_PREFIX}taskIndex": str(resource.index),
    }
    v1 = v1_resource("Task", resource, resource.labels, own)
    v1["spec"] = specs.task_spec_to_v1(resource)
    v1["status"] = without_empty(
        observedGeneration=resource.observed_generation,
        conditions=conditions(resource.conditions),
        index=resource.index,
        startTime=timestamp(resource.start_time),
        completionTime=timestamp(resource.completion_time),
        retried=resource.retried,
        lastAttemptResult=_result(resource.last_attempt_result),
        logUri=resource.log_uri,
    )
    # gcloud needs the index even if it is 0.
    v1["status"]["index"] = resource.index
    return v1


def v1_resource(kind: str, resource: Any, labels: Any, own_labels: dict[str, str]) -> dict[str, Any]:
    location = names.location_of(resource.name)
    metadata = {
        "name": names.short(resource.name),
        "namespace": location.project,
        "uid": resource.uid,
        "generation": resource.generation,
        "resourceVersion": resource.etag.strip('"'),
        "creationTimestamp": timestamp(resource.create_time),
        "labels": {**labels, **own_labels, specs.LOCATION_LABEL: location.region},
        "annotations": dict(resource.annotations),
    }
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata}


def conditions(conditions: Iterable[run_v2.Condition]) -> list[dict[str, Any]]:
    return [
        without_empty(
            type=condition.type_,
            status=STATUS.get(condition.state, "Unknown"),
            reason=_reason(condition),
            message=condition.message,
            lastTransitionTime=timestamp(condition.last_transition_time),
        )
        for condition in conditions
    ]


def _reason(condition: run_v2.Condition) -> str:
    """Return the reason of a condition. Without ``Cancelled``, gcloud reports that a cancel failed."""
    if condition.execution_reason != ExecutionReason.EXECUTION_REASON_UNDEFINED:
        return _camel(ExecutionReason(condition.execution_reason).name)
    if condition.reason != CommonReason.COMMON_REASON_UNDEFINED:
        return _camel(CommonReason(condition.reason).name)
    return ""


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _reference(reference: run_v2.ExecutionReference) -> dict[str, Any]:
    if not reference.name:
        return {}
    return without_empty(
        name=reference.name,
        creationTimestamp=timestamp(reference.create_time),
        completionTimestamp=timestamp(reference.completion_time),
        completionStatus=run_v2.ExecutionReference.CompletionStatus(reference.completion_status).name,
    )


def _result(result: run_v2.TaskAttemptResult) -> dict[str, Any]:
    status = without_empty(code=result.status.code, message=result.status.message)
    return without_empty(exitCode=result.exit_code, termSignal=result.term_signal, status=status)


def timestamp(instant: datetime | None) -> str:
    return instant.isoformat().replace("+00:00", "Z") if instant else ""


def without_empty(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}
