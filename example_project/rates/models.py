"""What has been collected."""

from __future__ import annotations

from django.db import models

from . import ecb


class Rate(models.Model):
    """What one euro was worth in one currency on one day."""

    date = models.DateField()
    currency = models.CharField(max_length=3)  # ISO 4217.
    # Fifteen digits are what SQLite, which keeps a double, gives back unchanged.
    value = models.DecimalField(
        max_digits=ecb.INTEGER_DIGITS + ecb.DECIMAL_PLACES, decimal_places=ecb.DECIMAL_PLACES
    )

    class Meta:
        # Its index also finds the newest day, and the rates of a day in the order of the page.
        constraints = [models.UniqueConstraint(fields=["date", "currency"], name="one_rate_a_day")]

    def __str__(self) -> str:
        return f"{self.date}: 1 EUR = {self.written} {self.currency}"

    @property
    def written(self) -> str:
        """The value as the bank writes it: no zeros at the end, no exponent."""
        return f"{self.value.normalize():f}"
