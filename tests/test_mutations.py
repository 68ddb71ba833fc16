"""The rules that mutations remove are where they are looked for, and so are the tests that should notice."""

from __future__ import annotations

import pytest

from tests.locks.mutations import MUTATIONS as OF_LOCKS
from tests.mutation import ROOT, Mutation
from tests.runs.mutations import MUTATIONS as OF_RUNS


@pytest.mark.parametrize(
    "mutation", [*OF_LOCKS, *OF_RUNS], ids=lambda mutation: f"{mutation.only} {mutation.rule}"
)
def test_a_mutation_fits_the_code(mutation: Mutation) -> None:
    """Code that changes takes its mutations along."""
    assert mutation.old in (ROOT / "cloudrun_jobs" / mutation.path).read_text()
    assert all((ROOT / "tests" / f"{name}.py").exists() for name in mutation.tests)
