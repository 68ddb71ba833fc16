"""Keep the IAM policies of resources, and look up what they grant."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any

from google.iam.v1 import policy_pb2
from google.protobuf import json_format

from cloudrun_jobs.emulator import field_masks
from cloudrun_jobs.emulator.errors import ServiceError, invalid
from cloudrun_jobs.emulator.iam import roles
from cloudrun_jobs.emulator.names import default_account, project_of
from cloudrun_jobs.emulator.service import ANONYMOUS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from google.iam.v1 import iam_policy_pb2

    from cloudrun_jobs.emulator.project.documents import Documents

EMPTY_ETAG = "ACAB"  # The etag of a policy that was never set.
CONDITION_SUFFIX = "_withcond_"
CONDITIONS_VERSION = 3
VERSIONS = (0, 1, CONDITIONS_VERSION)
EVERYONE = ("allUsers", "allAuthenticatedUsers")
MEMBER_TYPES = (
    "user", "serviceAccount", "group", "domain", "principal", "principalSet", "deleted", "projectOwner",
    "projectEditor", "projectViewer",
)  # fmt: skip
ACCOUNT = re.compile(r"projects/([^/]+)/serviceAccounts/([^/]+)")
ACCOUNT_PROJECT = re.compile(r"[^@]+@([a-z0-9-]+)\.iam\.gserviceaccount\.com")


class Policies:
    """The policy of each resource. Each project starts with the policy that the emulator was started with."""

    def __init__(
        self, documents: Documents, of_project: Callable[[str], Mapping[str, Any]], number_of_project: str
    ) -> None:
        self._documents = documents
        self._of_project = of_project
        # The project's number in `of_project`'s policy, which is not the one that the emulator gives a project.
        self._number = number_of_project

    def get(self, resource: str) -> policy_pb2.Policy:
        content = {"version": 1, "etag": EMPTY_ETAG, **self._content(canonical(resource))}
        return json_format.ParseDict(content, policy_pb2.Policy(), ignore_unknown_fields=True)

    def set(self, request: iam_policy_pb2.SetIamPolicyRequest) -> policy_pb2.Policy:
        """Replace the fields of the mask in a policy, unless it changed since the caller read it."""
        _check(request.policy)
        resource = canonical(request.resource)
        paths = set(request.update_mask.paths) or {"bindings"}
        if "bindings" in paths:
            paths.add("version")  # That of the bindings.
        with self._documents.lock:
            existing = self.get(resource)
            _check_unchanged(request.policy, existing)
            policy = field_masks.updated(existing, request.policy, paths)
            policy.version = max(policy.version, 1)
            policy.etag = secrets.token_bytes(9)
            self._documents.put("policy", resource, json_format.MessageToDict(policy))
        return self.get(resource)

    def drop(self, resource: str) -> None:
        """Forget the policy of a deleted resource."""
        self._documents.remove("policy", canonical(resource))

    def grants(self, principal: str, permission: str, resource: str) -> bool:
        """Return True if the policy of the resource, or of one that contains it, grants the permission."""
        members = _members(principal)
        if self._number and principal == default_account(project_of(resource)):
            members.add(f"serviceaccount:{default_account(self._number)}")
        return any(
            not members.isdisjoint(_lower(member) for member in binding.get("members", ()))
            and permission in self._granted(binding.get("role", ""))
            for name in _ancestors(canonical(resource))
            for binding in self._content(name).get("bindings", ())
        )

    def _granted(self, role: str) -> Collection[str]:
        """Return the permissions of a role, or the permission itself, which a policy of the emulator may name."""
        custom: dict[str, Any] | None = self._documents.get("role", role)
        return (
            custom["includedPermissions"]
            if custom is not None
            else roles.roles().get(without_condition(role), (role,))
        )

    def _content(self, resource: str) -> Mapping[str, Any]:
        content = self._documents.get("policy", resource)
        if content is None and resource.count("/") == 1:
            return self._of_project(project_of(resource))
        return content or {}


def canonical(resource: str) -> str:
    """Return the name of a service account with its project, which callers may replace by a hyphen.

    v1 of Cloud Run writes the collection of worker pools in small letters.
    """
    match = ACCOUNT.match(resource)
    if match is None:
        return resource.replace("/workerpools/", "/workerPools/")
    project = ACCOUNT_PROJECT.fullmatch(match[2])
    return f"projects/{project[1] if project else match[1]}/serviceAccounts/{match[2]}"


def is_google_managed(email: str) -> bool:
    """Return True for accounts that exist in every project, such as the default one of Compute Engine."""
    return not ACCOUNT_PROJECT.fullmatch(email) or "@gcp-sa-" in email


def without_condition(role: str) -> str:
    """Return the role of a binding whose condition was left out, for a caller that knows no conditions."""
    return role.partition(CONDITION_SUFFIX)[0]


def check_version(version: int) -> None:
    if version not in VERSIONS:
        raise invalid(f"Invalid policy version {version}: expected 0, 1 or 3.")


def _check(policy: policy_pb2.Policy) -> None:
    check_version(policy.version)
    if policy.version != CONDITIONS_VERSION and any(each.HasField("condition") for each in policy.bindings):
        raise invalid(
            f"Specified policy version ({policy.version}) has no conditions: expected {CONDITIONS_VERSION}."
        )
    for binding in policy.bindings:
        if not roles.is_role(binding.role):
            raise invalid(f"Role {binding.role} is not supported for this resource.")
        for member in binding.members:
            if member not in EVERYONE and member.partition(":")[0] not in MEMBER_TYPES:
                raise invalid(
                    f"The member {member} is of an unknown type. Please set a valid type prefix for the member."
                )


def _check_unchanged(policy: policy_pb2.Policy, existing: policy_pb2.Policy) -> None:
    """Raise an error if the caller read another policy, or read it without its conditions."""
    if not policy.etag:
        return
    if policy.etag != existing.etag:
        raise ServiceError(
            "ABORTED",
            "There were concurrent policy changes. Please retry the whole read-modify-write with exponential "
            "backoff.",
        )
    if policy.version < existing.version:
        raise invalid(
            f"Specified policy version ({policy.version}) cannot be less than the existing policy version "
            f"({existing.version}). For more information, please refer to "
            "https://cloud.google.com/iam/docs/policies#versions."
        )


def _ancestors(resource: str) -> Iterator[str]:
    """Yield the names of the resource's project, of each resource in it that contains the resource, and itself."""
    parts = resource.split("/") if resource.startswith("projects/") else ["projects", "-"]
    for end in range(2, len(parts) + 1, 2):
        yield "/".join(parts[:end])


def _members(principal: str) -> set[str]:
    if principal == ANONYMOUS:
        return {"allusers"}
    email = principal.lower()
    of_domain = f"domain:{email.rpartition('@')[2]}"
    return {"allusers", "allauthenticatedusers", email, f"user:{email}", f"serviceaccount:{email}", of_domain}


def _lower(member: Any) -> str:
    return str(member).lower()
