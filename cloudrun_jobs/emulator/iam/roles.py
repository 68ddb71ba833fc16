"""The predefined roles of the emulated services, limited to permissions on the resources that exist here.

``roles.json`` has the permissions of each role by resource type, as Google published them in August 2026.
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
PREDEFINED_ROLE = re.compile(r"roles/[A-Za-z0-9]+(\.[A-Za-z0-9]+)+")


@cache
def roles() -> Mapping[str, frozenset[str]]:
    """Return the permissions of each role."""
    content = json.loads(Path(__file__).with_name("roles.json").read_text())
    return {role: frozenset(_permissions(text)) for role, text in content.items()}


@cache
def permissions() -> frozenset[str]:
    """Return the permissions that some role grants."""
    return frozenset().union(*roles().values())


def is_role(name: str) -> bool:
    """Return True if a role with this name may exist: roles of services that are not emulated grant nothing."""
    if name in roles() or CUSTOM_ROLE.fullmatch(name):
        return True
    return bool(PREDEFINED_ROLE.fullmatch(name)) and _service(name) not in {_service(each) for each in roles()}


def is_permission(name: str) -> bool:
    """Return False if the resource type is emulated and has no such permission."""
    kinds = {each.rpartition(".")[0] for each in permissions()}
    return name in permissions() or name.rpartition(".")[0] not in kinds


def _service(role: str) -> str:
    return role.removeprefix("roles/").partition(".")[0]


def _permissions(text: str) -> list[str]:
    parts = [part.partition(":") for part in text.split()]
    return [f"{kind}.{verb}" for kind, _, verbs in parts for verb in verbs.split(",")]
