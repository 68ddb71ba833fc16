"""Keep tasks on the emulator: variables and files that leave them no real endpoint and no credentials.

In a task, Google's clients, gcloud and every HTTP client that honours proxies reach only this machine, and do
not look up the names of other hosts. No variable of a job changes that.
"""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.cloud import run_v2


NO_CREDENTIALS = "none: tasks on the Cloud Run emulator have no Google credentials"
CREDENTIALS = json.dumps({"type": NO_CREDENTIALS})
METADATA_PREFIX = "/computeMetadata/"
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "127.0.0.0/8", "::1")
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
NO_PROXY_VARIABLES = ("no_proxy", "no_grpc_proxy")
# Variables that hold or locate credentials, or redirect Google's clients and gcloud. No task gets them.
REMOVED = re.compile(
    r"GOOGLE_APPLICATION_CREDENTIALS|GOOGLE_CREDENTIALS|GOOGLE_OAUTH_ACCESS_TOKEN|GOOGLE_API_CERTIFICATE_CONFIG"
    r"|GOOGLE_API_USE_(?:CLIENT_CERTIFICATE|MTLS_ENDPOINT)|GOOGLE_GHA_CREDS_PATH|GOOGLE_BACKEND_CREDENTIALS"
    r"|GCLOUD_KEYFILE_JSON|BOTO_CONFIG|BOTO_PATH|GCE_METADATA_.*"
    r"|CLOUDSDK_(?:AUTH|PROXY|API_ENDPOINT_OVERRIDES|CONTEXT_AWARE)_.*"
)
HOST = re.compile(r"[A-Za-z0-9_.:-]+")
# The last one is Google's metadata server.
GOOGLE_DOMAINS = ("googleapis.com", "google.com", "google.internal", "169.254.169.254")


@dataclass(slots=True)
class Addresses:
    """The addresses of the emulator, known when it listens."""

    grpc: str = ""  # HOST:PORT.
    http: str = ""  # http://HOST:PORT.


@dataclass(frozen=True, slots=True)
class TaskDirectory:
    """The files of one attempt: an empty home directory, and a gcloud configuration without credentials."""

    path: str

    @property
    def variables(self) -> dict[str, str]:
        return {"HOME": f"{self.path}/home", "CLOUDSDK_CONFIG": f"{self.path}/gcloud"}

    @property
    def content(self) -> dict[str, str | None]:
        """The text of each file by its path; None for a directory."""
        # Without this file, the error of Google's clients would recommend logging in, which changes nothing here.
        credentials = f"{self.path}/gcloud/application_default_credentials.json"
        return {f"{self.path}/home": None, credentials: CREDENTIALS}


def variables(addresses: Addresses, allowed_hosts: Iterable[str]) -> dict[str, str]:
    """Return the variables that keep a task on the emulator, besides those of its directory."""
    metadata_host = urlsplit(addresses.http).netloc
    direct = ",".join((*LOOPBACK_HOSTS, *allowed_hosts))
    closed = {
        "CLOUDRUN_EMULATOR_HOST": addresses.grpc,
        "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false",
        # The HTTP frontend answers that it has no metadata; the other two keep clients from looking for it.
        "GCE_METADATA_HOST": metadata_host,
        "GCE_METADATA_IP": metadata_host,
        "GCE_METADATA_ROOT": metadata_host,
        "NO_GCE_CHECK": "true",
        "METADATA_SERVER_DETECTION": "none",
        **dict.fromkeys(PROXY_VARIABLES, addresses.http),
        **dict.fromkeys(NO_PROXY_VARIABLES, direct),
    }
    upper = {name.upper(): closed[name] for name in (*PROXY_VARIABLES, *NO_PROXY_VARIABLES)}
    return closed | upper


def is_closed(name: str) -> bool:
    """Return True if the emulator sets or removes this variable, whatever a job declares."""
    return bool(REMOVED.fullmatch(name)) or name in CLOSED_NAMES


CLOSED_NAMES = frozenset(variables(Addresses(), ()) | TaskDirectory("").variables)


def is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_local_url(url: str) -> bool:
    """Return True if the URL is one of HTTP on this machine."""
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and is_loopback(parts.hostname or "")


def is_google(host: str) -> bool:
    """Return True if a task could call Google if it were allowed to call this host."""
    suffix = host.lower().lstrip(".")
    return any(domain.endswith(suffix) or suffix.endswith(domain) for domain in GOOGLE_DOMAINS)


def replaced(container: run_v2.Container) -> list[str]:
    """Return the declared variables whose values a task does not get."""
    return sorted(variable.name for variable in container.env if is_closed(variable.name))
