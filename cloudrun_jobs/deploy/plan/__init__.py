"""Plan and apply changes: the same for Cloud Run Jobs and Scheduler jobs.

Desired and existing resources are compared field by field, by name. Fields that the code does not declare stay as
they are in the cloud. A store reads and writes the fields.
"""

from __future__ import annotations

from cloudrun_jobs.deploy.plan.applying import Store, apply
from cloudrun_jobs.deploy.plan.planning import Change, Desired, Existing, Plan, Redacted, flatten, plan

__all__ = ["Change", "Desired", "Existing", "Plan", "Redacted", "Store", "apply", "flatten", "plan"]
