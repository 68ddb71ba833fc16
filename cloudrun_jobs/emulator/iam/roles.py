"""The predefined roles of all services, limited to permissions on the resources that exist here.

``roles.json`` maps permissions to the roles that grant exactly these, as Google published them in August 2026.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

CUSTOM_ROLE = re.compile(r"(projects|organizations)/[^/]+/roles/[A-Za-z0-9_.]+")
PREDEFINED_ROLE = re.compile(r"roles/([A-Za-z0-9]+)(\.[A-Za-z0-9]+)*")


@cache
def roles() -> Mapping[str, frozenset[str]]:
    """Return the permissions of each role."""
    content = json.loads(Path(__file__).with_name("roles.json").read_text())
    return {
        f"roles/{name}": granted
        for text, names in content.items()
        for granted in (frozenset(_permissions(text)),)
        for name in names.split()
    }


@cache
def permissions() -> frozenset[str]:
    """Return the permissions that some role grants."""
    return frozenset().union(*roles().values())


def has_role_name(name: str) -> bool:
    """Return True for the name of a custom role, or of a role that Google may have published since."""
    return bool(CUSTOM_ROLE.fullmatch(name) or PREDEFINED_ROLE.fullmatch(name))


def is_role(name: str) -> bool:
    """Return False if no role can have this name: the roles of the emulated services are known."""
    if name in roles() or CUSTOM_ROLE.fullmatch(name):
        return True
    match = PREDEFINED_ROLE.fullmatch(name)
    return match is not None and match[2] is not None and match[1] not in _emulated_services()


def is_permission(name: str) -> bool:
    """Return False if the resource type is emulated and has no such permission."""
    kinds = {each.rpartition(".")[0] for each in permissions()}
    return name in permissions() or name.rpartition(".")[0] not in kinds


@cache
def _emulated_services() -> frozenset[str]:
    return frozenset(each.partition(".")[0] for each in permissions())


def _permissions(text: str) -> list[str]:
    parts = [part.partition(":") for part in text.split()]
    return [f"{kind}.{verb}" for kind, _, verbs in parts for verb in verbs.split(",")]
