"""The regions in which the services are available, as documented in October 2026."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.cloud.location import locations_pb2

from cloudrun_jobs.emulator.engine.store import paginate
from cloudrun_jobs.emulator.errors import ServiceError, invalid
from cloudrun_jobs.emulator.names import project_of, short
from cloudrun_jobs.emulator.project.paging import page

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from cloudrun_jobs.emulator.service import Caller

    Handle = Callable[[Mapping[str, Any], Caller], dict[str, Any]]

SCHEDULER_REGIONS = (
    "asia-east1", "asia-east2", "asia-northeast1", "asia-northeast2", "asia-northeast3", "asia-south1",
    "asia-south2", "asia-southeast1", "asia-southeast2", "asia-southeast3", "australia-southeast1",
    "europe-central2", "europe-west1", "europe-west12", "europe-west2", "europe-west3", "europe-west4",
    "europe-west6", "europe-west8", "europe-west9", "me-central1", "me-central2", "me-west1",
    "northamerica-northeast1", "northamerica-northeast2", "southamerica-east1", "us-central1", "us-east1",
    "us-east4", "us-south1", "us-west1", "us-west2", "us-west3", "us-west4",
)  # fmt: skip
RUN_REGIONS = (
    "africa-south1", "asia-east1", "asia-east2", "asia-northeast1", "asia-northeast2", "asia-northeast3",
    "asia-south1", "asia-south2", "asia-southeast1", "asia-southeast2", "asia-southeast3",
    "australia-southeast1", "australia-southeast2", "europe-central2", "europe-north1", "europe-north2",
    "europe-southwest1", "europe-west1", "europe-west10", "europe-west12", "europe-west2", "europe-west3",
    "europe-west4", "europe-west6", "europe-west8", "europe-west9", "me-central1", "me-central2", "me-west1",
    "northamerica-northeast1", "northamerica-northeast2", "northamerica-south1", "southamerica-east1",
    "southamerica-west1", "us-central1", "us-east1", "us-east4", "us-east5", "us-south1", "us-west1",
    "us-west2", "us-west3", "us-west4",
)  # fmt: skip


def check_scheduler_region(region: str) -> None:
    """Raise the error of Cloud Scheduler for a region that it does not serve."""
    if region not in SCHEDULER_REGIONS:
        raise invalid(f"Location '{region}' is not a valid location. Use ListLocations to list valid locations.")


def get_scheduler_location(request: locations_pb2.GetLocationRequest, _: Caller) -> locations_pb2.Location:
    region = short(request.name)
    if region not in SCHEDULER_REGIONS:
        raise ServiceError("NOT_FOUND", f"Location {region} is not found or access is unauthorized.")
    return locations_pb2.Location(**_location(project_of(request.name), region))


def list_scheduler_locations(
    request: locations_pb2.ListLocationsRequest, _: Caller
) -> locations_pb2.ListLocationsResponse:
    found = [locations_pb2.Location(**_location(project_of(request.name), region)) for region in SCHEDULER_REGIONS]
    items, token = paginate(found, request.page_size, request.page_token)
    return locations_pb2.ListLocationsResponse(locations=items, next_page_token=token)


def lister(regions: Collection[str]) -> Handle:
    """Return the ListLocations of a service whose gRPC clients call that of Cloud Scheduler."""
    return lambda request, _: page(
        "locations", [_json(project_of(request["name"]), region) for region in regions], request
    )


def getter(regions: Collection[str]) -> Handle:
    """Return the GetLocation of such a service."""

    def get(request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        region = short(request["name"])
        if region not in regions:
            raise ServiceError("NOT_FOUND", f"Location {region} is not found or access is unauthorized.")
        return _json(project_of(request["name"]), region)

    return get


def _json(project: str, region: str) -> dict[str, Any]:
    location = _location(project, region)
    location["locationId"] = location.pop("location_id")
    return location


def _location(project: str, region: str) -> dict[str, Any]:
    return {
        "name": f"projects/{project}/locations/{region}",
        "location_id": region,
        "labels": {"cloud.googleapis.com/region": region},
    }
