"""The databases of this app's tables, as the project's routers place them."""

from __future__ import annotations

from django.db import router
from django.db.models import Model


def migrate_hint(model: type[Model], alias: str) -> str:
    """Return how to create the model's table in that database, or why a migration would not do it."""
    if router.allow_migrate_model(alias, model):
        return f"Run `manage.py migrate cloudrun_jobs --database {alias}`."
    home = router.db_for_write(model)
    if home != alias:
        return f"DATABASE_ROUTERS keep this table in the database {home!r}: name that one, or none."
    allow = f"Let allow_migrate({alias!r}, 'cloudrun_jobs') of DATABASE_ROUTERS return True"
    return f"{allow}, then run `manage.py migrate cloudrun_jobs --database {alias}`."
