"""However a job ends, the record says how, and the process says the same."""

from __future__ import annotations

from .rule import rule

QUERIES = "models/queries.py"
ATTEMPTS = "runs/attempts.py"
PULSE = "runs/pulse.py"

RULES = [
    rule(
        "an attempt that was taken over from writes nothing",
        ATTEMPTS,
        "TaskRun.objects.filter(pk=self._task.pk, worker=self._task.worker)",
        "TaskRun.objects.filter(pk=self._task.pk)",
        "runs/test_claims",
    ),
    rule(
        "a failed attempt with retries left is no failed run",
        ATTEMPTS,
        "task is not None and task.attempt < spec.max_retries",
        "False",
        "runs/test_outcomes",
    ),
    rule(
        "the last attempt's failure is the run's",
        ATTEMPTS,
        "task is not None and task.attempt < spec.max_retries",
        "task is not None",
        "runs/test_outcomes",
    ),
    rule(
        "a run ends with its last task",
        ATTEMPTS,
        "in FINISHED) < self._tasks:",
        "in FINISHED) < 1:",
        "runs/test_outcomes",
    ),
    rule(
        "a failed task fails the run",
        ATTEMPTS,
        "WORST_FIRST = (Status.CANCELLED, Status.FAILED, Status.SUCCEEDED,",
        "WORST_FIRST = (Status.SUCCEEDED, Status.CANCELLED, Status.FAILED,",
        "runs/test_outcomes",
    ),
    rule(
        "a success leaves no error",
        ATTEMPTS,
        "            values |= NO_ERROR",
        "            pass",
        "runs/test_outcomes",
    ),
    rule(
        "who was cancelled here did not run out of time",
        ATTEMPTS,
        'if ended.reason == "timeout" and self._was_cancelled():',
        "if False:",
        "runs/test_truth",
    ),
    rule(
        "a deleted row is made again",
        ATTEMPTS,
        "            self._restore()\n",
        "            return\n",
        "runs/test_outcomes",
    ),
    rule(
        "a transaction that was left open is abandoned",
        ATTEMPTS,
        "            patience.abandon_transaction()",
        "            pass",
        "runs/test_outcomes",
    ),
    rule(
        "an end that cannot be written is told with the truth",
        ATTEMPTS,
        "            self._say_at_least(ended)\n",
        "",
        "runs/test_ends",
    ),
    rule(
        "an end that another gave the run is seen",
        ATTEMPTS,
        "        if not self.run.move(to, finished_at=Now(), **values):",
        "        if self.run.move(to, finished_at=Now(), **values) and False:",
        "runs/test_ends",
    ),
    rule(
        "work that is done is not cut off",
        ATTEMPTS,
        "ended = self._ended or ending(interrupt.interrupted())",
        "ended = ending(interrupt.interrupted())",
        "runs/test_ends",
    ),
    rule(
        "results that are long together stay with the tasks",
        "runs/results.py",
        '["length"] or 0) > MAX_RESULT:',
        '["length"] or 0) < 0:',
        "runs/test_outcomes",
    ),
    rule(
        "a status that ends as 0 is none",
        "runs/endings.py",
        "(code & 0xFF or int(code != 0))",
        "code & 0xFF",
        "runs/test_outcomes",
    ),
    rule(
        "the end is told when the record says so",
        "perform.py",
        "at_last.callback(_tell, job_finished, job,",
        "_tell(job_finished, job,",
        "runs/test_ends",
    ),
    rule(
        "SIGTERM after the work changes no status",
        "perform.py",
        "            interrupt.let_end()",
        "            pass",
        "runs/test_ends",
    ),
    rule(
        "SIGTERM after an inner job's work is for the outer one",
        "interrupts.py",
        "if _handling != [self] or not",
        "if not",
        "runs/test_ends",
    ),
    rule(
        "a second SIGTERM does not break off the cleaning up",
        "interrupts.py",
        "if not _handling or any(interrupt.terminated_at for interrupt in _handling):",
        "if not _handling:",
        "runs/test_ends",
    ),
    rule(
        "SIGTERM in an inline job is for the whole process",
        "delay.py",
        "    except JobInterrupted:\n        raise  # Meant for the whole process.\n",
        "",
        "runs/test_ends",
    ),
    rule(
        "an event loop keeps its ear for signals",
        "knocking.py",
        "        if theirs != -1:",
        "        if False:",
        "test_knocking",
        only="event_loop",
    ),
    rule(
        "a job that is deaf to SIGTERM is recorded before SIGKILL",
        PULSE,
        "                    cut_off(interrupt)",
        "                    pass",
        "crashes/test_database",
        only="does_not_heed",
    ),
    rule(
        "heartbeats are the server's time",
        PULSE,
        "from ..models.clock import Now",
        "from django.utils.timezone import now as Now",
        "runs/test_pulse",
    ),
    rule(
        "a heart beats without progress, too",
        PULSE,
        "if self._is_new or now - written >= BEAT:",
        "if self._is_new:",
        "runs/test_pulse",
    ),
    rule("no beat comes after the end", PULSE, ", finished_at=None)", ")", "runs/test_pulse"),
    rule(
        "a heart that beats is heard",
        QUERIES,
        ".exclude(tasks__heartbeat_at__gt=since)",
        "",
        "runs/test_following",
    ),
]
