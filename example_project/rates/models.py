"""The collected rates."""

from __future__ import annotations

from django.db import models

from . import ecb


class Rate(models.Model):
    """The value of one euro in one currency on one day."""

    date = models.DateField()
    currency = models.CharField(max_length=3)  # ISO 4217.
    # SQLite stores a double, which preserves fifteen digits.
    value = models.DecimalField(
        max_digits=ecb.INTEGER_DIGITS + ecb.DECIMAL_PLACES, decimal_places=ecb.DECIMAL_PLACES
    )

    class Meta:
        # Its index also serves the queries for the newest day and for the rates of one day.
        constraints = [models.UniqueConstraint(fields=["date", "currency"], name="one_rate_a_day")]

    def __str__(self) -> str:
        return f"{self.date}: 1 EUR = {self.written} {self.currency}"

    @property
    def written(self) -> str:
        """The value as the bank writes it, without trailing zeros and exponent."""
        return f"{self.value.normalize():f}"
