"""Starts executions of Cloud Run jobs.

The only package that imports Google's clients, and only when one is first used: they cost most of a second and
60 MB, which a container that merely runs a job must not pay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...conf import Settings
from ...exceptions import InvalidSettings
from ..base import Backend, Request

if TYPE_CHECKING:
    from .operation import CloudRunOperation


class CloudRunBackend(Backend):
    """Calls `JobsClient.run_job` with the arguments of this one execution.

    Options: `endpoint`, the "host:port" of a server on this machine that stands in for Google's, spoken to
    without encryption or credentials; `rpc_timeout`, the seconds after which a call that got no answer gives up.
    """

    def __init__(self, settings: Settings, *, endpoint: str | None = None, rpc_timeout: float = 30.0) -> None:
        super().__init__(settings)
        for key, value in (("PROJECT", settings.project), ("REGION", settings.region)):
            if not value:
                hint = f"Set it there, or CLOUDRUN_JOBS_{key} in the environment."
                raise InvalidSettings(f"CLOUDRUN_JOBS[{key!r}]: required by CloudRunBackend, not set.", hint=hint)
        if endpoint is not None:
            _check_loopback(endpoint)
        if not isinstance(rpc_timeout, int | float) or not 0 < rpc_timeout <= 600:
            raise InvalidSettings(
                f"CLOUDRUN_JOBS['OPTIONS']['rpc_timeout']: expected 0 to 600 seconds, got {rpc_timeout!r}."
            )
        self.endpoint = endpoint
        self.rpc_timeout = rpc_timeout

    def start(self, request: Request) -> CloudRunOperation:
        """Ask Cloud Run for an execution; its service keeps it once this returns."""
        from .sending import run_job

        return run_job(self, request)


def _check_loopback(endpoint: object) -> None:
    """Credentials and encryption are off towards the endpoint, so it may only be this machine."""
    host, _, port = str(endpoint).rpartition(":")
    if not port.isdecimal() or not _is_loopback(host.strip("[]")):
        raise InvalidSettings(
            f"CLOUDRUN_JOBS['OPTIONS']['endpoint']: expected 'host:port' of this machine, got {endpoint!r}.",
            hint="Example: '127.0.0.1:8085'. Leave it out for the real service.",
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    import ipaddress  # Of no use to a container, which has no endpoint.

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
