"""Write resources of v2 as those of v1, with their metadata and status, and read them from v1."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.cloud import run_v2

from cloudrun_jobs.emulator import names
from cloudrun_jobs.emulator.errors import invalid
from cloudrun_jobs.emulator.frontends.knative import mapping
from cloudrun_jobs.emulator.frontends.knative.fields import Message, Violations
from cloudrun_jobs.emulator.json_reader import violation_error
from cloudrun_jobs.emulator.messages import extend, reduce

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

RUN, SERVING = mapping.RUN, mapping.SERVING
LOCATION_LABEL = "cloud.googleapis.com/location"
State = run_v2.Condition.State
STATUS = {State.CONDITION_SUCCEEDED: "True", State.CONDITION_FAILED: "False"}
ExecutionReason = run_v2.Condition.ExecutionReason
CommonReason = run_v2.Condition.CommonReason


@dataclass(frozen=True)
class Kind:
    """A kind of resources of v1."""

    name: str
    mapping: Message
    status: Callable[[Any], dict[str, Any]]
    labels: Callable[[Any], dict[str, str]] = lambda _: {}
    annotations: Callable[[Any], dict[str, str]] = lambda _: {}
    group: str = RUN

    @property
    def api_version(self) -> str:
        return f"{self.group}v1"

    @property
    def plural(self) -> str:
        return f"{self.name.lower()}s"

    def check(self, v1: dict[str, Any], location: names.Location, short: str = "") -> dict[str, Any]:
        """Return a v1 resource in its canonical form, or raise INVALID_ARGUMENT.

        Its kind, its namespace and, if not empty, its name must be those of the request.
        """
        checked = check(self.mapping, v1, self.name.lower())
        metadata, number = checked.get("metadata", {}), names.project_number(location.project)
        _check_equal("apiVersion", checked.get("apiVersion"), self.api_version)
        _check_equal("kind", checked.get("kind"), self.name)
        _check_equal("metadata.name", metadata.get("name"), short)
        if names.project_number(metadata.get("namespace", number)) != number:
            _check_equal("metadata.namespace", metadata["namespace"], location.project)
        return checked

    def read(self, checked: dict[str, Any], stored: Any) -> Any:
        """Return the v2 message overlaid with a v1 resource in its canonical form."""
        template = checked.get("spec", {}).get("template", {})
        annotations = template.get("metadata", {}).get("annotations", {})
        overlaid = extend(stored)
        self.mapping.overlay(overlaid, checked, mapping.aliases_of(annotations))
        return reduce(overlaid, type(stored))

    def write(self, resource: Any) -> dict[str, Any]:
        """Return the v1 resource."""
        found = self.mapping.render(extend(resource))
        location, short = names.location_of(resource.name), names.short(resource.name)
        found["metadata"] = {
            **found["metadata"],
            "name": short,
            "namespace": location.project,
            "selfLink": f"/apis/{self.api_version}/namespaces/{location.project}/{self.plural}/{short}",
            "uid": resource.uid,
            "generation": resource.generation,
            "resourceVersion": resource.etag.strip('"'),
            "creationTimestamp": timestamp(resource.create_time),
            "labels": {
                **found["metadata"].get("labels", {}),
                **self.labels(resource),
                LOCATION_LABEL: location.region,
            },
            "annotations": {
                **found["metadata"].get("annotations", {}),
                **without_empty(**self.annotations(resource)),
            },
        }
        return {"apiVersion": self.api_version, "kind": self.name, **found, "status": self.status(resource)}


def read_run_request(v1: dict[str, Any], name: str) -> Any:
    """Return the request of ``gcloud run jobs execute``, with its overrides."""
    request = extend(run_v2.RunJobRequest(name=name))
    mapping.RUN_JOB_REQUEST.overlay(request, check(mapping.RUN_JOB_REQUEST, v1, ""), {})
    return reduce(request, run_v2.RunJobRequest)


def check(message: Message, v1: dict[str, Any], root: str) -> dict[str, Any]:
    """Return the JSON object in its canonical form, or raise INVALID_ARGUMENT."""
    violations: Violations = []
    checked = message.check(v1, root, violations)
    if violations:
        raise violation_error(violations)
    return checked or {}


def _check_equal(field: str, given: str | None, expected: str) -> None:
    if given and expected and given != expected:
        raise invalid(f"{field}: Invalid value {given!r}: expected {expected!r}.")


def _people(resource: Any) -> dict[str, str]:
    return {f"{RUN}creator": resource.creator, f"{RUN}lastModifier": getattr(resource, "last_modifier", "")}


def _job_status(job: run_v2.Job) -> dict[str, Any]:
    return {
        "observedGeneration": job.observed_generation,
        "conditions": conditions([job.terminal_condition]),
        "executionCount": job.execution_count,
        "latestCreatedExecution": _reference(job.latest_created_execution),
    }


def _execution_status(execution: run_v2.Execution) -> dict[str, Any]:
    return without_empty(
        observedGeneration=execution.observed_generation,
        conditions=conditions(execution.conditions),
        startTime=timestamp(execution.start_time),
        completionTime=timestamp(execution.completion_time),
        runningCount=execution.running_count,
        succeededCount=execution.succeeded_count,
        failedCount=execution.failed_count,
        cancelledCount=execution.cancelled_count,
        retriedCount=execution.retried_count,
        logUri=execution.log_uri,
    )


def _task_labels(task: run_v2.Task) -> dict[str, str]:
    return {
        f"{RUN}job": task.job,
        f"{RUN}execution": task.execution,
        f"{RUN}taskIndex": str(task.index),
        f"{RUN}runningState": running_state(task),
    }


def running_state(task: run_v2.Task) -> str:
    """Return the state of a task, which is a label in v1."""
    if not task.completion_time:
        return "Running" if task.start_time else "Pending"
    completed = next(each for each in task.conditions if each.type_ == "Completed")
    if completed.state == State.CONDITION_SUCCEEDED:
        return "Succeeded"
    if completed.execution_reason != ExecutionReason.CANCELLED:
        return "Failed"
    return "Cancelled" if task.start_time else "Abandoned"


def _task_status(task: run_v2.Task) -> dict[str, Any]:
    status = without_empty(
        observedGeneration=task.observed_generation,
        conditions=conditions(task.conditions),
        startTime=timestamp(task.start_time),
        completionTime=timestamp(task.completion_time),
        retried=task.retried,
        lastAttemptResult=_result(task.last_attempt_result),
        logUri=task.log_uri,
    )
    # gcloud needs the index even if it is 0.
    return {**status, "index": task.index}


def _service_annotations(service: run_v2.Service) -> dict[str, str]:
    ingress = mapping.SERVICE.render(extend(service))["metadata"]["annotations"].get(f"{RUN}ingress", "")
    return {
        f"{SERVING}creator": service.creator,
        f"{SERVING}lastModifier": service.last_modifier,
        f"{RUN}ingress-status": ingress,
        f"{RUN}urls": json.dumps(list(service.urls)) if service.urls else "",
    }


def _service_status(service: run_v2.Service) -> dict[str, Any]:
    return without_empty(
        observedGeneration=service.observed_generation,
        conditions=conditions([service.terminal_condition, *service.conditions]),
        latestReadyRevisionName=names.short(service.latest_ready_revision),
        latestCreatedRevisionName=names.short(service.latest_created_revision),
        traffic=[_traffic_status(status) for status in service.traffic_statuses],
        url=service.uri,
        address={"url": service.uri} if service.uri else {},
    )


def _traffic_status(status: run_v2.TrafficTargetStatus) -> dict[str, Any]:
    return {**mapping.TRAFFIC.render(extend(status)), **without_empty(url=status.uri)}


def _revision_status(revision: run_v2.Revision) -> dict[str, Any]:
    return without_empty(
        observedGeneration=revision.observed_generation,
        conditions=conditions(revision.conditions),
        imageDigest=_digest(revision.containers[0].image) if revision.containers else "",
    )


def _digest(image: str) -> str:
    """Return the image by a digest that is made of its name: there is no registry."""
    repository, at, _ = image.partition("@")
    if at:
        return image
    head, colon, tag = repository.rpartition(":")
    untagged = head if colon and "/" not in tag else repository
    return f"{untagged}@sha256:{hashlib.sha256(image.encode()).hexdigest()}"


def _pool_status(pool: run_v2.WorkerPool) -> dict[str, Any]:
    return {
        "observedGeneration": pool.observed_generation,
        "conditions": conditions([pool.terminal_condition]),
        "latestReadyRevisionName": names.short(pool.latest_ready_revision),
        "latestCreatedRevisionName": names.short(pool.latest_created_revision),
        "instanceSplits": mapping.WORKER_POOL.render(extend(pool))["spec"].get("instanceSplits", []),
    }


JOB = Kind("Job", mapping.JOB, _job_status, annotations=_people)
EXECUTION = Kind(
    "Execution",
    mapping.EXECUTION,
    _execution_status,
    labels=lambda execution: {f"{RUN}job": execution.job},
    annotations=_people,
)
TASK = Kind("Task", mapping.TASK, _task_status, labels=_task_labels)
SERVICE = Kind("Service", mapping.SERVICE, _service_status, annotations=_service_annotations, group=SERVING)
REVISION = Kind(
    "Revision",
    mapping.REVISION,
    _revision_status,
    labels=lambda revision: {f"{SERVING}service": revision.service},
    group=SERVING,
)
WORKER_POOL = Kind("WorkerPool", mapping.WORKER_POOL, _pool_status, annotations=_people)


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
