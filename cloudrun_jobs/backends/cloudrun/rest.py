"""Call Google's services without a client library in the requirements, over REST."""

from __future__ import annotations

from collections.abc import Mapping
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
        form: Mapping[str, str] | None = None,
        **query: Any,
    ) -> dict[str, Any]:
        """Return the response of a method: `call("serviceusage", "GET", "v1/projects/acme/services", ...)`.

        Raises one of the `ServiceError`s.
        """
        with translate_errors(resource, method, endpoint=self._server.endpoint):
            address = self._address(service)
            try:
                response = self._connected().request(
                    verb, f"{address}/{path}", params=query, json=body, data=form, timeout=self._timeout
                )
            except requests.RequestException as error:
                raise api.ServiceUnavailable(f"{address} does not answer ({type(error).__name__}).") from error
            if not response.ok:
                raise _error(response)
            return _content(response, address)

    def account(self) -> str | None:
        """Return the e-mail address of the caller's account; None if it cannot be determined.

        Raises one of the `ServiceError`s.
        """
        if self._server.endpoint is not None and self._server.access_token is None:
            return None
        with translate_errors("The credentials", TOKENINFO, endpoint=self._server.endpoint):
            email = _service_account(self._connected())
            token = self._token()
        if email:
            return email
        # As a form: an error shows the address, but not the content.
        form = {"access_token": token}
        found = self.call("oauth2", "POST", "tokeninfo", TOKENINFO, resource="The token", form=form)
        return found.get("email") or None

    def _token(self) -> str:
        session = self._connected()
        if isinstance(session, AuthorizedSession):
            return str(session.credentials.token)
        return self._server.access_token or ""

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


def _content(response: requests.Response, address: str) -> dict[str, Any]:
    try:
        content = response.json()
    except requests.JSONDecodeError as error:
        raise api.ServiceUnavailable(f"{address} answers with {_type(response)}, not with JSON.") from error
    if not isinstance(content, dict):
        raise api.ServiceUnavailable(f"{address} answers with JSON of another form.")
    return content


def _type(response: requests.Response) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0] or "content of no type"


def _error(response: requests.Response) -> Exception:
    """Return the exception for a response, whose message is that of the service, without the address."""
    try:
        error: api.GoogleAPICallError = from_http_response(response)
    except (AttributeError, TypeError):  # The errors of OAuth, and those of proxies, have other forms.
        error = api.from_http_status(response.status_code, _description(response))
    if response.request.url:
        error.message = error.message.removeprefix(f"{response.request.method} {response.request.url}: ")
    return error


def _description(response: requests.Response) -> str:
    content = response.json()
    found = content.get("error_description") if isinstance(content, dict) else None
    return str(found or f"HTTP status {response.status_code}")
