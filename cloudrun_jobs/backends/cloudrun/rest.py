"""Call Google's services without a client library in the requirements, over REST."""

from __future__ import annotations

from typing import Any

import requests
from google.api_core import exceptions as api
from google.api_core.exceptions import from_http_response
from google.auth import default
from google.auth.transport.requests import AuthorizedSession, Request

from cloudrun_jobs.backends.cloudrun.errors import ApiMethod, translate_errors
from cloudrun_jobs.backends.cloudrun.server import Server

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
TOKENINFO = ApiMethod(permission="", role="")


class RestClient:
    """A client of all services.

    It calls Google's with the application default credentials, or the server on this machine that replaces them.
    """

    def __init__(self, server: Server, *, timeout: float) -> None:
        self._server, self._timeout = server, timeout
        self._session: requests.Session | None = None

    def call(
        self,
        service: str,
        verb: str,
        path: str,
        method: ApiMethod,
        *,
        resource: str,
        body: Any = None,
        **query: Any,
    ) -> dict[str, Any]:
        """Return the response of a method: `call("serviceusage", "GET", "v1/projects/acme/services", ...)`.

        Raises one of the `ServiceError`s.
        """
        with translate_errors(resource, method, endpoint=self._server.endpoint):
            try:
                response = self._connected().request(
                    verb, f"{self._address(service)}/{path}", params=query, json=body, timeout=self._timeout
                )
                if not response.ok:
                    raise _error(response)
                content: dict[str, Any] = response.json()
            except requests.RequestException as error:
                raise api.ServiceUnavailable(str(error)) from error
            return content

    def account(self) -> str | None:
        """Return the e-mail address of the caller's account; None if it cannot be determined.

        Raises one of the `ServiceError`s.
        """
        if self._server.endpoint is not None and self._server.access_token is None:
            return None
        with translate_errors("The credentials", TOKENINFO, endpoint=self._server.endpoint):
            email = _service_account(self._connected())
        # With POST, the token is in a header, and not in a URL that an error shows.
        found = (
            {"email": email}
            if email
            else self.call("oauth2", "POST", "tokeninfo", TOKENINFO, resource="The token")
        )
        return found.get("email") or None

    def _address(self, service: str) -> str:
        if self._server.endpoint is None:
            return f"https://{service}.googleapis.com"
        return f"http://{self._server.endpoint}"

    def _connected(self) -> requests.Session:
        if self._session is None:
            self._session = self._connect()
        return self._session

    def _connect(self) -> requests.Session:
        if self._server.endpoint is None:
            credentials, _ = default(scopes=[SCOPE])
            return AuthorizedSession(credentials)
        session = requests.Session()
        session.trust_env = False  # Do not use the environment's proxy for a server on this machine.
        if self._server.access_token is not None:
            session.headers["Authorization"] = f"Bearer {self._server.access_token}"
        return session


def _service_account(session: requests.Session) -> str:
    """Return the service account of Google's credentials; "" if they are a user's, or a token."""
    if not isinstance(session, AuthorizedSession):
        return ""
    session.credentials.refresh(Request())  # A machine's credentials know their account only after a refresh.
    email = str(getattr(session.credentials, "service_account_email", None) or "")
    return email if "@" in email else ""


def _error(response: requests.Response) -> Exception:
    try:
        error: Exception = from_http_response(response)
    except AttributeError:  # The errors of OAuth have another form.
        message = response.json().get("error_description") or response.text
        error = api.from_http_status(response.status_code, message)
    return error
