"""Which roles of an IAM policy grant the permissions that other accounts need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

BASIC = frozenset({"roles/owner", "roles/editor"})
RUN_ROLES = BASIC | {"roles/run.admin", "roles/run.developer", "roles/run.jobsExecutorWithOverrides"}
ROLES: Mapping[str, frozenset[str]] = {
    "run.jobs.run": RUN_ROLES | {"roles/run.invoker", "roles/run.jobsExecutor"},
    "run.jobs.runWithOverrides": RUN_ROLES,
    "run.routes.invoke": BASIC | {"roles/run.admin", "roles/run.invoker", "roles/run.servicesInvoker"},
    "secretmanager.versions.access": frozenset(
        {"roles/owner", "roles/secretmanager.admin", "roles/secretmanager.secretAccessor"}
    ),
}
EVERYONE = frozenset({"allUsers", "allAuthenticatedUsers"})


def roles_of(policy: Mapping[str, Any], member: str) -> Iterator[str]:
    """Yield the roles that the policy grants to the member. Groups are not resolved."""
    for binding in policy.get("bindings", ()):
        if not EVERYONE.union({member}).isdisjoint(binding.get("members", ())):
            yield binding.get("role", "")


def is_custom(role: str) -> bool:
    """Return True for a role that a project or an organization defines."""
    return role.startswith(("projects/", "organizations/"))


def grants(role: str, permission: str) -> bool:
    """Return True if a predefined role has the permission. Emulators also know single permissions as roles."""
    return role == permission or role in ROLES[permission]
