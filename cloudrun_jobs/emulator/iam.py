"""Check callers against an IAM policy: the permission of each method, and the roles that grant it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudrun_jobs.emulator.config import InvalidConfiguration
from cloudrun_jobs.emulator.errors import ServiceError, permission_denied

if TYPE_CHECKING:
    from collections.abc import Mapping

PERMISSIONS = {
    "Jobs.CreateJob": "run.jobs.create",
    "Jobs.GetJob": "run.jobs.get",
    "Jobs.ListJobs": "run.jobs.list",
    "Jobs.UpdateJob": "run.jobs.update",
    "Jobs.DeleteJob": "run.jobs.delete",
    "Jobs.RunJob": "run.jobs.run",
    "Jobs.GetIamPolicy": "run.jobs.getIamPolicy",
    "Jobs.SetIamPolicy": "run.jobs.setIamPolicy",
    "Services.CreateService": "run.services.create",
    "Services.GetService": "run.services.get",
    "Services.ListServices": "run.services.list",
    "Services.UpdateService": "run.services.update",
    "Services.DeleteService": "run.services.delete",
    "Revisions.GetRevision": "run.revisions.get",
    "Revisions.ListRevisions": "run.revisions.list",
    "WorkerPools.CreateWorkerPool": "run.workerpools.create",
    "WorkerPools.GetWorkerPool": "run.workerpools.get",
    "WorkerPools.ListWorkerPools": "run.workerpools.list",
    "WorkerPools.UpdateWorkerPool": "run.workerpools.update",
    "WorkerPools.DeleteWorkerPool": "run.workerpools.delete",
    "Executions.GetExecution": "run.executions.get",
    "Executions.ListExecutions": "run.executions.list",
    "Executions.DeleteExecution": "run.executions.delete",
    "Executions.CancelExecution": "run.executions.cancel",
    "Tasks.GetTask": "run.tasks.get",
    "Tasks.ListTasks": "run.tasks.list",
    "Operations.GetOperation": "run.operations.get",
    "Operations.WaitOperation": "run.operations.get",
    "Operations.ListOperations": "run.operations.list",
    "Operations.DeleteOperation": "run.operations.delete",
    "CloudScheduler.ListJobs": "cloudscheduler.jobs.list",
    "CloudScheduler.GetJob": "cloudscheduler.jobs.get",
    "CloudScheduler.CreateJob": "cloudscheduler.jobs.create",
    "CloudScheduler.UpdateJob": "cloudscheduler.jobs.update",
    "CloudScheduler.DeleteJob": "cloudscheduler.jobs.delete",
    "CloudScheduler.PauseJob": "cloudscheduler.jobs.pause",
    "CloudScheduler.ResumeJob": "cloudscheduler.jobs.enable",
    "CloudScheduler.RunJob": "cloudscheduler.jobs.run",
    "LoggingServiceV2.WriteLogEntries": "logging.logEntries.create",
    "LoggingServiceV2.ListLogEntries": "logging.logEntries.list",
    "SecretManagerService.CreateSecret": "secretmanager.secrets.create",
    "SecretManagerService.GetSecret": "secretmanager.secrets.get",
    "SecretManagerService.ListSecrets": "secretmanager.secrets.list",
    "SecretManagerService.UpdateSecret": "secretmanager.secrets.update",
    "SecretManagerService.DeleteSecret": "secretmanager.secrets.delete",
    "SecretManagerService.AddSecretVersion": "secretmanager.versions.add",
    "SecretManagerService.GetSecretVersion": "secretmanager.versions.get",
    "SecretManagerService.AccessSecretVersion": "secretmanager.versions.access",
    "SecretManagerService.ListSecretVersions": "secretmanager.versions.list",
    "SecretManagerService.EnableSecretVersion": "secretmanager.versions.enable",
    "SecretManagerService.DisableSecretVersion": "secretmanager.versions.disable",
    "SecretManagerService.DestroySecretVersion": "secretmanager.versions.destroy",
}
RUN_WITH_OVERRIDES = "run.jobs.runWithOverrides"
RUN_PERMISSIONS = frozenset(name for name in PERMISSIONS.values() if name.startswith("run.")) | {
    RUN_WITH_OVERRIDES
}
VIEW_PERMISSIONS = frozenset(name for name in RUN_PERMISSIONS if name.endswith((".get", ".list")))
SECRET_PERMISSIONS = frozenset(name for name in PERMISSIONS.values() if name.startswith("secretmanager."))
ROLES: Mapping[str, frozenset[str]] = {
    "roles/run.invoker": frozenset({"run.jobs.run"}),
    "roles/run.jobsExecutor": frozenset({"run.jobs.run", "run.executions.cancel"}),
    "roles/run.jobsExecutorWithOverrides": frozenset(
        {"run.jobs.run", RUN_WITH_OVERRIDES, "run.executions.cancel"}
    ),
    "roles/run.viewer": VIEW_PERMISSIONS,
    "roles/run.developer": RUN_PERMISSIONS - {"run.jobs.setIamPolicy"},
    "roles/run.admin": RUN_PERMISSIONS,
    "roles/cloudscheduler.admin": frozenset(n for n in PERMISSIONS.values() if n.startswith("cloudscheduler.")),
    "roles/logging.viewer": frozenset({"logging.logEntries.list"}),
    "roles/logging.logWriter": frozenset({"logging.logEntries.create"}),
    "roles/secretmanager.secretAccessor": frozenset({"secretmanager.versions.access"}),
    "roles/secretmanager.secretVersionAdder": frozenset({"secretmanager.versions.add"}),
    "roles/secretmanager.secretVersionManager": frozenset(
        name for name in SECRET_PERMISSIONS if name.startswith("secretmanager.versions.")
    )
    - {"secretmanager.versions.access"},
    "roles/secretmanager.viewer": frozenset(n for n in SECRET_PERMISSIONS if n.endswith((".get", ".list"))),
    "roles/secretmanager.admin": SECRET_PERMISSIONS,
    "roles/owner": frozenset(PERMISSIONS.values()) | {RUN_WITH_OVERRIDES},
}
PREFIXES = ("run.", "cloudscheduler.", "logging.", "secretmanager.")
MEMBER_PREFIXES = ("serviceAccount:", "user:", "")


class Iam:
    """An IAM policy in the format of ``gcloud projects get-iam-policy``; None allows everything.

    The role of a binding may also be a single permission.
    """

    def __init__(self, policy: Mapping[str, Any] | None) -> None:
        self._allows_everything = policy is None
        self._grants: dict[str, set[str]] = {}
        for binding in (policy or {}).get("bindings", []):
            self._grant(binding)

    def check(self, method: str, request: Any, principal: str) -> None:
        """Raise PERMISSION_DENIED or UNAUTHENTICATED if the policy does not allow the call."""
        if self._allows_everything or method not in PERMISSIONS:
            return
        if principal == "anonymous":
            raise ServiceError(
                "UNAUTHENTICATED",
                "Request is missing required authentication credential. Expected OAuth 2 access token, "
                "login cookie or other valid authentication credential.",
            )
        needed = [PERMISSIONS[method]]
        if method == "Jobs.RunJob" and "overrides" in request:
            needed.append(RUN_WITH_OVERRIDES)
        for permission in needed:
            if not self.allows(principal, permission):
                raise permission_denied(permission, _resource(request))

    def allows(self, principal: str, permission: str) -> bool:
        if self._allows_everything:
            return True
        members = {f"{prefix}{principal}" for prefix in MEMBER_PREFIXES} | {"allUsers"}
        return any(permission in self._grants.get(member, ()) for member in members)

    def _grant(self, binding: Mapping[str, Any]) -> None:
        role = binding.get("role", "")
        if role not in ROLES and not role.startswith(PREFIXES):
            raise InvalidConfiguration(f"expected a permission or a role among {', '.join(ROLES)}, got {role!r}")
        for member in binding.get("members", []):
            self._grants.setdefault(member, set()).update(ROLES.get(role, {role}))


def _resource(request: Any) -> str:
    for field in ("name", "parent", "resource"):
        value = getattr(request, field, "")
        if value:
            return str(value)
    inner = getattr(request, "job", None) or getattr(request, "secret", None)
    return str(getattr(inner, "name", "the project"))
