"""Which server the clients connect to, and the identity of the caller."""

from __future__ import annotations

import pytest

from cloudrun_jobs import conf
from cloudrun_jobs.backends.cloudrun import CloudRunBackend, clients
from cloudrun_jobs.backends.cloudrun.server import Server
from cloudrun_jobs.exceptions import InvalidSettings
from cloudrun_jobs.testing.emulator import Emulator

PARENT = "projects/acme/locations/europe-west4"
ACCOUNT = "ci@acme.iam.gserviceaccount.com"
POLICY = {"bindings": [{"role": "roles/run.viewer", "members": [f"serviceAccount:{ACCOUNT}"]}]}


def backend(**options):
    return CloudRunBackend(conf.Settings(project="acme", region="europe-west4"), **options)


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", 7])
def test_invalid_access_tokens_are_refused_without_being_shown(token):
    """No message shows what may be a secret."""
    with pytest.raises(InvalidSettings, match=r"OPTIONS'\]\['access_token'\]: expected printable") as caught:
        backend(endpoint="127.0.0.1:8491", access_token=token)
    assert repr(token) not in str(caught.value)


def test_access_token_without_an_endpoint_is_refused(monkeypatch):
    """A token in the settings never goes to Google."""
    monkeypatch.delenv("CLOUDRUN_EMULATOR_HOST", raising=False)
    with pytest.raises(InvalidSettings, match="only for a server on this machine"):
        backend(access_token="ya29.secret")


def test_access_token_is_not_shown():
    """The representation of the server, as in a traceback, hides the token."""
    assert "ya29" not in repr(Server("127.0.0.1:8491", "ya29.secret"))


def test_access_token_identifies_the_caller():
    """The emulator grants what the policy grants to the token's account, and denies anonymous calls."""
    with Emulator(iam=POLICY) as emulator:
        token = emulator.tokens.access_token(ACCOUNT)
        known, anonymous = Server(emulator.grpc, token), Server(emulator.grpc)
        assert list(clients.jobs(known).list_jobs(parent=PARENT, timeout=10)) == []
        with pytest.raises(Exception, match="missing required authentication"):
            clients.jobs(anonymous).list_jobs(parent=PARENT, timeout=10)
