"""`cloudrun_jobs.secrets` on Secret Manager: the emulator's, over gRPC, with faults."""

from __future__ import annotations

import logging
import subprocess
import sys
import traceback
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from cloudrun_jobs import secrets
from cloudrun_jobs.emulator import secret_manager
from cloudrun_jobs.exceptions import (
    InvalidSecret,
    SecretAccessDenied,
    SecretConflict,
    SecretCorrupted,
    SecretDisabled,
    SecretError,
    SecretNotFound,
    SecretUnavailable,
)
from cloudrun_jobs.secrets import access, cache, clients
from cloudrun_jobs.secrets import manager as store

SERVICE = "SecretManagerService"
ADD, ACCESS, GET, LIST = (f"{SERVICE}.{rpc}SecretVersion" for rpc in ("Add", "Access", "Get", "List"))
LIST += "s"
DISABLE, CREATE = f"{SERVICE}.DisableSecretVersion", f"{SERVICE}.CreateSecret"
VALUE = "v4lue-of-the-token"


def with_locals(error):
    """Return the part of a traceback that concerns the package, with all local variables."""
    text = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    _, _, after = text.partition(access.__file__)
    assert after
    return after


@pytest.fixture
def short_pauses(monkeypatch):
    """Short pauses between attempts, for as long as usual: a call to a loaded machine may take seconds."""
    monkeypatch.setattr(store, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(store, "LONGEST_PAUSE_SECONDS", 0.1)


@contextmanager
def outage(manager, method="*", code="UNAVAILABLE"):
    """Fail all calls, without a long wait for their success."""
    manager.emulator.faults.fail(method, code, times=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "WAIT_SECONDS", 0.3)
        yield
    manager.emulator.faults.clear()


@pytest.fixture
def time(monkeypatch):
    """The clock of the cache: a list with the seconds."""
    seconds = [1000.0]
    monkeypatch.setattr(cache, "clock", lambda: seconds[0])
    return seconds


def test_value_is_cached_for_a_minute(manager, time):
    """Within a minute a process reads a value once; what other processes add is seen after a minute."""
    secrets.read("token")
    manager.add(b"three")
    time[0] += 59.9

    assert secrets.read("token") == "two"
    assert manager.emulator.calls[ACCESS] == 1

    time[0] += 0.1

    assert secrets.read("token") == "three"
    assert manager.emulator.calls[ACCESS] == 2


def test_update_refreshes_the_cache(manager, time):
    """After an update the process reads its own value, without a call."""
    secrets.read("token")
    secrets.update("token", VALUE)

    assert secrets.read("token") == VALUE
    assert manager.emulator.calls[ACCESS] == 1


@pytest.mark.parametrize("update_began", [-1, 0])
def test_read_that_an_update_overtakes_does_not_restore_the_old_value(manager, monkeypatch, time, update_began):
    """A value that arrives after an update does not replace the newer one, whichever was requested first."""
    original = store.SecretManager.access

    def overtaken(self, name, number):
        found = original(self, name, number)
        monkeypatch.setattr(store.SecretManager, "access", original)
        time[0] += update_began
        secrets.update("token", VALUE)
        return found

    def late(self, name, payload, before):
        number = add(self, name, payload, before)
        time[0] -= update_began
        return number

    add = store.SecretManager.add
    monkeypatch.setattr(store.SecretManager, "add", late)
    monkeypatch.setattr(store.SecretManager, "access", overtaken)
    secrets.read("token")

    assert secrets.read("token") == VALUE


def test_conflict_empties_the_cache(manager):
    """After a conflict the process reads what is newest, as the error says, and not what it expected."""
    secrets.read("token")
    manager.add(b"winner")
    with pytest.raises(SecretConflict, match="Read the secret again"):
        secrets.update("token", VALUE, expected=2)

    assert secrets.read("token") == "winner"


def test_cache_is_bounded(manager, monkeypatch):
    """The oldest values leave the cache."""
    monkeypatch.setattr(cache, "MAX_ENTRIES", 2)
    for reference in ("token:1", "token:2", "token"):
        secrets.read(reference)
    secrets.read("token:1")

    assert manager.emulator.calls[ACCESS] == 4


def test_latest_version_is_not_cached(manager):
    """The number for `expected` is that of now."""
    secrets.read("token")
    manager.add(b"three")

    assert secrets.latest_version("token") == 3
    assert secrets.read("token") == "three"


@pytest.mark.parametrize("code", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED"])
def test_read_is_repeated(manager, short_pauses, code):
    """A read is repeated while the service is unavailable."""
    manager.emulator.faults.fail(ACCESS, code, times=2)

    assert secrets.read("token") == "two"


def test_unavailable_service(manager, short_pauses):
    """While the service is unavailable, a cached value stays readable, and an update fails and adds nothing."""
    secrets.read("token")

    with outage(manager):
        with pytest.raises(SecretUnavailable, match=r"token: .*updated.*did not respond"):
            secrets.update("token", VALUE)
        assert secrets.read("token") == "two"
        with pytest.raises(SecretUnavailable, match=r"Is the emulator running at 127.0.0.1"):
            secrets.read("token:1")

    assert manager.states() == {1: "ENABLED", 2: "ENABLED"}
    assert secrets.update("token", VALUE, expected=2) == 3


def lose_answer(faults):
    faults.fail_after(ADD, times=1)


def hang(faults):
    faults.delay(ADD, 5, times=1)


@pytest.mark.parametrize("expected", [None, 2])
@pytest.mark.parametrize("fault", [lose_answer, hang])
def test_response_to_an_update_is_lost(manager, short_pauses, monkeypatch, fault, expected):
    """A version whose response was lost is found by its value, and not added again."""
    monkeypatch.setattr(store, "CALL_TIMEOUT_SECONDS", 0.3)
    fault(manager.emulator.faults)

    assert secrets.update("token", VALUE, expected=expected) == 3
    assert manager.states() == dict.fromkeys((1, 2, 3), "ENABLED")


def test_update_that_was_not_written_is_repeated(manager, short_pauses):
    """A call that failed before it took effect is repeated."""
    manager.emulator.faults.fail(ADD, times=2)

    assert secrets.update("token", VALUE, expected=2) == 3
    assert manager.states() == dict.fromkeys((1, 2, 3), "ENABLED")


def test_update_that_was_refused_is_not_looked_up(manager, short_pauses):
    """A call that the service refused, for its quota, has not taken effect."""
    manager.emulator.faults.fail(ADD, "RESOURCE_EXHAUSTED", times=1)
    manager.emulator.faults.fail(LIST, "PERMISSION_DENIED", times=None)

    assert secrets.update("token", VALUE, expected=2) == 3


def test_unanswered_update_that_cannot_be_looked_up(manager, short_pauses):
    """If it cannot be determined whether a version was added, the error says so."""
    manager.emulator.faults.fail_after(ADD, times=1)
    manager.emulator.faults.fail(LIST, "PERMISSION_DENIED", times=None)

    with pytest.raises(SecretUnavailable, match=r"may have been added. Read the secret before"):
        secrets.update("token", VALUE)


def test_unanswered_update_that_takes_effect_late(manager, short_pauses, monkeypatch):
    """If the abandoned call takes effect after the search for its version, the first version stays."""
    find = store.SecretManager._find

    def find_nothing(self, *args):
        monkeypatch.setattr(store.SecretManager, "_find", find)

    monkeypatch.setattr(store.SecretManager, "_find", find_nothing)
    manager.emulator.faults.fail_after(ADD, times=1)

    assert secrets.update("token", VALUE, expected=2) == 3
    assert manager.states() == {1: "ENABLED", 2: "ENABLED", 3: "ENABLED", 4: "DISABLED"}


def test_unanswered_update_of_an_account_that_may_only_add(manager, short_pauses):
    """The account cannot look for its version, so the value is added again."""
    for method in (GET, LIST, ACCESS):
        manager.emulator.faults.fail(method, "PERMISSION_DENIED", times=None)
    manager.emulator.faults.fail_after(ADD, times=1)

    assert secrets.update("token", VALUE) == 4


def test_unanswered_update_that_cannot_be_read(manager, short_pauses):
    """A version that the update may have added, but cannot read, does not change."""
    manager.emulator.faults.fail(ACCESS, "PERMISSION_DENIED", times=None)
    manager.emulator.faults.fail_after(ADD, times=1)

    with pytest.raises(SecretUnavailable, match=r"version 3 cannot be read .* may have been added"):
        secrets.update("token", VALUE, expected=2)
    assert manager.states() == dict.fromkeys((1, 2, 3), "ENABLED")


def test_error_without_a_version_number(manager):
    """If the error of the service names no version, the enabled versions are listed."""
    manager.emulator.faults.fail(ACCESS, "FAILED_PRECONDITION", "Not now.")

    assert secrets.read("token") == "two"


def test_expired_credentials(manager):
    """Expired credentials are not an outage: the error is raised at once."""
    message = "Getting metadata from plugin failed with error: ('invalid_grant: Bad Request', {})"
    manager.emulator.faults.fail(ACCESS, "UNAVAILABLE", message)

    with pytest.raises(SecretAccessDenied, match="there are no valid credentials"):
        secrets.read("token")


def test_checksum_that_was_not_verified(manager, monkeypatch):
    """A version whose checksum the service ignored is disabled."""
    describe = secret_manager._version_message

    def ignoring(*args):
        message = describe(*args)
        message.client_specified_payload_checksum = False
        return message

    monkeypatch.setattr(secret_manager, "_version_message", ignoring)
    with pytest.raises(SecretCorrupted, match="did not verify the checksum of version 3"):
        secrets.update("token", VALUE)
    assert manager.states()[3] == "DISABLED"


def test_account_that_may_only_add_versions(manager):
    """Without `expected` and `keep`, an update needs only roles/secretmanager.secretVersionAdder."""
    for method in (GET, LIST, ACCESS):
        manager.emulator.faults.fail(method, "PERMISSION_DENIED", times=None)

    assert secrets.update("token", VALUE) == 3
    with pytest.raises(SecretAccessDenied, match=r"Grant roles/secretmanager.secretVersionManager"):
        secrets.update("token", VALUE, expected=3)


@pytest.fixture
def overtaken(manager, monkeypatch):
    """Let another process add the version "winner" after the check of an update."""
    latest = store.SecretManager.latest

    def overtaken(self, name):
        found = latest(self, name)
        manager.add(b"winner")
        return found

    monkeypatch.setattr(store.SecretManager, "latest", overtaken)


def test_late_update_disables_its_version(manager, overtaken):
    """An update that another one overtakes after its check disables its own version."""
    with pytest.raises(SecretConflict, match=r"expected version 2 .* version 3. Version 4 .* is disabled"):
        secrets.update("token", VALUE, expected=2)

    assert manager.states() == {1: "ENABLED", 2: "ENABLED", 3: "ENABLED", 4: "DISABLED"}
    assert secrets.read("token") == "winner"


def test_losing_version_that_cannot_be_disabled_is_reported(manager, overtaken):
    """The error names the version that is still enabled."""
    manager.emulator.faults.fail(DISABLE, "PERMISSION_DENIED")
    with pytest.raises(SecretConflict, match="version 4 of this update could not be disabled: token: version 4"):
        secrets.update("token", VALUE, expected=2)


def test_disabled_newest_version_is_skipped(manager):
    """An account that may only access versions reads the newest enabled one."""
    manager.add(b"loser")
    manager.add(b"loser")
    manager.disable(3)
    manager.disable(4)
    manager.emulator.faults.fail(LIST, "PERMISSION_DENIED", times=None)

    assert secrets.read("token") == "two"
    assert secrets.latest_version("token") == 2


def test_many_disabled_versions(manager, monkeypatch):
    """After a number of disabled versions, the enabled ones are listed."""
    monkeypatch.setattr(store, "MAX_VERSION_PROBES", 1)
    for number in (3, 4, 5):
        manager.add(b"loser")
        manager.disable(number)

    assert secrets.read("token") == "two"


def test_every_version_is_disabled(manager):
    """The error names the newest version."""
    manager.disable(1)
    manager.disable(2)

    with pytest.raises(SecretDisabled, match="version 2 and those before it are disabled or destroyed"):
        secrets.read("token")
    assert secrets.update("token", VALUE, expected=0) == 3


def test_concurrent_updates(manager):
    """If concurrent updates expect the same version, one wins; no reader fails, and all read its value."""
    done = []

    def update(number):
        try:
            return secrets.update("token", f"value {number}", expected=2), f"value {number}"
        except SecretConflict:
            return None

    def read(_):
        values = []
        while not done:
            cache.discard(("secret-manager", manager.project, manager.emulator.grpc), "token")
            values.append(secrets.read("token"))
        return values

    with ThreadPoolExecutor(9) as pool:
        readers = [pool.submit(read, number) for number in range(3)]
        [(number, value)] = filter(None, pool.map(update, range(6)))
        done.append(True)
        read_values = [each for reader in readers for each in reader.result(30)]

    assert number == 3
    assert secrets.read("token:3") == value
    cache.discard(("secret-manager", manager.project, manager.emulator.grpc), "token")
    assert secrets.read("token") == value
    assert read_values
    states = manager.states()
    assert {key for key, state in states.items() if state == "ENABLED"} == {1, 2, 3}


def test_updaters_that_try_again(manager):
    """Updaters that retry succeed; each number has one winner, and only losing versions are disabled."""

    def win(label, times=4):
        numbers = []
        while len(numbers) < times:
            try:
                numbers.append(secrets.update("token", label, expected=secrets.latest_version("token")))
            except SecretConflict:
                continue
        return numbers

    with ThreadPoolExecutor(3) as pool:
        won = dict(zip("abc", pool.map(win, "abc"), strict=True))
    numbers = sorted(number for each in won.values() for number in each)

    assert len(numbers) == len(set(numbers)) == 12
    assert {key for key, state in manager.states().items() if state == "ENABLED"} == {1, 2, *numbers}
    for label, own in won.items():
        assert {secrets.read(f"token:{number}") for number in own} == {label}


def test_damaged_value(manager, monkeypatch):
    """A checksum that does not match is an error for a read and for an update."""
    manager.add(VALUE.encode())
    monkeypatch.setattr(secret_manager, "_crc32c", lambda data: 7)

    with pytest.raises(SecretCorrupted, match=r"token: cannot be read .* checksum .* does not match") as caught:
        secrets.read("token")
    assert VALUE not in with_locals(caught.value)
    with pytest.raises(SecretCorrupted, match=r"token: cannot be updated .* damaged in transit"):
        secrets.update("token", VALUE)
    assert manager.states() == dict.fromkeys((1, 2, 3), "ENABLED")


def test_value_that_is_damaged_once_is_read_again(manager, monkeypatch):
    """A checksum that does not match is not an error at once."""
    checksums = [7]
    original = secret_manager._crc32c
    monkeypatch.setattr(secret_manager, "_crc32c", lambda data: checksums.pop() if checksums else original(data))

    assert secrets.read("token") == "two"
    assert manager.emulator.calls[ACCESS] == 2


@pytest.mark.parametrize(
    ("code", "error", "hint"),
    [
        ("PERMISSION_DENIED", SecretAccessDenied, "Grant roles/secretmanager.secretAccessor on the secret"),
        (
            "UNAUTHENTICATED",
            SecretAccessDenied,
            "service account with roles/secretmanager.secretAccessor",
        ),
        (
            "NOT_FOUND",
            SecretNotFound,
            "gcloud secrets create token --replication-policy automatic --project a",
        ),
        ("INVALID_ARGUMENT", InvalidSecret, "rejected the request"),
        ("UNIMPLEMENTED", InvalidSecret, "rejected the request"),
    ],
)
def test_errors_of_the_service(manager, code, error, hint):
    """An error names the secret, the project and the role, and hides the client's."""
    manager.emulator.faults.fail(ACCESS, code, VALUE)

    with pytest.raises(error, match=f"token: cannot be read in project {manager.project}") as caught:
        secrets.read("token")

    assert hint in str(caught.value)
    assert VALUE not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_no_credentials(settings, monkeypatch, tmp_path):
    """Without credentials the error says how to get them, at once."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production", "PROJECT": "acme"}

    with pytest.raises(SecretAccessDenied, match=r"in project acme: there are no valid credentials. Attach"):
        secrets.read("token")


def test_api_that_is_not_enabled(manager):
    """The error has the command that enables the API."""
    message = "Secret Manager API has not been used in project 7 before or it is disabled."
    manager.emulator.faults.fail(ACCESS, "PERMISSION_DENIED", message)

    with pytest.raises(SecretAccessDenied, match=r"gcloud services enable secretmanager.googleapis.com"):
        secrets.read("token")


@pytest.mark.parametrize("fault", ["PERMISSION_DENIED", "INVALID_ARGUMENT", "UNAVAILABLE"])
def test_value_is_in_no_traceback(manager, fault):
    """A traceback with the local variables of all frames of the package does not contain the value."""
    with outage(manager, ADD, fault), pytest.raises(SecretError) as caught:
        secrets.update("token", VALUE)

    assert VALUE not in with_locals(caught.value)


def test_created_secret(manager):
    """A created secret has automatic replication and a label that names this package."""
    manager.emulator.faults.fail_after(CREATE, times=1)
    secrets.update("fresh", VALUE, create=True)
    found = manager.emulator.clients.secrets.get_secret(name=f"projects/{manager.project}/secrets/fresh")

    assert "automatic" in found.replication
    assert dict(found.labels) == {"managed-by": "cloudrun-jobs"}


def test_failure_to_disable_old_versions_is_logged(manager, caplog):
    """The update has succeeded: its number is returned."""
    manager.emulator.faults.fail(DISABLE, "PERMISSION_DENIED")
    with caplog.at_level(logging.WARNING, "cloudrun_jobs"):
        assert secrets.update("token", VALUE, keep=1) == 3

    [record] = caplog.records
    assert (record.action, record.secret, record.version) == ("secret_versions_kept", "token", 3)
    assert "roles/secretmanager.secretVersionManager" in record.getMessage()


def test_keep_leaves_newer_versions(manager, monkeypatch):
    """`keep` never disables the version of this update, even if a newer one exists."""
    add = store.SecretManager.add

    def overtaken(self, *args):
        number = add(self, *args)
        manager.add(b"newer")
        return number

    monkeypatch.setattr(store.SecretManager, "add", overtaken)
    secrets.update("token", VALUE, keep=1)

    assert manager.states() == {1: "DISABLED", 2: "DISABLED", 3: "ENABLED", 4: "ENABLED"}


def test_missing_extra():
    """Without Google's client the error has the command that installs it."""
    code = """
import os, sys
sys.modules["google.cloud.secretmanager_v1"] = None
from django.conf import settings
settings.configure(CLOUDRUN_JOBS={"ENVIRONMENT": "production", "PROJECT": "acme"})
from cloudrun_jobs import secrets
from cloudrun_jobs.exceptions import InvalidSettings
try:
    secrets.read("token")
except InvalidSettings as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert 'pip install "django-cloudrun-jobs[secrets]"' in done.stdout


def test_value_is_in_no_log(manager, monkeypatch, caplog):
    """Google's client does not log requests and responses, even at the level DEBUG."""
    monkeypatch.setattr(clients, "_clients", {})
    monkeypatch.setattr(logging.getLogger("google"), "propagate", True)
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, clients.TRANSPORT_LOGGER.name):
        secrets.update("token", VALUE)
        secrets.read("token:3")

    logged = "".join(str(vars(record)) for record in caplog.records)
    assert VALUE not in logged
    assert b64encode(VALUE.encode()).decode() not in logged
