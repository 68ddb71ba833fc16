"""Mutations of how a queue worker handles a delivery, and of redelivery."""

from __future__ import annotations

from tests.runs.mutations.rule import rule

DELIVERY = "execution/delivery.py"
REDELIVERY = "runs/redelivery.py"
ATTEMPTS = "execution/attempt.py"

RULES = [
    rule(
        "a delivery of a running task starts nothing",
        DELIVERY,
        "is_running = row.exit_code is None and not row.is_silent",
        "is_running = False",
        "execution/test_delivery",
    ),
    rule(
        "a silent task is taken over",
        DELIVERY,
        "is_running = row.exit_code is None and not row.is_silent",
        "is_running = row.exit_code is None",
        "execution/test_delivery",
    ),
    rule(
        "a process that dies too often ends its run",
        DELIVERY,
        "if delivery.failures > spec.max_retries:",
        "if False:",
        "execution/test_delivery",
    ),
    rule(
        "a reserved run does not start early",
        DELIVERY,
        "is_due=not (run.is_finished or is_early)",
        "is_due=not run.is_finished",
        "execution/test_delivery",
    ),
    rule(
        "a failed reduce() is delivered again",
        DELIVERY,
        "has_ended = row.status in FINISHED and not _has_to_reduce(run, row)",
        "has_ended = row.status in FINISHED",
        "execution/test_delivery",
    ),
    rule(
        "an interruption by a worker's shutdown is repeated",
        ATTEMPTS,
        'return self._in_worker and outcome.reason == "interrupted"',
        "return False",
        "execution/test_delivery",
    ),
    rule(
        "an interruption is counted",
        ATTEMPTS,
        'count = F("interruptions") + Case(When(exit_code=None, then=1), default=0)',
        'count = F("interruptions")',
        "execution/test_delivery",
    ),
    rule(
        "a queue with all of its messages gets no more",
        REDELIVERY,
        "if waiting and age < MAX_INTERVAL and self._has_all_messages(run.queue):",
        "if False:",
        "backends/test_celery",
        only="not nothing",
    ),
    rule(
        "a run is sent again less and less often",
        REDELIVERY,
        "interval = min(max(age, MIN_INTERVAL), MAX_INTERVAL)",
        "interval = MIN_INTERVAL",
        "backends/test_celery",
        only="not nothing",
    ),
    rule(
        "only silent tasks are sent again",
        REDELIVERY,
        "[index for index in range(run.task_count) if index not in started]",
        "list(range(run.task_count))",
        "backends/test_celery",
        only="not nothing",
    ),
    rule(
        "a queue's run does not start again after its end",
        "execution/claim.py",
        "claimable &= Q(status__in=UNFINISHED)",
        "pass",
        "execution/test_delivery",
    ),
]
