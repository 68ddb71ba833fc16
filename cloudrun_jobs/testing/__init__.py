"""Test support for projects that use the app: fixtures, and the contract of backends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudrun_jobs.testing.contract import BackendContract

__all__ = ["BackendContract"]


def __getattr__(name: str) -> Any:
    # Imported on first access: it needs pytest and the models, and INSTALLED_APPS imports this package before.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest

    pytest.register_assert_rewrite("cloudrun_jobs.testing.contract")  # So that a failure shows the values.
    from cloudrun_jobs.testing.contract import BackendContract

    return BackendContract
