"""Check the templates of jobs, services and worker pools against the rules of Cloud Run.

https://cloud.google.com/run/docs/configuring/services/cpu and /memory-limits, /gpu, /configuring/labels
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from cloudrun_jobs.emulator.errors import invalid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.cloud import run_v2

MI, GI = 2**20, 2**30
GPU = "nvidia.com/gpu"
RESOURCES = ("cpu", "memory", GPU)
CPU = re.compile(r"(\d+)m|(\d+(?:\.\d+)?)")
UNIT_BYTES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": MI, "Gi": GI}
QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(k|M|G|Ki|Mi|Gi)?")
# The least and the most memory in MiB by the number of millicores.
MEMORY_OF_CPU = {
    1000: (512, 4096),
    2000: (512, 8192),
    4000: (2048, 16384),
    6000: (4096, 24576),
    8000: (4096, 32768),
}
L4 = "nvidia-l4"
L4_CPU, L4_MEMORY_BYTES = 4000, 16 * GI
NAMESPACES = re.compile(r"(?:[^/]+\.)?(?:run|cloud)\.googleapis\.com/|(?:serving|autoscaling)\.knative\.dev/")
# Annotations that gcloud sends over v1, and that no field of v2 stands for.
V1_ANNOTATIONS = frozenset(
    f"run.googleapis.com/{name}"
    for name in (
        "build-id", "enable-automatic-updates", "function-target", "gclb-domain-name", "image-uri",
        "linux-base-image-update", "max-surge", "max-unavailable", "mesh-dataplane", "multi-region-id",
        "overflow-scaling", "regions", "scalingMode", "source-location", "sources", "startupProbeType",
        "threat-detection",
    )
)  # fmt: skip
# The keys that gcloud sets over v1 have a domain: client.knative.dev/nonce.
LABEL_KEY = re.compile(r"(?:[a-z0-9.-]+\.[a-z]+/)?[^\W\dA-Z_][\w-]{0,62}")
LABEL_VALUE = re.compile(r"[\w-]{0,63}")
MAX_LABELS = 64
CONTAINER_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")


def check_metadata(message: Any, where: str) -> None:
    """Check the labels and annotations of a resource or of its template."""
    for field in ("labels", "annotations"):
        for key in getattr(message, field):
            if NAMESPACES.match(key) and key not in V1_ANNOTATIONS:
                raise invalid(
                    f"Violation in {where}.{field}: the key {key!r} is in a namespace that is reserved for the "
                    "system; Cloud Run API v2 has fields instead."
                )
    _check_labels(message.labels, f"{where}.labels")


def check_template(template: Any, where: str = "template") -> None:
    """Check the containers and the volumes of a template, and the references between them."""
    containers = list(template.containers)
    _check_unique([container.name for container in containers], f"{where}.containers")
    _check_unique([volume.name for volume in template.volumes], f"{where}.volumes")
    volumes = {volume.name: volume for volume in template.volumes}
    for container in containers:
        _check_container(container, volumes, {other.name for other in containers}, f"{where}.containers")
    if len(containers) == 1:  # The documented pairs are those of one container.
        _check_resources(template, containers[0], f"{where}.containers.resources.limits")


def memory_bytes(container: run_v2.Container) -> int:
    """Return the memory limit of a container in bytes."""
    text = container.resources.limits.get("memory", "512Mi")
    match = QUANTITY.fullmatch(text)
    if match is None:
        raise invalid(f"Invalid value specified for memory: {text!r} is not a quantity such as 512Mi.")
    return int(float(match[1]) * UNIT_BYTES[match[2] or ""])


def has_gpu(template: Any) -> bool:
    return any(GPU in container.resources.limits for container in template.containers)


def _check_labels(labels: Mapping[str, str], where: str) -> None:
    if len(labels) > MAX_LABELS:
        raise invalid(f"Violation in {where}: got {len(labels)} labels, expected at most {MAX_LABELS}.")
    for key, value in labels.items():
        if (
            not LABEL_KEY.fullmatch(key)
            or not LABEL_VALUE.fullmatch(value)
            or f"{key}{value}" != f"{key}{value}".lower()
        ):
            raise invalid(
                f"Violation in {where}: the label {key}={value} must have at most 63 lowercase letters, digits, "
                "underscores and hyphens on each side, and its key must begin with a letter."
            )


def _check_unique(names: Iterable[str], where: str) -> None:
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise invalid(f"Violation in {where}: the name {twice[0]!r} is used more than once.")


def _check_container(
    container: run_v2.Container, volumes: Mapping[str, run_v2.Volume], names: set[str], where: str
) -> None:
    if container.name and not CONTAINER_NAME.fullmatch(container.name):
        raise invalid(f"Violation in {where}.name: {container.name!r} is not a DNS label.")
    _check_unique([variable.name for variable in container.env], f"{where}.env")
    for name in container.depends_on:
        if name == container.name or name not in names:
            raise invalid(f"Violation in {where}.depends_on: {name!r} is not the name of another container.")
    if len(container.ports) > 1 or any(not 0 <= port.container_port <= 65535 for port in container.ports):
        raise invalid(f"Violation in {where}.ports: expected at most one port, between 1 and 65535.")
    for variable in container.env:
        if "value_source" in variable and not variable.value_source.secret_key_ref.secret:
            raise invalid(f"Violation in {where}.env: the secret of {variable.name!r} is required.")
    _check_mounts(container, volumes, f"{where}.volume_mounts")


def _check_mounts(container: run_v2.Container, volumes: Mapping[str, run_v2.Volume], where: str) -> None:
    _check_unique([mount.mount_path for mount in container.volume_mounts], f"{where}.mount_path")
    for mount in container.volume_mounts:
        volume = volumes.get(mount.name)
        if volume is None:
            raise invalid(f"Violation in {where}.name: {mount.name!r} is not the name of a volume.")
        is_sql = "cloud_sql_instance" in volume
        if not (is_sql and mount.mount_path in ("", "/cloudsql")) and (
            is_sql or not mount.mount_path.startswith("/") or ":" in mount.mount_path
        ):
            expected = "/cloudsql" if is_sql else "an absolute path without ':'"
            raise invalid(f"Violation in {where}.mount_path: got {mount.mount_path!r}, expected {expected}.")
        if mount.sub_path and "secret" in volume:
            raise invalid(f"Violation in {where}.sub_path: it is not supported for a volume of a secret.")


def _check_resources(template: Any, container: run_v2.Container, where: str) -> None:
    limits = container.resources.limits
    unknown = [name for name in limits if name not in RESOURCES]
    if unknown:
        raise invalid(f"{where}: Invalid resource {unknown[0]!r}: expected cpu, memory or {GPU}.")
    cpu, memory = _millicores(limits.get("cpu", "1000m"), where), memory_bytes(container)
    if GPU in limits:
        _check_gpu(template, limits[GPU], cpu, memory, where)
        if template.node_selector.accelerator != L4:
            return
    least, most = _memory_range(cpu, where)
    if not least * MI <= memory <= most * MI:
        raise invalid(
            f"{where}.memory: Invalid value specified for memory. For {cpu / 1000} CPU, memory must be between "
            f"{_size(least)} and {_size(most)} inclusive."
        )


def _millicores(text: str, where: str) -> int:
    match = CPU.fullmatch(text)
    if match is None:
        raise invalid(f"{where}.cpu: Invalid value specified for cpu: {text!r} is not a quantity such as 1000m.")
    return int(match[1]) if match[1] else round(float(match[2]) * 1000)


def _memory_range(cpu: int, where: str) -> tuple[int, int]:
    """Return the least and the most memory in MiB for this number of millicores."""
    if 80 <= cpu < 1000:
        return 128, 512 if cpu < 500 else 1024
    if cpu not in MEMORY_OF_CPU:
        raise invalid(
            f"{where}.cpu: Invalid value specified for cpu. {cpu / 1000:g} CPU is not supported: expected 0.08 to "
            "1, 2, 4, 6 or 8."
        )
    return MEMORY_OF_CPU[cpu]


def _check_gpu(template: Any, count: str, cpu: int, memory: int, where: str) -> None:
    if count != "1":
        raise invalid(f"{where}: Invalid value specified for {GPU}: got {count!r}, expected '1'.")
    accelerator = template.node_selector.accelerator
    if not accelerator:
        raise invalid(f"{where}: {GPU} requires node_selector.accelerator.")
    if accelerator == L4 and (cpu < L4_CPU or memory < L4_MEMORY_BYTES):
        raise invalid(f"{where}: a GPU of type {L4} requires at least 4 CPU and 16Gi of memory.")


def _size(mebibytes: int) -> str:
    return f"{mebibytes}Mi" if mebibytes % 1024 else f"{mebibytes // 1024}Gi"
