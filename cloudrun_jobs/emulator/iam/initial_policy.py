"""The policy that an emulator starts with, as ``gcloud projects get-iam-policy --format=json`` prints it."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from google.iam.v1 import policy_pb2
from google.protobuf import json_format

from cloudrun_jobs.emulator.config import InvalidConfiguration
from cloudrun_jobs.emulator.iam import roles
from cloudrun_jobs.emulator.iam.policies import EVERYONE, without_condition

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

FIELDS = frozenset(field.json_name for field in policy_pb2.Policy.DESCRIPTOR.fields)
EVALUATED_MEMBERS = ("user", "serviceAccount", "domain", "principal", "deleted")
# The accounts that Google creates in a project contain its number.
PROJECT_NUMBER = re.compile(
    r"serviceAccount:(?:service-)?(\d+)(?:-compute)?@(?:developer|cloudservices|[a-z0-9-]+\.iam)\.gserviceaccount\.com"
)


def read(policy: Any) -> dict[str, Any]:
    """Return the policy without fields that no policy has, or raise `InvalidConfiguration`."""
    if not isinstance(policy, dict):
        raise InvalidConfiguration("expected an IAM policy, a JSON object, got another value")
    try:
        message = json_format.ParseDict(policy, policy_pb2.Policy(), ignore_unknown_fields=True)
    except (json_format.ParseError, AttributeError, TypeError) as error:
        raise InvalidConfiguration(f"expected an IAM policy: {error}") from error
    if policy and FIELDS.isdisjoint(policy):
        raise InvalidConfiguration(f"expected an IAM policy with bindings, got an object with {min(policy)!r}")
    for binding in message.bindings:
        role = without_condition(binding.role)
        if not roles.has_role_name(role) and role not in roles.permissions():
            raise InvalidConfiguration(
                f"expected a role such as roles/run.invoker, or a permission such as run.jobs.run, got {role!r}"
            )
    content: dict[str, Any] = json_format.MessageToDict(message)
    return content


def service_accounts(policy: Mapping[str, Any]) -> set[str]:
    """Return the e-mails of the service accounts that a policy mentions."""
    members = [member for binding in _bindings(policy) for member in binding.get("members", ())]
    return {member.partition(":")[2].lower() for member in members if member.startswith("serviceAccount:")}


def project_number(policy: Mapping[str, Any]) -> str:
    """Return the number of the project that a policy is from, or an empty text if no member contains it."""
    members = {member for binding in _bindings(policy) for member in binding.get("members", ())}
    found = Counter(match[1] for member in members if (match := PROJECT_NUMBER.fullmatch(member)))
    return max(found, key=lambda number: (found[number], number), default="")


def not_evaluated(policy: Mapping[str, Any], custom_roles: Collection[str]) -> list[str]:
    """Describe the members, conditions and roles of a policy that the emulator does not evaluate, each once."""
    members: dict[str, list[str]] = {}
    others: dict[str, None] = {}
    for binding in _bindings(policy):
        role = without_condition(binding["role"])
        for member in filter(_is_not_evaluated, binding.get("members", ())):
            members.setdefault(member, []).append(role)
        others.update(dict.fromkeys(_conditions(binding, role)))
        if role not in roles.roles() and role not in roles.permissions() and role not in custom_roles:
            others[role] = None
    return [*(f"{member} in {', '.join(dict.fromkeys(names))}" for member, names in members.items()), *others]


def _conditions(binding: Mapping[str, Any], role: str) -> Iterator[str]:
    condition = binding.get("condition")
    if condition is not None:
        yield f"condition {condition.get('title') or condition.get('expression', '')!r} in {role}"
    elif role != binding["role"]:
        yield f"a condition in {role}"


def _is_not_evaluated(member: str) -> bool:
    return member not in EVERYONE and member.partition(":")[0] not in EVALUATED_MEMBERS


def _bindings(policy: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [{"role": "", **binding} for binding in policy.get("bindings", ())]
