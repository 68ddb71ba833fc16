"""Say why an action of a page could not be carried out, in the language of the page."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from django.db import Error as DatabaseError
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cloudrun_jobs.dashboard.text import plain
from cloudrun_jobs.exceptions import (
    CloudRunJobsError,
    IdempotencyKeyReused,
    InvalidArguments,
    JobNotDeployed,
    QuotaExhausted,
    RerunRefused,
    ServiceError,
    ServiceUnavailable,
)

logger = logging.getLogger(__name__)

#: What the code of a job may raise while it is imported, or reads its arguments.
ANY_ERROR = (Exception, SystemExit)

#: By `RerunRefused.reason`.
REFUSALS: Mapping[str, Promise] = {
    "secrets": gettext_lazy(
        "Nothing was started: the values of the run's secret options are not recorded. Start the job again."
    ),
    "unfinished": gettext_lazy("Nothing was started: the run has not ended, so what failed is not known yet."),
    "not_started": gettext_lazy("Nothing was started: no task of the run has started. Rerun the whole run."),
    "nothing_failed": gettext_lazy("Nothing was started: nothing of the run has failed that is left to repeat."),
    "repeated": gettext_lazy("Nothing was started: another run repeats the failed tasks already."),
    "deleted": gettext_lazy("Nothing was started: records that are needed to repeat what failed were deleted."),
}


def describe(error: BaseException) -> str:
    """Return what happened, and what to do. The text of the error itself is English."""
    if not isinstance(error, CloudRunJobsError):
        return _describe_unexpected(error)
    if isinstance(error, RerunRefused) and error.reason in REFUSALS:
        return str(REFUSALS[error.reason])
    kind = {"kind": type(error).__name__, "error": plain(error)}
    if isinstance(error, JobNotDeployed):
        return _("Cloud Run has no such job. Run “manage.py sync_cloudrun_jobs”, then try again.")
    if isinstance(error, ServiceUnavailable | QuotaExhausted):
        return _("The service did not carry out the request (%(kind)s). Try again later. %(error)s") % kind
    if isinstance(error, ServiceError):
        return _("The service rejected the request (%(kind)s). %(error)s") % kind
    if isinstance(error, IdempotencyKeyReused):
        return _("This form has already started a run, with other values. To start another run, send it again.")
    if isinstance(error, InvalidArguments):
        return _("Nothing was started: the command rejects the arguments. %(error)s") % kind
    return _("The request failed (%(kind)s). %(error)s") % kind


def _describe_unexpected(error: BaseException) -> str:
    """Log an error of the code of a job or of the database, and describe it."""
    logger.error("An action of a page failed", exc_info=error)
    kind = {"kind": type(error).__name__, "error": plain(error)}
    if isinstance(error, DatabaseError):  # Its text may name hosts and users.
        return _("The request failed (%(kind)s). The log has the reason.") % kind
    return _("The request failed (%(kind)s). %(error)s") % kind
