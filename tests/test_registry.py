"""Jobs are found by what their class is, and commands that are no jobs are not imported."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from django.core.management import get_commands
from pytest_django import Settings

from cloudrun_jobs.registry import find_jobs

Install = Callable[..., None]

# The team's base class, in a package of its own; the commands that derive from it do not mention the library.
TEAM = {
    "team/__init__.py": "",
    "team/base.py": "from cloudrun_jobs import CloudRunJobs\nclass Base(CloudRunJobs):\n    run = print\n",
    "team/plain.py": "from django.core.management.base import BaseCommand\nclass Plain(BaseCommand): ...\n",
    "team/facade/__init__.py": "from ..base import Base as Renamed\nfrom .. import base, plain\n",
    "team/stars.py": "from os.path import *\nfrom team.plain import *\nfrom team.base import *\n",
    "team/middle.py": "import team.facade\nclass Middle(team.facade.Renamed): ...\nOther = Middle\n",
    "team/lazy.py": "def __getattr__(name):\n    from team import base\n    return getattr(base, name)\n",
    "team/makers.py": "def make():\n    from team.base import Base\n    return Base\ndef turn(cls):\n"
    "    return type('Command', (make(),), {'__module__': cls.__module__})\n",
    "team/choice.py": "try:\n    from no_library import X\nexcept ImportError:\n"
    "    from team.base import Base as X\n",
    "team/circle.py": "from team import round\nclass Plain(round.Plain): ...\n",
    "team/round.py": "from team.plain import Plain\nfrom team import circle\n",
}

JOBS = {
    "derived": "from team.base import Base\nclass Command(Base): ...",
    "attribute": "import team.base\nclass Command(team.base.Base): ...",
    "module of a package": "from team import base as b\nclass Command(b.Base): ...",
    "module by another name": "import team.base as b\nclass Command(b.Base): ...",
    "re-exported": "from team.facade import Renamed\nclass Command(Renamed): ...",
    "re-exported module": "from team import facade\nclass Command(facade.base.Base): ...",
    "third generation": "from team.middle import Middle\nclass Parent(Middle): ...\nclass Command(Parent): ...",
    "second base": "from team.plain import Plain\nfrom team.base import Base\nclass Command(Base, Plain): ...",
    "alias": "from team.middle import Other\nX: type = Other\nclass Command(X): ...",
    "star": "from team.stars import *\nclass Command(Base): ...",
    "own name": "from team.base import Base as Command\nclass Command(Command): ...",
    "in a condition": "if True:\n    from team.base import Base\n    class Command(Base): ...",
    "in a try": "from team.choice import X\nclass Command(X): ...",
    "in a with": "from contextlib import *\nfrom team.base import Base\nwith nullcontext(Base) as B:\n"
    "    class Command(B): ...",
    "unpacked": "from team.base import Base\nA, B = Base, object\nclass Command(A): ...",
    "star of bases": "from team.base import Base\nclass Command(*[Base]): ...",
    "generic": "from typing import *\nfrom team.base import Base\nclass Command(Base, Generic[TypeVar('T')]): ...",
    "made by a call": "from team.makers import make\nclass Command(make()): ...",
    "assigned": "from team.makers import make\nX = make()\nclass Command(X): ...",
    "decorated": "from team.makers import turn\nfrom team.plain import Plain\n@turn\nclass Command(Plain): ...",
    "lazy module": "from team.lazy import Base\nclass Command(Base): ...",
    "set by name": "from team import makers\nclass Plain:\n    __module__ = __name__\n"
    "vars()['Command'] = makers.turn(Plain)",
    "global": "def f():\n    global Command\n    from team.base import Base\n    class Command(Base): ...\nf()",
    "metaclass": "from team.makers import turn\nclass M(type):\n    def __new__(m, n, b, d):\n"
    "        return turn(type(n, b, d))\nclass Command(metaclass=M): ...",
}

OTHERS = {
    "plain": "from django.core.management.base import BaseCommand\nclass Command(BaseCommand): ...",
    "re-exported": "from django.core.management.commands.shell import Command",
    "attribute": "from django.core import management\nclass Command(management.BaseCommand): ...",
    "own name": "from django.core.management.commands.shell import Command\nclass Command(Command): ...",
    "several bases": "from team import plain\nimport abc, typing\n"
    "class Command(plain.Plain, abc.ABC, typing.Generic[X]): ...",
    "circular": "from team.circle import Plain\nclass Command(Plain): ...",
    "deriving from itself": "class Command(Command): ...",
    "fallback": "try:\n    from team.plain import Plain\nexcept ImportError:\n    Plain = int\n"
    "class Command(Plain): ...",
    "function": "from django.core.management import BaseCommand as B\ndef f():\n    import team.base\n"
    "class Command(B): ...",
    "nothing": "import os",
    "star": "from django.core.management.base import *\nclass Command(BaseCommand): ...",
}


@pytest.fixture
def install(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return a function that installs the app `shop` with a command, and the team's package, in site-packages."""
    before = set(sys.modules)

    def install(command: str, *, files: Mapping[str, str] = TEAM, zipped: bool = False) -> None:
        path = tmp_path / "site-packages"
        packages = {f"shop/{inner}__init__.py": "" for inner in ("", "management/", "management/commands/")}
        for name, text in {**packages, "shop/management/commands/nightly_bill.py": command, **files}.items():
            file = path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        if zipped:
            path = Path(shutil.make_archive(f"{tmp_path}/zip/site-packages/all", "zip", path))
        monkeypatch.syspath_prepend(path)
        settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "shop"]
        get_commands.cache_clear()

    yield install
    for module in set(sys.modules) - before:
        if module.partition(".")[0] in {"shop", "team"}:
            del sys.modules[module]
    get_commands.cache_clear()


@pytest.mark.parametrize("command", JOBS.values(), ids=JOBS)
def test_job_of_an_installed_package_is_found(install: Install, command: str) -> None:
    """A class in site-packages that derives from the team's base class is a job, however it names that class."""
    install(command)

    found = find_jobs()

    assert found.unreadable == {}
    assert "nightly_bill" in found.jobs


def test_zipped_job_is_found(install: Install) -> None:
    """The source of the base classes is read from a zip file too."""
    install(JOBS["third generation"], zipped=True)

    assert "nightly_bill" in find_jobs().jobs


def test_zipped_command_is_not_imported(install: Install) -> None:
    """The source of the base classes excludes a job in a zip file too."""
    install(f"{OTHERS['circular']}\n1 / 0", zipped=True)

    assert find_jobs().unreadable == {}


@pytest.mark.parametrize("command", OTHERS.values(), ids=OTHERS)
def test_other_command_of_an_installed_package_is_not_imported(install: Install, command: str) -> None:
    """A command whose source excludes a job is only read, and so are the modules of its base classes."""
    install(f"{command}\n1 / 0")

    found = find_jobs()

    assert (found.unreadable, "nightly_bill" in found.jobs) == ({}, False)
    assert "team.plain" not in sys.modules


@pytest.mark.parametrize(
    "command",
    [
        "from not_installed import Base\nclass Command(Base): ...",
        "from team.base import Basis\nclass Command(Basis): ...",
        "from team.broken import Base\nclass Command(Base): ...",
        "class Command(Base: ...",
        "from .... import x\nclass Command(x.Base): ...",
        "# coding: unheard-of\nclass Command(Base): ...",
    ],
)
def test_unreadable_command_is_not_ignored(install: Install, command: str) -> None:
    """A command that can be neither read nor imported may be a job: sync and prune refuse."""
    broken = {**TEAM, "team/broken.py": "class Base("}
    install(command, files=broken)

    assert set(find_jobs().unreadable) == {"nightly_bill"}


@pytest.mark.parametrize("where", ["DJANGO_SETTINGS_MODULE", "ROOT_URLCONF", "WSGI_APPLICATION"])
def test_command_of_the_projects_package_is_imported(
    install: Install, settings: Settings, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The package of the settings or URLs is the project's, even in site-packages, whatever its source says."""
    monkeypatch.setenv(where, "shop.settings")
    setattr(settings, where, "shop.urls")
    patched = {
        **TEAM,
        "team/plain.py": TEAM["team/plain.py"] + "from team.base import Base\nvars()['Plain'] = Base\n",
    }
    install("from team.plain import Plain\nclass Command(Plain): ...", files=patched)

    assert "nightly_bill" in find_jobs().jobs
