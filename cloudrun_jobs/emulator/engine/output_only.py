"""The fields of a resource that only the service sets: a caller's values are ignored."""

from __future__ import annotations

from typing import Any

from cloudrun_jobs.emulator.service import raw

GA = 4  # The number in google.api.LaunchStage.
# The fields of jobs, services and worker pools that the API calls "output only", except the name.
FIELDS = frozenset(
    (
        *("uid", "generation", "observed_generation", "etag", "creator", "last_modifier"),
        *("create_time", "update_time", "delete_time", "expire_time"),
        *("conditions", "terminal_condition", "reconciling", "satisfies_pzs", "threat_detection_enabled"),
        *("execution_count", "latest_created_execution"),
        *("latest_created_revision", "latest_ready_revision"),
        *("traffic_statuses", "instance_split_statuses", "uri", "urls"),
    )
)


def prepare(given: Any) -> Any:
    """Return a copy of a resource without output-only fields, and with its default launch stage."""
    resource = type(given)(given)
    pb = raw(resource)
    for name in FIELDS.intersection(pb.DESCRIPTOR.fields_by_name.keys()):
        pb.ClearField(name)
    pb.launch_stage = pb.launch_stage or GA
    return resource
