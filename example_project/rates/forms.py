"""The form that starts the job."""

from __future__ import annotations

import re
from typing import Any

from django import forms


class CollectForm(forms.Form):
    """The options of the page. Without `source`, which would expose files of the server."""

    since = forms.DateField(required=False, widget=forms.DateInput(attrs={"type": "date"}))
    currencies = forms.CharField(
        required=False,
        max_length=200,
        help_text="Codes such as USD JPY. None: all of them.",
        widget=forms.TextInput(attrs={"placeholder": "all", "size": 24}),
    )

    def clean_currencies(self) -> list[str]:
        codes = re.findall(r"[^\s,;]+", self.cleaned_data["currencies"].upper())
        for code in codes:
            # An error here costs no execution.
            if not re.fullmatch(r"[A-Z]{3}", code):
                raise forms.ValidationError(f"Expected codes of three letters such as USD, got {code!r}.")
        return codes

    def options(self) -> dict[str, Any]:
        """Return the options for the job's `delay()`."""
        return {"since": self.cleaned_data["since"], "currency": self.cleaned_data["currencies"] or None}
