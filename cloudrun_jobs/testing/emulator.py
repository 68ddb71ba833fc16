"""The pytest fixture `cloudrun_emulator`: a local Cloud Run with its services for one test.

Add this module to `pytest_plugins`, or import the fixtures in a `conftest.py`.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test.testcases import _DatabaseFailure

from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.environ import DATABASE_KEYS, DATABASES_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

USE_EMULATOR = "Use `cloudrun_jobs.emulator.Emulator` for jobs that need no database of the test."


@pytest.fixture
def cloudrun_emulator_options() -> dict[str, Any]:
    """The options of the emulator; override this fixture to change them."""
    return {"grace": 1.0}


if find_spec("pytest_django"):

    @pytest.fixture
    def cloudrun_emulator(
        transactional_db: None, monkeypatch: pytest.MonkeyPatch, cloudrun_emulator_options: dict[str, Any]
    ) -> Iterator[Emulator]:
        """An emulator on free ports, stopped with all its processes when the test ends.

        Its tasks have the databases of the test, which commits what it writes, as with `transactional_db`.
        """
        monkeypatch.setenv(DATABASES_VARIABLE, json.dumps(task_databases()))
        passed = (*cloudrun_emulator_options.get("pass_env", ()), DATABASES_VARIABLE)
        with Emulator(**{**cloudrun_emulator_options, "pass_env": passed}) as emulator:
            yield emulator
else:

    @pytest.fixture
    def cloudrun_emulator() -> Iterator[Emulator]:
        """Refuse: without pytest-django there is no test database to give to the tasks."""
        pytest.fail(f"The fixture cloudrun_emulator needs pytest-django for the test database. {USE_EMULATOR}")


def task_databases() -> dict[str, dict[str, str]]:
    """Return the settings of the test's databases by alias, for processes that are to use the same."""
    return {connection.alias: _settings(connection) for connection in connections.all()}


def _settings(connection: BaseDatabaseWrapper) -> dict[str, str]:
    if isinstance(connection.connect, _DatabaseFailure):  # Django forbids it to the test: it is no test database.
        return {**dict.fromkeys(DATABASE_KEYS, ""), "ENGINE": "django.db.backends.dummy"}
    alias, values = connection.alias, {key: str(connection.settings_dict[key]) for key in DATABASE_KEYS}
    if connection.in_atomic_block:
        pytest.fail(
            f"The test is in a transaction of the database {alias!r}: the emulator's tasks would not see what it "
            f"writes. Mark the test with `@pytest.mark.django_db(transaction=True)`. {USE_EMULATOR}"
        )
    if connection.vendor == "sqlite":
        if ":memory:" in values["NAME"] or "mode=memory" in values["NAME"]:
            pytest.fail(
                f"The test database {alias!r} is in memory, where the emulator's tasks cannot read it. Set "
                f"DATABASES[{alias!r}]['TEST'] = {{'NAME': BASE_DIR / 'test.sqlite3'}}. {USE_EMULATOR}"
            )
        values["NAME"] = str(Path(values["NAME"]).resolve())
    return values
