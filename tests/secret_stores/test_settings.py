"""The settings of secrets, their checks, and the places that could show their values."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from django.core import checks
from django.views.debug import SafeExceptionReporterFilter

from cloudrun_jobs import conf, secrets
from cloudrun_jobs.checks import TAG, check_settings
from cloudrun_jobs.exceptions import InvalidSettings, SecretDisabled, SecretUnavailable
from cloudrun_jobs.secrets import access, cache, local, stores
from tests.jobs.management.commands import echo

CLOUD = {"ENVIRONMENT": "production", "PROJECT": "acme", "REGION": "asia-northeast1"}


@pytest.mark.parametrize("environment", ["local", "test"])
def test_local_environment_without_secrets(settings, environment):
    """Without SECRETS or the emulator, the error says what to set."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": environment}

    with pytest.raises(InvalidSettings, match=r"CLOUDRUN_JOBS\['SECRETS'\]: required .*CLOUDRUN_EMULATOR_HOST"):
        secrets.read("token")


def test_cloud_environment_needs_a_project(settings):
    """Secret Manager requires PROJECT."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production"}

    with pytest.raises(InvalidSettings, match=r"CLOUDRUN_JOBS\['PROJECT'\]: required for secrets"):
        secrets.read("token")


def test_emulator_is_used_whatever_the_settings_say(manager, settings, monkeypatch):
    """A process with CLOUDRUN_EMULATOR_HOST reads and updates the emulator's secrets only."""
    monkeypatch.setenv("CLOUDRUN_EMULATOR_HOST", manager.emulator.grpc)
    settings.CLOUDRUN_JOBS = {**CLOUD, "PROJECT": manager.project, "SECRETS": {"token": "local"}}

    assert secrets.read("token") == "two"


@pytest.mark.parametrize("host", ["secretmanager.googleapis.com:443", "10.0.0.1:8491", "127.0.0.1"])
def test_emulator_is_on_this_machine(settings, monkeypatch, host):
    """Another host is rejected: the calls have no encryption."""
    monkeypatch.setenv("CLOUDRUN_EMULATOR_HOST", host)
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "local", "PROJECT": "acme"}

    with pytest.raises(InvalidSettings, match="CLOUDRUN_EMULATOR_HOST: expected 'host:port' of this machine"):
        secrets.read("token")


@pytest.mark.parametrize("value", [3, [], "", " ", b"x", True, "a\0b", "/\ud800"])
def test_invalid_setting(settings, value):
    """SECRETS is a mapping or a path."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "local", "SECRETS": value}

    with pytest.raises(InvalidSettings, match=r"CLOUDRUN_JOBS\['SECRETS'\]: expected a dictionary of secrets"):
        conf.load()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"to ken": "s3cret"}, "in the name of secret 1"),
        ({"token": 3}, "token: version 1: expected a value that is str or bytes, got int"),
        ({"token": ["s3cret", ""]}, "token: version 2: expected a value of at least one byte"),
        ({"token": {"value": "s3cret", "base64": "eA=="}}, "token: version 1: expected 'value' or 'base64'"),
        ({"token": {"value": "s3cret", "colour": "red"}}, "token: version 1: expected 'value' or 'base64'"),
        ({"token": {"value": "s3cret", "disabled": "no"}}, "token: version 1: expected 'value' or 'base64'"),
        ({"token": {"base64": "s3cret!"}}, "token: version 1: expected base64"),
        ({"token": "s3cret" * 20000}, "got 120000 bytes"),
    ],
)
def test_invalid_values(settings, value, message):
    """The error names the secret and its version; neither the error nor its traceback contains a value."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "local", "SECRETS": value}

    with pytest.raises(InvalidSettings, match=message) as caught:
        secrets.read("token")

    text = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "s3cret" not in text.partition(stores.__file__)[2]
    assert [each.id for each in check_settings(None)] == ["cloudrun_jobs.E001"]


@pytest.mark.parametrize(
    ("value", "message"),
    [({"token": threading.Lock()}, "texts as the values"), ("~no-user/secrets.json", "a path in a known home")],
)
def test_setting_that_cannot_be_read(settings, value, message):
    """A value that cannot be copied, and a home directory that does not exist, are errors of the settings."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "local", "SECRETS": value}

    with pytest.raises(InvalidSettings, match=rf"CLOUDRUN_JOBS\['SECRETS'\]: expected {message}"):
        conf.load()


def test_broken_file_has_a_position(settings, tmp_path):
    """The error of a broken file says where, and has nothing of its text."""
    path = tmp_path / "secrets.json"
    path.write_text('{"token": "s3cret-value",\n "other": }')
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "local", "SECRETS": path}

    with pytest.raises(InvalidSettings, match=r"Expecting value \(line 2, column 11\)") as raised:
        secrets.read("token")
    assert "s3cret" not in str(raised.value)


def test_values_in_a_cloud_environment_are_not_read(settings):
    """A container, which runs no system checks, refuses them as well."""
    settings.CLOUDRUN_JOBS = {**CLOUD, "SECRETS": {"token": "s3cret-value"}}

    with pytest.raises(InvalidSettings, match="expected in local and test environments, set in 'production'"):
        secrets.read("token")


def test_path_is_a_loop_of_links(settings, tmp_path):
    """A link to itself is an unreadable file, on every Python."""
    path = tmp_path / "secrets.json"
    path.symlink_to(path)
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "local", "SECRETS": path}

    with pytest.raises(InvalidSettings, match=r"expected a readable JSON file of secrets: Too many levels"):
        secrets.read("token")


def test_destroyed_version(settings):
    """null is a destroyed version, so that the others keep their numbers."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "local", "SECRETS": {"token": [None, "two"]}}

    assert secrets.latest_version("token") == 2
    with pytest.raises(SecretDisabled, match="version 1 is destroyed"):
        secrets.read("token:1")


def test_secret_without_versions(settings):
    """A secret may have no versions yet."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "local", "SECRETS": {"token": []}}

    assert secrets.update("token", "one") == 1


@pytest.mark.parametrize("as_path", [True, False])
def test_environment_variable(settings, monkeypatch, tmp_path, as_path):
    """CLOUDRUN_JOBS_SECRETS is a JSON object, or the path of a file with one."""
    text = json.dumps({"token": "from the environment"})
    path = tmp_path / "secrets.json"
    path.write_text(text)
    monkeypatch.setenv("CLOUDRUN_JOBS_SECRETS", str(path) if as_path else text)

    assert secrets.read("token") == "from the environment"


@pytest.mark.parametrize("rest", ["", f', "a": {"1" * 5000}}}', ', "a": ' + "[" * 100000])
def test_malformed_environment_variable(monkeypatch, rest):
    """The error has no text of the variable."""
    monkeypatch.setenv("CLOUDRUN_JOBS_SECRETS", '{"token": "s3cret"' + rest)

    with pytest.raises(InvalidSettings, match="CLOUDRUN_JOBS_SECRETS: expected a JSON object") as caught:
        conf.load()
    assert "s3cret" not in str(caught.value)
    assert caught.value.__context__ is None


def test_updates_in_memory_end_with_the_settings(settings):
    """A test that replaces the settings starts with their values."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "SECRETS": {"token": "one"}}
    secrets.update("token", "two")
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "SECRETS": {"token": "one"}}

    assert secrets.latest_version("token") == 1


def test_threads_share_the_memory(settings, monkeypatch):
    """Threads that read the mapping for the first time at once lose no update."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "SECRETS": {"token": "one"}}
    both, decode = threading.Barrier(2), local.decode

    def decode_slowly(*args):
        with suppress(threading.BrokenBarrierError):
            both.wait(0.2)
        return decode(*args)

    monkeypatch.setattr(local, "decode", decode_slowly)
    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(lambda value: secrets.update("token", value), "ab")) == [2, 3]


def test_changed_mapping_is_read_again(settings):
    """A value that is changed in place is read."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "SECRETS": {"token": "one"}}
    secrets.read("token")
    settings.CLOUDRUN_JOBS["SECRETS"]["token"] = "other"

    assert secrets.read("token") == "other"


@pytest.mark.parametrize("value", [{"token": "s3cret"}, Path("secrets.json")])
def test_values_in_a_cloud_environment_are_an_error(settings, monkeypatch, value):
    """In a cloud environment the secrets are in Secret Manager."""
    settings.CLOUDRUN_JOBS = {**CLOUD, "SECRETS": value}
    [found] = [each for each in check_settings(None) if each.id == "cloudrun_jobs.E036"]

    assert found.level == checks.ERROR
    assert "s3cret" not in str(found)


def test_missing_extra_of_a_job_with_secret_options(settings, monkeypatch):
    """A job with secret options requires Google's client."""
    settings.CLOUDRUN_JOBS = CLOUD
    monkeypatch.setattr(Distribution, "discover", lambda **names: [])
    monkeypatch.setattr(echo.Command, "secret_options", ("text",), raising=False)
    found = {each.id: each for each in checks.run_checks(tags=[TAG])}

    assert "Secret options of echo" in found["cloudrun_jobs.W018"].msg


def test_debug_page_hides_the_setting(settings):
    """Django hides SECRETS among the settings of its debug page; the loaded settings hide it themselves."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "local", "SECRETS": {"token": "s3cret"}}
    shown = SafeExceptionReporterFilter().get_safe_settings()

    assert "s3cret" not in str(shown["CLOUDRUN_JOBS"])
    assert "s3cret" not in repr(conf.load())
    assert "s3cret" not in repr(vars(local.memory(conf.load().secrets)))
    assert "s3cret" not in repr(cache._entries)


def test_file_is_private_and_stays_a_link(settings, tmp_path):
    """An update makes the file readable to its owner only, and writes through a symbolic link."""
    path, link = tmp_path / "secrets.json", tmp_path / "link.json"
    path.write_text('{"token": "one"}')
    link.symlink_to(path)
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "local", "SECRETS": str(link)}
    secrets.update("token", "two")

    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text()) == {"token": [{"value": "one"}, {"value": "two"}]}


def test_file_is_created(settings, tmp_path):
    """The first update creates the file."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "local", "SECRETS": tmp_path / "secrets.json"}

    assert secrets.update("token", "one", create=True) == 1
    assert secrets.read("token") == "one"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"token": "s3cret"'])
def test_unreadable_file(settings, tmp_path, content):
    """The error names a file that is not a JSON object; an update does not replace it."""
    path = tmp_path / "secrets.json"
    path.write_bytes(content)
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "local", "SECRETS": path}

    with pytest.raises(InvalidSettings, match=r"secrets.json: expected") as caught:
        secrets.update("token", "two", create=True)
    assert caught.value.__context__ is None
    assert "s3cret" not in str(caught.value)
    assert path.read_bytes() == content


def test_directory_is_missing(settings, tmp_path):
    """If the directory does not exist, the error says so."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "local", "SECRETS": tmp_path / "missing" / "secrets.json"}

    with pytest.raises(SecretUnavailable, match=r"missing/secrets.json.lock: cannot be opened: No such file"):
        secrets.update("token", "one", create=True)


def test_file_cannot_be_written(settings, tmp_path, monkeypatch):
    """The error says that nothing was changed; its traceback has no value."""
    path = tmp_path / "secrets.json"
    path.write_text('{"token": "s3cret-1"}')
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "local", "SECRETS": path}
    monkeypatch.setattr(tempfile, "mkstemp", lambda **_: os.open("/nowhere/file", os.O_RDONLY))

    with pytest.raises(
        SecretUnavailable, match=r"cannot be written: No such file .* Nothing was changed"
    ) as caught:
        secrets.update("token", "s3cret-2")
    text = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "s3cret" not in text.partition(access.__file__)[2]
    assert secrets.read("token") == "s3cret-1"


def test_lock_is_held(settings, tmp_path, monkeypatch):
    """An update waits for the lock for a limited time."""
    monkeypatch.setattr(local, "LOCK_TIMEOUT_SECONDS", 0.05)
    path = tmp_path / "secrets.json"
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "local", "SECRETS": path}
    with (
        local.FileStore(path).exclusive(),
        pytest.raises(SecretUnavailable, match="another process held the lock"),
    ):
        secrets.update("token", "one", create=True)


def test_file_that_cannot_be_written(settings, tmp_path, monkeypatch):
    """If the disk is full, the file does not change, and no temporary file is left."""
    path = tmp_path / "secrets.json"
    path.write_text('{"token": "one"}')
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "local", "SECRETS": path}

    def fsync(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(local.os, "fsync", fsync)
    with pytest.raises(SecretUnavailable, match=r"cannot be written: No space left on device. Nothing"):
        secrets.update("token", "two")
    assert secrets.read("token") == "one"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["secrets.json", "secrets.json.lock"]


def test_directory_instead_of_a_file(settings, tmp_path):
    """The error names a path that cannot be read."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "local", "SECRETS": tmp_path}

    with pytest.raises(InvalidSettings, match="expected a readable JSON file of secrets: Is a directory"):
        secrets.read("token")


def test_absent_setting(settings):
    """None is the same as no setting."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "local", "SECRETS": None}

    assert conf.load().secrets is None


def test_names_of_the_package():
    """The package has the names in `dir()`, and no others."""
    assert dir(secrets) == ["SecretRef", "latest_version", "read", "read_bytes", "update"]
    with pytest.raises(AttributeError, match="has no attribute 'write'"):
        secrets.write  # noqa: B018
