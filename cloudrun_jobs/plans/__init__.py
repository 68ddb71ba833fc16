"""What sync would change, and doing it: the same for schedules and for jobs.

What is declared and what was found are compared as flat fields, by name. Only declared fields are: what somebody
else set stays. How a field is read and written is the store's business.
"""

from __future__ import annotations

from .applying import Store, apply
from .mark import RESERVATION, Mark
from .planning import Change, Declared, FieldChange, Found, Hidden, Plan, plan, refuse_twins
from .printing import as_data, as_lines, summary

__all__ = [
    "RESERVATION",
    "Change",
    "Declared",
    "FieldChange",
    "Found",
    "Hidden",
    "Mark",
    "Plan",
    "Store",
    "apply",
    "as_data",
    "as_lines",
    "plan",
    "refuse_twins",
    "summary",
]
