"""Mutations of the ticks of `celery beat`, and of those that Cloud Scheduler delivers for a queue."""

from __future__ import annotations

from functools import partial

from tests.runs.mutations.rule import rule

tick_rule = partial(rule, only="")  # The tests are not of one kind of database.

BEAT = "contrib/celery/beat.py"
DISPATCH = "runs/dispatch.py"
TRIGGERS = "http/triggers.py"
TESTS, TRIGGER_TESTS = "contrib/test_beat", "http_api/test_triggers_of_queues"

RULES = [
    tick_rule(
        "a tick that was sent is not due",
        BEAT,
        "due > self._aware(last_run_at)",
        "due >= self._aware(last_run_at)",
        "contrib/test_beat_schedule",
    ),
    tick_rule(
        "a tick has the due time", BEAT, "_last_time(schedule, datetime.now(UTC))", "datetime.now(UTC)", TESTS
    ),
    tick_rule("a changed schedule begins anew", BEAT, "encode(), entry", "encode()[:9], entry", TESTS),
    tick_rule(
        "the web service's schedules have no entry", BEAT, 'if spec.target != "job" or not', "if not", TESTS
    ),
    tick_rule(
        "a tick of another environment is dropped",
        BEAT,
        'if not f"{scheduler_job}-".startswith(f"{spec.name}-"):',
        "if False:",
        TESTS,
    ),
    tick_rule(
        "beat waits for the broker",
        BEAT,
        '{"retry_policy": PUBLISH_RETRY_POLICY, **queue}',
        "queue",
        "contrib/test_beat_outage",
    ),
    tick_rule(
        "a tick is one run",
        DISPATCH,
        "    if run.schedule is not None:\n        return same",
        "    if False:\n        return same",
        TESTS,
    ),
    tick_rule(
        "a run that cannot be sent stays pending",
        "enqueue.py",
        "_submit(job, spec, request, _send_or_postpone, **values)",
        "_submit(job, spec, request, **values)",
        TESTS,
    ),
    tick_rule(
        "a start by hand leaves the tick",
        TRIGGERS,
        'while is_duplicate and run.update_if(started_by_hand(values["scheduled_for"]), scheduled_for=None):',
        "while False:",
        TRIGGER_TESTS,
    ),
    tick_rule(
        "a run that is refused is an error",
        TRIGGERS,
        "if run.status == Status.FAILED and run.reason == NOT_SENT:",
        "if False:",
        TRIGGER_TESTS,
    ),
]
