"""The package as the wheel installs it."""

from __future__ import annotations

import sysconfig
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import cloudrun_jobs

pytestmark = pytest.mark.wheel

PACKAGE = Path(cloudrun_jobs.__file__).parent
MODULES = [module.name for module in walk_packages([str(PACKAGE)], "cloudrun_jobs.")]


def test_package_is_the_installed_one() -> None:
    """These tests import the package that the wheel installed, and no checkout."""
    assert PACKAGE.is_relative_to(sysconfig.get_path("purelib"))


def test_package_is_typed() -> None:
    """Type checkers read the annotations of the installed package."""
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_modules_can_be_imported(name: str) -> None:
    """Every module of the installed package can be imported once the extras are installed."""
    import_module(name)
