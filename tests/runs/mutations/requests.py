"""Mutations of dispatch, reservations and reconciliation."""

from __future__ import annotations

from tests.runs.mutations.rule import rule

QUERIES = "models/querysets.py"
CLAIMS = "execution/claim.py"
DISPATCH = "runs/dispatch.py"
RECONCILE = "runs/reconcile.py"
RESERVATIONS = "runs/reservations.py"

RULES = [
    rule(
        "nothing is dispatched before the commit",
        "enqueue.py",
        "        elif using is None:",
        "        elif True:",
        "runs/test_dispatch",
    ),
    rule(
        "nothing is dispatched before the commit of another database",
        "process/commits.py",
        "for each in connections.all(initialized_only=True)\n        if",
        "for each in connections.all(initialized_only=True)[:1]\n        if",
        "runs/test_other_databases",
    ),
    rule(
        "a run of another database's transaction is recorded after its commit",
        "enqueue.py",
        "    if backend.runs_in_process or using in {None, database.database_alias()}:",
        "    if True:",
        "runs/test_other_databases",
    ),
    rule(
        "a success without a record has no result",
        "models/runs.py",
        " and self.reason != NOT_RECORDED",
        "",
        "backends/test_results",
        only="was_not_recorded",
    ),
    rule(
        "a run cancelled before the commit is not dispatched",
        DISPATCH,
        "        if claim_dispatch(run):",
        "        if True:",
        "runs/test_handles",
    ),
    rule(
        "an execution whose reply was lost is adopted",
        DISPATCH,
        "        if is_unclear and (found",
        "        if False and (found",
        "runs/test_dispatch",
    ),
    rule(
        "an unclear reply is followed by a search",
        DISPATCH,
        "        except OutcomeUnknown:\n            is_unclear = True",
        "        except OutcomeUnknown:\n            is_unclear = False",
        "runs/test_dispatch",
    ),
    rule(
        "redispatch searches for the execution first",
        DISPATCH,
        "submit, backend, run, request, is_unclear=True)",
        "submit, backend, run, request)",
        "faults/test_senders",
        only="without_a_record",
    ),
    rule(
        "the same key is the same run",
        DISPATCH,
        "None if key is None else _storage_key(request.argv[0], key)",
        "None",
        "runs/test_dispatch",
    ),
    rule(
        "a repeated key starts nothing",
        "enqueue.py",
        "    if not is_new:",
        "    if False:",
        "runs/test_dispatch",
    ),
    rule(
        "a key with other arguments is refused",
        DISPATCH,
        "if (earlier.argv, earlier.overrides) != (run.argv, run.overrides):",
        "if False:",
        "runs/test_dispatch",
    ),
    rule(
        "a repeated key keeps the run id",
        "enqueue.py",
        "    request = replace(request, run_id=str(run.pk))\n",
        "",
        "runs/test_truth",
    ),
    rule(
        "a key is exact",
        DISPATCH,
        'f"{mask(key)[: MAX_KEY_LENGTH - DIGEST_LENGTH - 1]} {sha256(key.encode()).hexdigest()[:DIGEST_LENGTH]}"',
        "key",
        "runs/test_dispatch",
        only="mariadb",
    ),
    rule(
        "transient errors postpone the dispatch",
        DISPATCH,
        '        dispatch_postponed.send_robust(JobRun, run=run, error=error)\n        return "postponed"',
        '        record_failed_dispatch(run, error)\n        return "refused"',
        "runs/test_dispatch",
    ),
    rule(
        "a claimed run is not recorded as failed",
        DISPATCH,
        "run.transition(Status.FAILED, pending, ",
        "run.transition(Status.FAILED, ",
        "runs/test_truth",
    ),
    rule(
        "a dispatch lease is respected",
        QUERIES,
        "UNSENT = Q(NOT_LEASED, ",
        "UNSENT = Q(",
        "runs/test_truth",
    ),
    rule(
        "one of two reconcilers dispatches a run",
        RECONCILE,
        "    if not dispatch.claim_dispatch(run, UNSENT):",
        "    if False:",
        "runs/test_truth",
    ),
    rule(
        "a service error leaves the run as it is",
        RECONCILE,
        "            run_record_failed.send_robust(JobRun, run=run, error=error)",
        "            run.transition(Status.FAILED)",
        "runs/test_truth",
    ),
    rule(
        "a deleted execution is lost, not failed",
        "backends/cloudrun/operation.py",
        'ExecutionState(status="lost", reason="deleted"',
        'ExecutionState(status="failed", reason="deleted"',
        "faults/test_containers",
        only="deleted_execution",
    ),
    rule(
        "a silent run is watched before it is lost",
        RECONCILE,
        "attempts(LIVENESS_GRACE_SECONDS,",
        "attempts(0,",
        "runs/test_following",
    ),
    rule(
        "a waiting handle marks dead runs as lost",
        "backends/inline.py",
        "and self._is_dead(run) and",
        "and False and",
        "runs/test_following",
        only="sqlite and caller_died",
    ),
    rule(
        "other environments are left alone",
        RECONCILE,
        "filter(environment=conf.load().environment)",
        "all()",
        "runs/test_truth",
    ),
    rule(
        "a started reservation is deleted",
        "execution/runner.py",
        "    if not (run.is_reserved and environ.in_container()) or database.in_transaction():",
        "    if True:",
        "faults/test_reservations",
        only="starts_at_its_time",
    ),
    rule(
        "a cancelled reservation is deleted",
        RESERVATIONS,
        "            backend.unreserve(run.schedule, timeout=UNRESERVE_TIMEOUT_SECONDS)\n",
        "            pass\n",
        "faults/test_reservations",
        only="cancelled_reservation_is_deleted",
    ),
    rule(
        "a reservation does not start a day late",
        CLAIMS,
        "if is_over(task.reserved_for) and (late",
        "if False and (late",
        "faults/test_reservations",
        only="year_late",
    ),
    rule(
        "the newest runs of a job are kept",
        "runs/prune.py",
        "old.filter(created_at__lt=oldest_kept) if oldest_kept else old.none()",
        "old",
        "models/test_prune",
    ),
]
