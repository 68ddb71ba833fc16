"""Service accounts of the IAM API: create, read, list and delete them."""

from __future__ import annotations

import base64
import re
import secrets
from typing import TYPE_CHECKING, Any

from cloudrun_jobs.emulator.errors import ServiceError, invalid, permission_denied
from cloudrun_jobs.emulator.iam.policies import canonical
from cloudrun_jobs.emulator.names import project_number, project_of, short
from cloudrun_jobs.emulator.project.paging import page

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudrun_jobs.emulator.iam.access import Iam
    from cloudrun_jobs.emulator.project.documents import Documents
    from cloudrun_jobs.emulator.service import Caller

ACCOUNT_ID = re.compile(r"[a-z](?:[-a-z0-9]{4,28}[a-z0-9])")
MAX_PAGE_SIZE = 100


class ServiceAccounts:
    def __init__(self, documents: Documents, iam: Iam) -> None:
        self._documents = documents
        self._iam = iam

    def create(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        project, account_id = project_of(request["name"]), request.get("accountId", "")
        if not ACCOUNT_ID.fullmatch(account_id):
            raise invalid(
                f"The account ID {account_id!r} does not have a length between 6 and 30, or does not match the "
                "pattern [a-z]([-a-z0-9]*[a-z0-9])."
            )
        email = f"{account_id}@{project}.iam.gserviceaccount.com"
        given = request.get("serviceAccount", {})
        with self._documents.lock:
            existing = self._documents.get("account", email)
            if existing is not None and not existing["deleted"]:
                raise ServiceError(
                    "ALREADY_EXISTS",
                    f"Service account {account_id} already exists within project projects/{project}.",
                )
            texts = {name: given[name] for name in ("displayName", "description") if name in given}
            self._documents.put("account", email, {"deleted": False, "etag": _etag(), **texts})
        return self._message(email)

    def get(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        return self._message(self.existing(request["name"]))

    def listed(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        suffix = f"@{project_of(request['name'])}.iam.gserviceaccount.com"
        emails = {email for email in self._documents.names("account") if email.endswith(suffix)}
        emails |= {email for email in self._iam.mentioned_accounts if email.endswith(suffix)}
        found = [self._message(email) for email in sorted(emails) if self._iam.account_exists(email)]
        return page("accounts", found, request, MAX_PAGE_SIZE)

    def delete(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        email = self.existing(request["name"])
        # A deleted account is kept: without checks, an account that was never created exists.
        self._documents.put("account", email, {"deleted": True})
        self._iam.policies.drop(request["name"])
        return {}

    def existing(self, name: str) -> str:
        """Return the e-mail in the name of an existing account."""
        email = short(name)
        if "@" not in email:
            raise invalid(
                f"Invalid service account name {name!r}: expected projects/PROJECT/serviceAccounts/EMAIL."
            )
        if not self._iam.account_exists(email):
            if project_of(name) == "-":  # The service does not tell whether an account exists in any project.
                raise permission_denied("iam.serviceAccounts.get", name)
            raise ServiceError("NOT_FOUND", f"Unknown service account: {email}")
        return email

    def _message(self, email: str) -> dict[str, Any]:
        name = canonical(f"projects/-/serviceAccounts/{email}")
        kept = {
            key: value for key, value in (self._documents.get("account", email) or {}).items() if key != "deleted"
        }
        unique = f"1{project_number(email)}"
        own = {"name": name, "projectId": project_of(name), "uniqueId": unique, "email": email}
        return {**own, "oauth2ClientId": unique, **kept}


def _etag() -> str:
    return base64.b64encode(secrets.token_bytes(9)).decode()
