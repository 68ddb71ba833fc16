"""A request is sent once, and looked after when its sender or its container died."""

from __future__ import annotations

from tests.runs.mutations.rule import rule

QUERIES = "models/querysets.py"
CLAIMS = "execution/claim.py"
REQUESTS = "runs/dispatch.py"
RECONCILING = "runs/reconcile.py"
RESERVING = "runs/reservations.py"

RULES = [
    rule(
        "nothing is sent before the commit",
        REQUESTS,
        "    if not patience.in_transaction():\n        return send(",
        "    if True:\n        return send(",
        "runs/test_dispatch",
    ),
    rule(
        "what was cancelled before the commit is not sent",
        REQUESTS,
        "    if lease(run):",
        "    if True:",
        "runs/test_handles",
    ),
    rule(
        "an execution whose answer was lost is adopted",
        REQUESTS,
        "        if is_unclear and (found",
        "        if False and (found",
        "runs/test_dispatch",
    ),
    rule(
        "only an unclear answer is looked after",
        REQUESTS,
        "        except OutcomeUnknown:\n            is_unclear = True",
        "        except OutcomeUnknown:\n            is_unclear = False",
        "runs/test_dispatch",
    ),
    rule(
        "an unsent run's execution is looked for first",
        REQUESTS,
        "_send_anyhow, backend, run, request, is_unclear=True)",
        "_send_anyhow, backend, run, request)",
        "faults/test_senders",
        only="without_a_record",
    ),
    rule(
        "the same key is the same run",
        REQUESTS,
        "None if key is None else kept(request.argv[0], key)",
        "None",
        "runs/test_dispatch",
    ),
    rule(
        "a key's run is not done again",
        "delay.py",
        "    if not is_to_send:",
        "    if False:",
        "runs/test_dispatch",
    ),
    rule(
        "a key for other arguments is refused",
        REQUESTS,
        "if earlier.argv != run.argv:",
        "if False:",
        "runs/test_dispatch",
    ),
    rule(
        "a key's run that is sent at last keeps its id",
        "delay.py",
        "    request = replace(request, run_id=str(run.pk))\n",
        "",
        "runs/test_truth",
    ),
    rule(
        "a key is its very characters",
        "runs/idempotency.py",
        'f"{key[: MAX_LENGTH - DIGITS - 1]} {sha256(key.encode()).hexdigest()[:DIGITS]}"',
        "key",
        "runs/test_dispatch",
        only="mariadb",
    ),
    rule(
        "what may pass is postponed",
        REQUESTS,
        '        dispatch_postponed.send_robust(JobRun, run=run, error=error)\n        return "postponed"',
        '        refuse(run, error)\n        return "refused"',
        "runs/test_dispatch",
    ),
    rule(
        "a request that was carried out is not refused",
        REQUESTS,
        "run.transition(Status.FAILED, Q(status=Status.PENDING), **values)",
        "run.transition(Status.FAILED, **values)",
        "runs/test_truth",
    ),
    rule(
        "a run is its sender's for a while",
        QUERIES,
        "Q(Q(sending_until=None) | Q(sending_until__lt=Now()), ",
        "Q(",
        "runs/test_truth",
    ),
    rule(
        "of two who look after a run one sends it",
        RECONCILING,
        "    if not run.update_if(UNSENT, sending_until=Now() + requests.SENDING):",
        "    if False:",
        "runs/test_truth",
    ),
    rule(
        "an error of the service says nothing of a run",
        RECONCILING,
        "            run_record_failed.send_robust(JobRun, run=run, error=error)",
        "            run.transition(Status.FAILED)",
        "runs/test_truth",
    ),
    rule(
        "an execution that is gone did not fail",
        "backends/cloudrun/operation.py",
        'ExecutionState(status="lost", reason="deleted"',
        'ExecutionState(status="failed", reason="deleted"',
        "faults/test_containers",
        only="is_gone",
    ),
    rule(
        "who is silent is listened to",
        RECONCILING,
        "until = time.monotonic() + HEARD_BY",
        "until = time.monotonic()",
        "runs/test_following",
    ),
    rule(
        "who waits gives up the dead",
        "backends/inline.py",
        "and self._is_dead(run) and",
        "and False and",
        "runs/test_following",
        only="sqlite and asked_died",
    ),
    rule(
        "another environment's runs are let be",
        RECONCILING,
        "filter(environment=conf.load().environment)",
        "all()",
        "runs/test_truth",
    ),
    rule(
        "a reservation that was begun is deleted",
        "execution/runner.py",
        "            if run.is_reserved and context.in_container():",
        "            if False:",
        "faults/test_reservations",
        only="begins_at_its_time",
    ),
    rule(
        "a reservation that is cancelled is deleted",
        RESERVING,
        "            backend.unreserve(run.schedule)\n",
        "            pass\n",
        "faults/test_reservations",
        only="cancelled_reservation_is_deleted",
    ),
    rule(
        "a reservation comes no day too late",
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
