"""Migrations run before a deployment, while containers with the previous code still insert rows."""

from __future__ import annotations

from django.db.migrations import AddField
from django.db.migrations.loader import MigrationLoader
from django.db.models.fields import NOT_PROVIDED


def test_new_columns_can_be_left_out() -> None:
    """The previous code does not know them: they are nullable, or the database has their default."""
    migrations = MigrationLoader(None).disk_migrations
    fields = [
        (name, operation.name, operation.field)
        for (app, name), migration in migrations.items()
        for operation in migration.operations
        if app == "cloudrun_jobs" and name >= "0009" and isinstance(operation, AddField)
    ]

    assert len(fields) > 5
    assert [field[:2] for field in fields if not field[2].null and field[2].db_default is NOT_PROVIDED] == []
