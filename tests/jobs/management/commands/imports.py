"""Tells which modules a job's process has imported when its work begins."""

from __future__ import annotations

import sys
from typing import Any

from cloudrun_jobs import CloudRunJobs


class Command(CloudRunJobs):
    help = "List the imported modules"

    def run(self, *args: Any, **options: Any) -> str:
        return "\n".join(sorted(sys.modules))
