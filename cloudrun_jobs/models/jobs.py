"""The declared jobs, as the admin lists them."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from cloudrun_jobs.models.runs import JobRun
from cloudrun_jobs.terminal import escape


class Job(JobRun):
    """A declared job, for the admin's index and history. The code declares the jobs: no row is one.

    A proxy: `dumpdata` would read the table of an unmanaged model.
    """

    class Meta:
        proxy = True
        default_permissions = ()
        verbose_name = _("job")
        verbose_name_plural = _("jobs")

    def __str__(self) -> str:
        return escape(self.command)
