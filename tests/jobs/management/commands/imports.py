"""List the modules that are imported when a job's work begins."""

from __future__ import annotations

import sys
from typing import Any

from cloudrun_jobs import CloudRunJobs


class Command(CloudRunJobs):
    help = "List the imported modules"

    def run(self, *args: Any, **options: Any) -> str:
        return "\n".join(sorted(sys.modules))
