"""Custom roles of projects, and predefined ones, as the IAM API serves them."""

from __future__ import annotations

import base64
import re
import secrets
from typing import TYPE_CHECKING, Any

from cloudrun_jobs.emulator import field_masks
from cloudrun_jobs.emulator.errors import ServiceError, invalid
from cloudrun_jobs.emulator.iam import roles
from cloudrun_jobs.emulator.project.paging import page

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudrun_jobs.emulator.project.documents import Documents
    from cloudrun_jobs.emulator.service import Caller

FIELDS = ("title", "description", "stage", "includedPermissions")
ROLE_ID = re.compile(r"[a-zA-Z0-9_.]{3,64}")


class CustomRoles:
    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def create(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        role_id, given = request.get("roleId", ""), request.get("role", {})
        if not ROLE_ID.fullmatch(role_id):
            raise invalid(f"The role_id {role_id!r} must have a length between 3 and 64 of [a-zA-Z0-9_.].")
        name = f"{request['parent']}/roles/{role_id}"
        if self._documents.get("role", name) is not None:
            raise ServiceError("ALREADY_EXISTS", f"A role named {role_id} in {request['parent']} already exists.")
        self._documents.put("role", name, _checked(given))
        return self._message(name)

    def update(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        name = request["name"]
        before = self._existing(name)
        mask = request.get("updateMask", "")
        self._documents.put("role", name, _checked(field_masks.updated_json(before, request, mask, FIELDS)))
        return self._message(name)

    def get(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        """Return a role with the permissions that exist here."""
        name = request["name"]
        if name in roles.roles():
            return {"name": name, "stage": "GA", "includedPermissions": sorted(roles.roles()[name])}
        return self._message(name)

    def listed(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        names = self._documents.names("role", f"{request['parent']}/roles/")
        return page("roles", [self._message(name) for name in names], request)

    def delete(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        message = self._message(request["name"])
        self._documents.remove("role", request["name"])
        return {**message, "deleted": True}

    def testable_permissions(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        """Return the permissions that a custom role may include, which gcloud reads before it creates one."""
        found = [{"name": name, "stage": "GA"} for name in sorted(roles.permissions())]
        return page("permissions", found, request)

    def _message(self, name: str) -> dict[str, Any]:
        return {"name": name, **self._existing(name)}

    def _existing(self, name: str) -> dict[str, Any]:
        role: dict[str, Any] | None = self._documents.get("role", name)
        if role is None:
            raise ServiceError("NOT_FOUND", f"The role named {name} was not found.")
        return role


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a role. Raises INVALID_ARGUMENT if a permission does not exist."""
    permissions = given.get("includedPermissions", [])
    for permission in permissions:
        if not roles.is_permission(permission):
            raise invalid(f"Permission {permission} is not valid.")
    kept = {key: given[key] for key in FIELDS if key in given}
    etag = base64.b64encode(secrets.token_bytes(9)).decode()
    return {**kept, "includedPermissions": permissions, "etag": etag}
