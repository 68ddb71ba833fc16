"""CPUs and memory: the ranges of Cloud Run, and the canonical form of an amount.

The ranges are at https://cloud.google.com/run/docs/configuring/jobs/memory-limits
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal

from cloudrun_jobs.exceptions import DeclarationError

# CPUs, and the minimum and maximum memory with up to that many, in MiB.
MEMORY_FOR_CPU = ((1, 512, 4096), (2, 512, 8192), (4, 2048, 16_384), (6, 4096, 24_576), (8, 4096, 32_768))
MIN_MEMORY_BELOW_ONE_CPU = 128  # MiB
MEMORY_UNITS = {"Mi": Decimal(1), "Gi": Decimal(1024), "M": Decimal(10**6) / 2**20, "G": Decimal(10**9) / 2**20}


def check_resources(cpu: object, memory: object) -> Iterator[DeclarationError]:
    cpus, mebibytes = _cpus(cpu), _mebibytes(memory)
    if cpus is None:
        yield DeclarationError("cpu", "0.08 to 1, 2, 4, 6 or 8 CPUs such as 2 or '500m'", cpu)
    if mebibytes is None:
        yield DeclarationError("memory", "an amount such as '512Mi' or '2Gi'", memory)
    if cpus is not None and mebibytes is not None:
        low, high = next((low, high) for max_cpus, low, high in MEMORY_FOR_CPU if cpus <= max_cpus)
        low = low if cpus >= 1 else MIN_MEMORY_BELOW_ONE_CPU
        if not low <= mebibytes <= high:
            yield DeclarationError("memory", f"{low}Mi to {high}Mi with {cpu} CPU", memory)


def _cpus(text: object) -> Decimal | None:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(m?)", text) if isinstance(text, str) else None
    if match is None:
        return None
    cpus = Decimal(match[1]) / (1000 if match[2] else 1)
    return cpus if Decimal("0.08") <= cpus <= 1 or cpus in (2, 4, 6, 8) else None


def _mebibytes(text: object) -> Decimal | None:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(Mi|Gi|M|G)", text) if isinstance(text, str) else None
    return Decimal(match[1]) * MEMORY_UNITS[match[2]] if match else None


def canonical_cpu(text: str) -> str:
    """Return the canonical form of an amount of CPU: "1000m" is "1", "0.5" is "500m"."""
    cpus = _cpus(text)
    if cpus is None:
        return text
    return str(int(cpus)) if cpus == int(cpus) else f"{(cpus * 1000).normalize():f}m"


def canonical_memory(text: str) -> str:
    """Return the canonical form of an amount of memory: "2048Mi" is "2Gi"."""
    mebibytes = _mebibytes(text)
    if mebibytes is None or mebibytes != int(mebibytes):
        return text
    return f"{int(mebibytes)}Mi" if mebibytes % 1024 else f"{int(mebibytes) // 1024}Gi"
