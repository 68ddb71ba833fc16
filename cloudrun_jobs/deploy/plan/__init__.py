"""What sync would change, and doing it: the same for schedules and for jobs.

What is declared and what was found are compared as flat fields, by name. Only declared fields are: what somebody
else set stays. How a field is read and written is the store's business.
"""

from __future__ import annotations

from cloudrun_jobs.deploy.plan.applying import Store, apply
from cloudrun_jobs.deploy.plan.planning import (
    Change,
    Desired,
    Existing,
    FieldChange,
    Plan,
    Redacted,
    plan,
    reject_duplicate_ids,
)
from cloudrun_jobs.deploy.plan.printing import as_data, as_lines, summary
from cloudrun_jobs.spec.ownership import RESERVATION, OwnershipLabel

__all__ = [
    "RESERVATION",
    "Change",
    "Desired",
    "Existing",
    "FieldChange",
    "OwnershipLabel",
    "Plan",
    "Redacted",
    "Store",
    "apply",
    "as_data",
    "as_lines",
    "plan",
    "reject_duplicate_ids",
    "summary",
]
