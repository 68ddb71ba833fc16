"""The behaviour of `cloudrun_jobs.secrets` with every store."""

from __future__ import annotations

import pytest

from cloudrun_jobs import secrets
from cloudrun_jobs.exceptions import InvalidSecret, SecretConflict, SecretDisabled, SecretNotFound
from cloudrun_jobs.secrets import SecretRef

pytestmark = pytest.mark.usefixtures("store")


@pytest.mark.parametrize("reference", ["token", "token:3", "token:latest", SecretRef("token:3")])
def test_read(reference):
    """A secret is read by its name, with or without a version."""
    assert secrets.read(reference) == "three"


def test_read_bytes():
    """A value that is not UTF-8 is read as bytes."""
    assert secrets.read_bytes("binary") == b"\xff"


def test_value_that_is_not_text_is_refused():
    """`read()` of a value that is not UTF-8 points to `read_bytes()`."""
    with pytest.raises(
        InvalidSecret, match=r"binary: expected text, but version 1 is not UTF-8. Use secrets.read_bytes"
    ):
        secrets.read("binary")


def test_latest_version():
    """The number of the newest enabled version is the one for `expected`."""
    assert secrets.latest_version("token") == 3
    assert secrets.update("token", "four", expected=secrets.latest_version("token")) == 4


@pytest.mark.parametrize("value", ["four", b"\x00\xfe", "\x00", "ключ\n", b"x" * 65536])
def test_update(value):
    """An update adds a version, which is read from then on."""
    assert secrets.update("token", value) == 4
    assert secrets.read_bytes("token") == (value.encode() if isinstance(value, str) else value)
    assert secrets.read("token:3") == "three"


def test_update_expects_the_newest_version():
    """An update that expects an older version adds nothing."""
    with pytest.raises(SecretConflict, match="token: expected version 1 to be the newest, but the newest is 3"):
        secrets.update("token", "four", expected=1)

    assert secrets.latest_version("token") == 3
    assert secrets.update("token", "four", expected=3) == 4


def test_create():
    """A secret that does not exist is created only with `create=True`."""
    with pytest.raises(SecretNotFound, match=r"fresh: .*create=True"):
        secrets.update("fresh", "one")

    assert secrets.update("fresh", "one", create=True, expected=0) == 1
    assert secrets.read("fresh") == "one"


def test_secret_that_must_not_exist():
    """`expected=0` means that the secret has no version yet."""
    with pytest.raises(SecretConflict, match="expected version 0 to be the newest, but the newest is 3"):
        secrets.update("token", "four", create=True, expected=0)


def test_keep():
    """`keep` disables the versions older than the newest enabled ones."""
    secrets.update("token", "four", keep=2)

    assert secrets.read("token:3") == "three"
    with pytest.raises(SecretDisabled, match="1 is disabled"):
        secrets.read("token:1")


@pytest.mark.parametrize("reference", ["missing", "missing:1", "token:9"])
def test_missing_secret(reference):
    """A secret or version that does not exist is named."""
    with pytest.raises(SecretNotFound, match=reference.partition(":")[0]):
        secrets.read(reference)


def test_disabled_version():
    """A disabled version is not read."""
    with pytest.raises(SecretDisabled, match=r"token: .*version 2 is disabled"):
        secrets.read("token:2")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "at least one byte"),
        (b"", "at least one byte, got an empty one"),
        ("ä" * 32769, "at most 65536 bytes .64 KiB., got 65538 bytes. Nothing was sent"),
        (b"x" * 65537, "got 65537 bytes"),
        ("\ud800", "lone surrogate"),
        (None, "str or bytes, got NoneType"),
        (7, "str or bytes, got int"),
    ],
)
def test_invalid_value(value, problem):
    """A value that Secret Manager would reject is refused before anything is sent."""
    with pytest.raises(InvalidSecret, match=f"token: .*{problem}"):
        secrets.update("token", value)

    assert secrets.latest_version("token") == 3


@pytest.mark.parametrize("name", ["", "a b", "token:3", "projects/acme/secrets/token", "x" * 256, None, 3, "tökn"])
def test_invalid_name(name):
    """The name of a secret to update has no version and no project."""
    with pytest.raises(InvalidSecret, match="secrets: expected the name of a secret without a version"):
        secrets.update(name, "four")


@pytest.mark.parametrize("reference", ["", "a b", "token:0", "token:-1", "token:x", "token:3\n", None, 3])
def test_invalid_reference(reference):
    """Another value is rejected, and the error does not repeat it: it may be a secret."""
    with pytest.raises(InvalidSecret, match="expected the name of a secret, got something else"):
        secrets.read(reference)


@pytest.mark.parametrize(
    ("option", "value", "got"),
    [
        ("expected", -1, "0, got -1"),
        ("expected", "s3cret", "0, got str"),  # As in a call with swapped arguments.
        ("expected", True, "0, got True"),
        ("keep", 0, "1, got 0"),
        ("keep", 1.5, "1, got 1.5"),
    ],
)
def test_invalid_option(option, value, got):
    """`expected` and `keep` are numbers."""
    with pytest.raises(InvalidSecret, match=rf"^token: {option}: expected a number of at least {got}\.$"):
        secrets.update("token", "four", **{option: value})
