"""Check callers against the IAM policies of resources."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any

from google.iam.v1 import iam_policy_pb2, policy_pb2

from cloudrun_jobs.emulator.errors import ServiceError, act_as_denied, invalid, permission_denied
from cloudrun_jobs.emulator.iam import initial_policy, roles
from cloudrun_jobs.emulator.iam.permissions import (
    ACT_AS,
    PERMISSIONS,
    accounts_of,
    additional_permissions,
    resources_of,
)
from cloudrun_jobs.emulator.iam.policies import (
    CONDITION_SUFFIX,
    CONDITIONS_VERSION,
    Policies,
    check_version,
    is_google_managed,
)
from cloudrun_jobs.emulator.names import default_account, project_number, project_of
from cloudrun_jobs.emulator.service import ANONYMOUS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudrun_jobs.emulator.project.documents import Documents
    from cloudrun_jobs.emulator.service import Caller

logger = logging.getLogger(__name__)


class Iam:
    """The policies, and the checks against them. Without a policy for projects, everything is allowed.

    The policy has the format of ``gcloud projects get-iam-policy``. The role of a binding may also be a single
    permission.
    """

    def __init__(self, policy: Mapping[str, Any] | None, documents: Documents) -> None:
        self.is_enforced = policy is not None
        self._initial = initial_policy.read({} if policy is None else policy)
        self._documents = documents
        self.mentioned_accounts = initial_policy.service_accounts(self._initial)
        of_project = (lambda _: self._initial) if self.is_enforced else open_policy
        self.policies = Policies(documents, of_project, initial_policy.project_number(self._initial))

    def warn_of_unevaluated(self) -> None:
        """Log once what the emulator does not evaluate of the policy that it started with."""
        found = initial_policy.not_evaluated(self._initial, self._documents.names("role"))
        if found:
            logger.warning("The emulator checks a part of the IAM policy. Not evaluated: %s.", "; ".join(found))

    def check(self, method: str, request: Any, principal: str) -> None:
        """Raise PERMISSION_DENIED if the policies do not allow the call."""
        if not self.is_enforced or method not in PERMISSIONS:
            return
        for resource in resources_of(request) or [""]:
            self._check_resource(method, request, principal, resource)

    def _check_resource(self, method: str, request: Any, principal: str, resource: str) -> None:
        if resource.startswith("roles/"):
            return  # Predefined roles are public.
        for permission in (PERMISSIONS[method], *additional_permissions(method, request)):
            if not self.allows(principal, permission, resource):
                raise permission_denied(permission, resource or "the project")
        for email in accounts_of(method, request):
            self._check_act_as(principal, email or default_account(project_of(resource)), resource, method)

    def authenticate(self, principal: str) -> None:
        """Raise UNAUTHENTICATED if the call has no credential."""
        if self.is_enforced and principal == ANONYMOUS:
            raise ServiceError(
                "UNAUTHENTICATED",
                "Request is missing required authentication credential. Expected OAuth 2 access token, "
                "login cookie or other valid authentication credential.",
            )

    def allows(self, principal: str, permission: str, resource: str) -> bool:
        return not self.is_enforced or self.policies.grants(principal, permission, resource)

    def account_exists(self, email: str) -> bool:
        """Return True if a service account exists. Without checks, every account exists until it is deleted."""
        email = email.lower()
        account = self._documents.get("account", email)
        if account is not None:
            return not account["deleted"]
        return not self.is_enforced or email in self.mentioned_accounts or is_google_managed(email)

    def _check_act_as(self, principal: str, email: str, resource: str, method: str) -> None:
        account = f"projects/{project_of(resource)}/serviceAccounts/{email}"
        if not (self.account_exists(email) and self.allows(principal, ACT_AS, account)):
            raise act_as_denied(email, method)


def open_policy(project: str) -> Mapping[str, Any]:
    """Return the policy of a project without checks, for clients that read it."""
    agent = f"serviceAccount:service-{project_number(project)}@gcp-sa-cloudscheduler.iam.gserviceaccount.com"
    return {
        "bindings": [
            {"role": "roles/owner", "members": ["allUsers"]},
            # The service grants this one when Cloud Scheduler is enabled.
            {"role": "roles/cloudscheduler.serviceAgent", "members": [agent]},
        ]
    }


class PolicyMethods:
    """GetIamPolicy, SetIamPolicy and TestIamPermissions of one type of resource."""

    def __init__(self, iam: Iam, check_exists: Callable[[str], Any]) -> None:
        self._iam = iam
        self._check_exists = check_exists

    def get(self, request: iam_policy_pb2.GetIamPolicyRequest, _: Caller) -> policy_pb2.Policy:
        self._check_exists(request.resource)
        check_version(request.options.requested_policy_version)
        policy = self._iam.policies.get(request.resource)
        if request.options.requested_policy_version < CONDITIONS_VERSION:
            _hide_conditions(policy)
        return policy

    def set(self, request: iam_policy_pb2.SetIamPolicyRequest, _: Caller) -> policy_pb2.Policy:
        self._check_exists(request.resource)
        # Members of accounts that were deleted later may stay.
        added = _members(request.policy) - _members(self._iam.policies.get(request.resource))
        for member in sorted(added):
            kind, _colon, email = member.partition(":")
            if kind == "serviceAccount" and not self._iam.account_exists(email):
                raise invalid(f"Service account {email} does not exist.")
        return self._iam.policies.set(request)

    def test(self, request: iam_policy_pb2.TestIamPermissionsRequest, caller: Caller) -> Any:
        """Return the permissions that the caller has; none on a resource that does not exist."""
        for name in request.permissions:
            if not roles.is_permission(name):
                raise invalid(f"Permission {name} is not valid for this resource.")
        if self._iam.is_enforced and not self._exists(request.resource):
            return iam_policy_pb2.TestIamPermissionsResponse()
        held = [name for name in request.permissions if self._iam.allows(caller.principal, name, request.resource)]
        return iam_policy_pb2.TestIamPermissionsResponse(permissions=held)

    def _exists(self, resource: str) -> bool:
        try:
            self._check_exists(resource)
        except ServiceError as error:
            if error.code == "NOT_FOUND":
                return False
            raise
        return True


def _hide_conditions(policy: policy_pb2.Policy) -> None:
    """Replace the condition of each binding by a suffix of its role, for callers that know no conditions."""
    for binding in policy.bindings:
        if binding.HasField("condition"):
            digest = hashlib.sha256(binding.condition.SerializeToString(deterministic=True)).hexdigest()
            binding.role += f"{CONDITION_SUFFIX}{digest[:20]}"
            binding.ClearField("condition")
    policy.version = 1


def _members(policy: policy_pb2.Policy) -> set[str]:
    return {member for binding in policy.bindings for member in binding.members}
