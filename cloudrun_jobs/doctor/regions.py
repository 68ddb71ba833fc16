"""Where Google's regions are, to find the nearest one that has Cloud Scheduler."""

from __future__ import annotations

from collections.abc import Collection
from math import asin, cos, radians, sin, sqrt

# Latitude and longitude, in degrees: https://cloud.google.com/about/locations
PLACES = {
    "africa-south1": (-26, 28),
    "asia-east1": (24, 120),
    "asia-east2": (22, 114),
    "asia-northeast1": (36, 140),
    "asia-northeast2": (35, 135),
    "asia-northeast3": (38, 127),
    "asia-south1": (19, 73),
    "asia-south2": (29, 77),
    "asia-southeast1": (1, 104),
    "asia-southeast2": (-6, 107),
    "asia-southeast3": (14, 100),
    "australia-southeast1": (-34, 151),
    "australia-southeast2": (-38, 145),
    "europe-central2": (52, 21),
    "europe-north1": (61, 27),
    "europe-north2": (59, 18),
    "europe-southwest1": (40, -4),
    "europe-west1": (50, 4),
    "europe-west2": (52, 0),
    "europe-west3": (50, 9),
    "europe-west4": (53, 7),
    "europe-west6": (47, 9),
    "europe-west8": (45, 9),
    "europe-west9": (49, 2),
    "europe-west10": (53, 13),
    "europe-west12": (45, 8),
    "me-central1": (25, 52),
    "me-central2": (26, 50),
    "me-west1": (32, 35),
    "northamerica-northeast1": (46, -74),
    "northamerica-northeast2": (44, -79),
    "northamerica-south1": (21, -100),
    "southamerica-east1": (-24, -47),
    "southamerica-west1": (-33, -71),
    "us-central1": (41, -96),
    "us-east1": (33, -80),
    "us-east4": (39, -77),
    "us-east5": (40, -83),
    "us-south1": (33, -97),
    "us-west1": (46, -121),
    "us-west2": (34, -118),
    "us-west3": (41, -112),
    "us-west4": (36, -115),
}


def nearest(region: str, served: Collection[str]) -> str:
    """Return the nearest of the regions that are served; of unknown ones, the one whose name is most alike."""
    known = [name for name in served if name in PLACES]
    if region in PLACES and known:
        return min(sorted(known), key=lambda name: _distance(PLACES[region], PLACES[name]))
    return max(sorted(served), key=lambda name: _common_prefix(region, name), default="")


def _distance(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Return the angle between two places, in radians."""
    (a, b), (c, d) = (tuple(map(radians, place)) for place in (one, other))
    return 2 * asin(sqrt(sin((c - a) / 2) ** 2 + cos(a) * cos(c) * sin((d - b) / 2) ** 2))


def _common_prefix(one: str, other: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
