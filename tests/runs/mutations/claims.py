"""Mutations of claims and status transitions."""

from __future__ import annotations

from tests.runs.mutations.rule import rule

ROWS = "models/runs.py"
STATUSES = "models/statuses.py"
CLAIMS = "execution/claim.py"
ATTEMPTS = "execution/attempt.py"

RULES = [
    rule(
        "a later execution gets a reused name",
        "runs/execution_names.py",
        "if not _release_stale_name(execution):",
        "if True:",
        "runs/test_execution_names",
    ),
    rule(
        "a run keeps its execution name for an hour",
        "runs/execution_names.py",
        ", finished_at__lt=Now() - NAME_REUSE_DELAY",
        "",
        "runs/test_execution_names",
    ),
    rule(
        "forbidden transitions are refused",
        ROWS,
        "~Q(status__in=FORBIDDEN_SOURCES[to]) & condition",
        "condition",
        "runs/test_statuses",
    ),
    rule(
        "an update is conditional",
        ROWS,
        ".filter(condition, pk=self.pk)",
        ".filter(pk=self.pk)",
        "runs/test_statuses",
        "execution/test_claim",
    ),
    rule(
        "a success is final",
        STATUSES,
        "Status.CANCELLED: (*UNFINISHED,",
        "Status.CANCELLED: (Status.SUCCEEDED, *UNFINISHED,",
        "runs/test_statuses",
    ),
    rule(
        "a refused update changes no object",
        ROWS,
        "in values.items() if written else ():",
        "in values.items():",
        "runs/test_statuses",
    ),
    rule(
        "the state of another execution is ignored",
        ROWS,
        "same = Q(execution=execution) | Q(execution=None)",
        "same = ALWAYS",
        "runs/test_truth",
    ),
    rule(
        "a reply does not override a claim",
        ROWS,
        "same = Q(execution=None) | Q(execution=execution)",
        "same = ALWAYS",
        "runs/test_truth",
    ),
    rule(
        "a reply does not reset a running run",
        ROWS,
        'status=F("status"), sent_at=',
        "status=Status.SENT, sent_at=",
        "runs/test_truth",
    ),
    rule(
        "the container's error message is kept",
        ROWS,
        'Coalesce(NullIf(F("error_message"), Value("")), Value(state.message))',
        "Value(state.message)",
        "runs/test_truth",
    ),
    rule(
        "reconciling a run ends its tasks",
        ROWS,
        "        if ended:",
        "        if False:",
        "runs/test_following",
    ),
    rule(
        "a dispatched run is cancelled on Cloud Run",
        "runs/handle.py",
        "Status.CANCELLED, Q(status=Status.PENDING), finished_at",
        "Status.CANCELLED, finished_at",
        "runs/test_handles",
    ),
    rule(
        "the server's time is UTC in any session",
        "models/functions.py",
        "UTC_TIMESTAMP(6)",
        "CURRENT_TIMESTAMP(6)",
        "runs/test_truth",
        only="mariadb",
    ),
    rule(
        "a claimed run cannot be claimed",
        CLAIMS,
        "Q(unclaimed | own, command=start.command, environment=start.environment)",
        "Q(command=start.command, environment=start.environment)",
        "execution/test_claim",
    ),
    rule(
        "a dispatched run belongs to its execution",
        CLAIMS,
        "unclaimed = Q(execution=None, status__in",
        "unclaimed = Q(status__in",
        "runs/test_truth",
    ),
    rule(
        "a run of another command is not claimed",
        CLAIMS,
        "Q(unclaimed | own, command=start.command, environment=start.environment)",
        "Q(unclaimed | own, environment=start.environment)",
        "execution/test_claim",
    ),
    rule(
        "a run of another environment is not claimed",
        CLAIMS,
        "Q(unclaimed | own, command=start.command, environment=start.environment)",
        "Q(unclaimed | own, command=start.command)",
        "execution/test_claim",
        only="environment",
    ),
    rule(
        "a retry keeps the start time",
        CLAIMS,
        '"started_at": Coalesce(F("started_at"), Now())',
        '"started_at": Now()',
        "runs/test_truth",
    ),
    rule(
        "a started reservation is never too late",
        CLAIMS,
        "_is_own(start, run) and run.status in {Status.PENDING, Status.LOST}",
        "_is_own(start, run)",
        "runs/test_truth",
    ),
    rule(
        "a tick delivered twice is one run",
        CLAIMS,
        "if first.status in {Status.FAILED, Status.CANCELLED, Status.LOST}:",
        "if True:",
        "execution/test_claim",
    ),
    rule(
        "a tick whose run failed can be repeated",
        CLAIMS,
        "if first.status in {Status.FAILED, Status.CANCELLED, Status.LOST}:",
        "if False:",
        "runs/test_truth",
    ),
    rule("a complete task is not repeated", ATTEMPTS, ".exclude(status__in=COMPLETE)", "", "execution/test_claim"),
    rule(
        "an earlier attempt does not take over",
        ATTEMPTS,
        "Q(attempt__lt=row.attempt) | Q(worker=row.worker)",
        "Q()",
        "execution/test_claim",
    ),
    rule(
        "a claim whose reply was lost is recognised",
        ATTEMPTS,
        "Q(attempt__lt=row.attempt) | Q(worker=row.worker)",
        "Q(attempt__lt=row.attempt)",
        "runs/test_truth",
    ),
    rule(
        "a run whose cancellation was requested does not start",
        "execution/runner.py",
        "        if attempt.run.cancel_requested_at:",
        "        if False:",
        "execution/test_claim",
        only="cancel",
    ),
    rule(
        "a nested job is not part of the execution",
        "execution/runner.py",
        "task=None if requested or is_nested() else environ.current_task()",
        "task=environ.current_task()",
        "execution/test_claim",
    ),
]
