"""The texts of the pages in Japanese and Korean."""

from __future__ import annotations

import gettext
import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cloudrun_jobs

PACKAGE = Path(cloudrun_jobs.__file__).parent
LANGUAGES = ["ja", "ko"]
#: As in the session `messages` of noxfile.py, which writes the files.
MAKE_MESSAGES = ("makemessages", "--no-wrap", "--add-location", "file", "--ignore", "emulator/*", "--no-obsolete")

pytestmark = pytest.mark.skipif(shutil.which("msgfmt") is None, reason="GNU gettext is not installed")


def catalog(language: str, package: Path = PACKAGE) -> Path:
    return package / "locale" / language / "LC_MESSAGES" / "django.po"


def tool(*arguments: str | Path) -> bytes:
    return subprocess.run(arguments, check=True, capture_output=True).stdout


def entries(path: Path) -> str:
    """Return the entries of a catalog, without the header and its dates."""
    return path.read_text().partition("\n#: ")[2]


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the package whose catalogs have the strings of the code."""
    copy = tmp_path_factory.mktemp("languages") / "cloudrun_jobs"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "emulator", "*.mo"))
    languages = [word for language in LANGUAGES for word in ("--locale", language)]
    command = [sys.executable, "-m", "django", *MAKE_MESSAGES, *languages]
    subprocess.run(command, cwd=copy, check=True, capture_output=True, env={"PATH": _path()})
    return copy


def _path() -> str:
    tools = shutil.which("xgettext")
    assert tools is not None
    return str(Path(tools).parent)


@pytest.mark.parametrize("language", LANGUAGES)
def test_catalog_has_the_strings_of_the_code(extracted: Path, language: str) -> None:
    """A string that is new, changed or gone fails: `make messages` updates the catalogs."""
    assert entries(catalog(language, extracted)) == entries(catalog(language))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("selection", ["--untranslated", "--only-fuzzy", "--only-obsolete"])
def test_every_string_is_translated(language: str, selection: str) -> None:
    """No entry is missing, fuzzy or obsolete."""
    assert tool("msgattrib", selection, "--no-wrap", catalog(language)).decode() == ""


@pytest.mark.parametrize("language", LANGUAGES)
def test_compiled_catalog_is_up_to_date(language: str) -> None:
    """The committed `.mo` is what the `.po` compiles to, and its placeholders are those of the source."""
    compiled = tool("msgfmt", "--check", "--output-file", "-", catalog(language))
    committed = catalog(language).with_suffix(".mo").read_bytes()
    assert _messages(committed) == _messages(compiled)


def _messages(compiled: bytes) -> dict[object, str]:
    return gettext.GNUTranslations(io.BytesIO(compiled))._catalog  # type: ignore[attr-defined,no-any-return]
