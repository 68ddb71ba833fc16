"""Waiting for an inline run in the transaction that requested it."""

from __future__ import annotations

import warnings

import pytest
from django.db import transaction
from django.test import TestCase

from tests.jobs.management.commands import echo


@pytest.mark.parametrize("name", ["result", "exception"])
def test_inline_waiting_warns(transactional_db: None, name: str) -> None:
    """Inline there is a result, and a warning about the cloud."""
    with transaction.atomic():
        operation = echo.Command().delay(partner=7)
        with pytest.warns(RuntimeWarning, match="raises in the cloud") as caught:
            getattr(operation, name)()
    assert caught[0].filename == __file__

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert operation.result()["partner"] == 7
        with transaction.atomic():
            operation.result()


class OwnTransactionTests(TestCase):
    """The transaction of a TestCase is not the project's."""

    def test_no_warning(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert echo.Command().delay(partner=7).result()["partner"] == 7

    def test_warning_in_a_block(self) -> None:
        with transaction.atomic(), self.assertWarns(RuntimeWarning):
            echo.Command().delay(partner=7).result()
