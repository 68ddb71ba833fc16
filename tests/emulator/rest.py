"""Call the emulator's services over REST, as an account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from cloudrun_jobs.emulator import Emulator


class Rest:
    """Calls the emulator's gRPC port over HTTP, as an account."""

    def __init__(self, emulator: Emulator, email: str = "caller@acme.iam.gserviceaccount.com") -> None:
        self._address = f"http://{emulator.grpc}"
        self._headers = {"Authorization": f"Bearer {emulator.tokens.access_token(email)}"}

    def __call__(self, verb: str, path: str, **body: Any) -> Any:
        return self.response(verb, path, **body).json()

    def response(self, verb: str, path: str, **body: Any) -> requests.Response:
        url = f"{self._address}/{path}"
        return requests.request(verb, url, json=body or None, headers=self._headers, timeout=10)

    def error(self, verb: str, path: str, **body: Any) -> Any:
        return self(verb, path, **body)["error"]

    def policy(self, path: str) -> Any:
        is_post = path[2:] == "/projects/acme" or "/serviceAccounts/" in path or "/queues/" in path
        verb = "POST" if is_post else "GET"
        return self(verb, f"{path}:getIamPolicy")

    def bind(self, path: str, role: str, member: str) -> Any:
        policy = self.policy(path)
        bindings = [*policy.get("bindings", []), {"role": role, "members": [member]}]
        return self("POST", f"{path}:setIamPolicy", policy={**policy, "bindings": bindings})

    def held(self, path: str, *permissions: str) -> Any:
        return self("POST", f"{path}:testIamPermissions", permissions=permissions).get("permissions", [])
