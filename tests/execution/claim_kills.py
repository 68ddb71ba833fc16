"""A program that claims items in child processes, and kills each of them at a different statement.

It prints, for each kill, how often each item's write was committed and which items were listed as failed.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

CONFIG = json.loads(os.environ["KILLED"])
ITEMS = ["a", "bad", "b"]


def configure() -> None:
    from django.conf import settings

    if "mysql" in CONFIG["database"]["ENGINE"]:
        from tests.servers import sql

        sql.mariadb_settings(0)
    settings.configure(
        SECRET_KEY="killed",
        INSTALLED_APPS=["cloudrun_jobs", "tests.jobs"],
        DATABASES={"default": CONFIG["database"]},
        CLOUDRUN_JOBS={"ENVIRONMENT": "test"},
        LOGGING_CONFIG=None,
        USE_TZ=True,
    )
    import django

    django.setup()


def in_child(work: Callable[[], object]) -> bool:
    """Do the work in a forked process; return False if it was killed."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert status in {0, signal.SIGKILL}, status
    return status == 0


def claim(run_id: str, attempt: int, number: int) -> None:
    """Do the items; kill the process before its statement of this number, commits included."""
    from django.db import connection

    from cloudrun_jobs.models import JobRun
    from tests.execution.claiming import task

    count = itertools.count(1)

    def step(execute: Callable[..., Any], *args: Any) -> Any:
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return execute(*args)

    def watch(connection: Any) -> None:
        commit = connection._commit
        connection.execute_wrappers.append(step)
        connection._commit = lambda: step(commit)

    with task(JobRun.objects.get(pk=run_id), attempt=attempt, count=1) as job:
        watch(connection)
        for item in job.claim(ITEMS, batch=CONFIG["batch"], item_retries=1):
            with job.item(item, atomic=True):
                JobRun.objects.create(command="effect", environment="test", trigger="http", reason=item)
                if item == "bad":
                    raise ValueError
        number = 0  # Another test covers the end of the attempt.


def main() -> None:
    configure()
    number = 1
    while not is_survived(number):
        number += 1


def is_survived(number: int) -> bool:
    """Run the attempts of one run, and print the state that they leave; return True if none was killed."""
    run_id = str(in_parent(new_run))
    survived = in_child(partial(claim, run_id, 0, number))
    if not survived:
        assert in_child(partial(claim, run_id, 1, 0))
    sys.stdout.write(json.dumps({"number": number, **in_parent(found)}) + "\n")
    return survived


def in_parent(work: Callable[[], Any]) -> Any:
    """Do the work, and close the connections, which child processes must not inherit."""
    from django.db import connection

    try:
        return work()
    finally:
        connection.close()


def new_run() -> Any:
    from cloudrun_jobs.models import JobRun
    from tests.runs.conftest import request

    JobRun.objects.all().delete()
    return request("outcome").pk


def found() -> dict[str, Any]:
    from cloudrun_jobs.models import ItemChunk, JobRun

    effects = Counter(JobRun.objects.filter(command="effect").values_list("reason", flat=True))
    failed = [chunk.items for chunk in ItemChunk.objects.filter(status="failed")]
    return {"effects": effects, "failed": failed, "open": ItemChunk.objects.filter(status="open").count()}


if __name__ == "__main__":
    main()
