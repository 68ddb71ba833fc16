"""Validators of a job's network and database connections, and of its labels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from cloudrun_jobs.exceptions import DeclarationError
from cloudrun_jobs.spec.type_checks import is_texts
from cloudrun_jobs.suggestions import did_you_mean

if TYPE_CHECKING:
    from cloudrun_jobs.spec.job import JobSpec

VPC_TEXTS = ("connector", "network", "subnetwork")
VPC_KEYS = (*VPC_TEXTS, "egress", "tags")
EGRESS = ("private-ranges-only", "all-traffic")
MAX_LABELS = 64


def check_network(spec: JobSpec) -> Iterator[DeclarationError]:
    if spec.vpc is not None:
        yield from _check_vpc(spec.vpc)
    instances = spec.cloud_sql
    if not is_texts(instances) or not all(re.fullmatch(r"[^:\s]+(:[^:\s]+){2,3}", name) for name in instances):
        expected = "a list of Cloud SQL instances such as ['project:region:instance']"
        yield DeclarationError(attribute="cloud_sql", expected=expected, got=instances)
    yield from _check_labels(spec.labels)


def _check_vpc(vpc: object) -> Iterator[DeclarationError]:
    if not isinstance(vpc, Mapping) or not vpc:
        expected = f"a dictionary with keys among {', '.join(VPC_KEYS)}"
        yield DeclarationError(attribute="vpc", expected=expected, got=vpc)
        return
    for key, value in vpc.items():
        yield from _check_vpc_key(key, value)
    if "connector" in vpc and not {"network", "subnetwork", "tags"}.isdisjoint(vpc):
        yield DeclarationError(attribute="vpc", expected="a connector, or a network and subnetwork", got=dict(vpc))


def _check_vpc_key(key: object, value: object) -> Iterator[DeclarationError]:
    where = f"vpc[{key!r}]"
    if key not in VPC_KEYS:
        hint = did_you_mean(str(key), VPC_KEYS)
        yield DeclarationError(attribute="vpc", expected="a known key", got=key, hint=hint)
    elif key in VPC_TEXTS and not (isinstance(value, str) and value):
        yield DeclarationError(attribute=where, expected="a name", got=value)
    elif key == "egress" and value not in EGRESS:
        yield DeclarationError(attribute=where, expected=" or ".join(EGRESS), got=value)
    elif key == "tags" and not (isinstance(value, list | tuple) and is_texts(tuple(value))):
        yield DeclarationError(attribute=where, expected="a list of network tags", got=value)


def _check_labels(labels: object) -> Iterator[DeclarationError]:
    if not isinstance(labels, Mapping) or len(labels) > MAX_LABELS:
        expected = f"a dictionary of at most {MAX_LABELS} labels"
        yield DeclarationError(attribute="labels", expected=expected, got=labels)
        return
    for key, value in labels.items():
        if not isinstance(key, str) or not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key):
            expected = "names of lower-case letters, digits, hyphens and underscores"
            yield DeclarationError(attribute="labels", expected=expected, got=key)
        elif not isinstance(value, str) or not re.fullmatch(r"[a-z0-9_-]{0,63}", value):
            expected = "lower-case letters, digits, hyphens and underscores"
            yield DeclarationError(attribute=f"labels[{key!r}]", expected=expected, got=value)
