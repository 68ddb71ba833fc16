"""A run belongs to one process, and its row obeys whoever may move it."""

from __future__ import annotations

from tests.runs.mutations.rule import rule

ROWS = "models/runs.py"
STATUSES = "models/statuses.py"
CLAIMS = "execution/claim.py"
ATTEMPTS = "execution/attempt.py"

RULES = [
    rule(
        "a name that is given again is the later execution's",
        "runs/execution_names.py",
        "if not _given_up(execution):",
        "if True:",
        "runs/test_execution_names",
    ),
    rule(
        "the name of a run that has just ended is its own",
        "runs/execution_names.py",
        ", finished_at__lt=Now() - OVER",
        "",
        "runs/test_execution_names",
    ),
    rule(
        "a run goes only where it may",
        ROWS,
        "~Q(status__in=BARRED[to]) & condition",
        "condition",
        "runs/test_statuses",
    ),
    rule(
        "an update has its condition",
        ROWS,
        ".filter(condition, pk=self.pk)",
        ".filter(pk=self.pk)",
        "runs/test_statuses",
        "runs/test_claims",
    ),
    rule(
        "a success stays one",
        STATUSES,
        "Status.CANCELLED: (*UNFINISHED,",
        "Status.CANCELLED: (Status.SUCCEEDED, *UNFINISHED,",
        "runs/test_statuses",
    ),
    rule(
        "an object says no more than its row",
        ROWS,
        "in values.items() if written else ():",
        "in values.items():",
        "runs/test_statuses",
    ),
    rule(
        "another execution's end is not the run's",
        ROWS,
        "Q(execution=execution) | Q(execution=None),",
        "ALWAYS,",
        "runs/test_truth",
    ),
    rule(
        "an answer does not take a run from who has claimed it",
        ROWS,
        'Q(execution=None) | Q(execution=noted["execution"])',
        "ALWAYS",
        "runs/test_truth",
    ),
    rule(
        "an answer does not stop a run that has begun",
        ROWS,
        'status=F("status"), sent_at=',
        "status=Status.SENT, sent_at=",
        "runs/test_truth",
    ),
    rule(
        "what the container said is kept",
        ROWS,
        'Coalesce(NullIf(F("error_message"), Value("")), Value(seen.message))',
        "Value(seen.message)",
        "runs/test_truth",
    ),
    rule(
        "a run that ends from outside takes its tasks along",
        ROWS,
        "        if settled:",
        "        if False:",
        "runs/test_following",
    ),
    rule(
        "what was sent is cancelled by Cloud Run",
        ROWS,
        "self.move(Status.CANCELLED, self._still(Status.PENDING), ",
        "self.move(Status.CANCELLED, ",
        "runs/test_handles",
    ),
    rule(
        "the server's clock is UTC in any session",
        "models/functions.py",
        "UTC_TIMESTAMP(6)",
        "CURRENT_TIMESTAMP(6)",
        "runs/test_truth",
        only="mariadb",
    ),
    rule(
        "a claim takes only what nobody has",
        CLAIMS,
        "Q(untaken | mine, command=start.command)",
        "Q(command=start.command)",
        "runs/test_claims",
    ),
    rule(
        "a run that was sent is its execution's",
        CLAIMS,
        "untaken = Q(execution=None, status__in",
        "untaken = Q(status__in",
        "runs/test_truth",
    ),
    rule(
        "another command's run is left alone",
        CLAIMS,
        "Q(untaken | mine, command=start.command)",
        "Q(untaken | mine)",
        "runs/test_claims",
    ),
    rule(
        "a retry keeps the time of the start",
        CLAIMS,
        '"started_at": Coalesce(F("started_at"), Now())',
        '"started_at": Now()',
        "runs/test_truth",
    ),
    rule(
        "a reserved run that has begun is never too late",
        CLAIMS,
        "return run if run.status in {Status.PENDING, Status.LOST} else None",
        "return run",
        "runs/test_truth",
    ),
    rule(
        "a tick that is delivered twice is one run",
        CLAIMS,
        "if first.status in {Status.FAILED, Status.CANCELLED, Status.LOST}:",
        "if True:",
        "runs/test_claims",
    ),
    rule(
        "a tick whose run failed can be started again",
        CLAIMS,
        "if first.status in {Status.FAILED, Status.CANCELLED, Status.LOST}:",
        "if False:",
        "runs/test_truth",
    ),
    rule("a task that is done is not done again", ATTEMPTS, ".exclude(status__in=DONE)", "", "runs/test_claims"),
    rule(
        "an earlier attempt does not come back",
        ATTEMPTS,
        "Q(attempt__lt=row.attempt) | Q(worker=row.worker)",
        "Q()",
        "runs/test_claims",
    ),
    rule(
        "a claim whose answer was lost is known",
        ATTEMPTS,
        "Q(attempt__lt=row.attempt) | Q(worker=row.worker)",
        "Q(attempt__lt=row.attempt)",
        "runs/test_truth",
    ),
    rule(
        "a job that a job calls is no part of the execution",
        "execution/runner.py",
        "task=None if run_id or within_another() else context.current()",
        "task=context.current()",
        "runs/test_claims",
    ),
]
