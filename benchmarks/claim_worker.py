"""One process of the benchmark of `claim()`, configured by the environment variable BENCHMARK."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

CONFIG = json.loads(os.environ["BENCHMARK"])
ITEMS = 40_000  # More than all processes claim in one measurement.
HAND_WRITTEN = 1000  # The number of the first list of the hand-written side.


def configure() -> None:
    from django.conf import settings

    settings.configure(
        SECRET_KEY="benchmark",
        INSTALLED_APPS=["cloudrun_jobs", "tests.jobs"],
        DATABASES={"default": CONFIG["place"]},
        CLOUDRUN_JOBS={"ENVIRONMENT": "test"},
        USE_TZ=True,
    )
    import django

    django.setup()


def prepare() -> None:
    from django.core.management import call_command

    from tests.runs.conftest import request

    call_command("migrate", "cloudrun_jobs", verbosity=0)
    print(json.dumps(str(request("outcome").pk)))


def serve() -> None:
    """Run one measurement for each line of the input."""
    with begun(CONFIG["run_id"]) as job:
        for line in sys.stdin:
            order = json.loads(line)
            if order["side"] == "claim()":
                claims: Iterator[Any] = job.claim(range(ITEMS))
            else:
                claims = hand_written(HAND_WRITTEN + order["number"])
            next(claims)  # The list is written.
            print(json.dumps("ready"), flush=True)
            time.sleep(max(0.0, json.loads(sys.stdin.readline()) - time.time()))
            ends, found = time.monotonic() + order["seconds"], []
            while time.monotonic() < ends:
                found.append(next(claims))
            print(json.dumps(len(found)), flush=True)
            print(json.dumps(found), flush=True)
            claims = iter(())  # Leaves the loop over claim().


def begun(run_id: str) -> Any:
    from cloudrun_jobs.models import JobRun
    from tests.execution.claiming import task

    run = JobRun.objects.get(pk=run_id)
    return task(run, CONFIG["index"], count=CONFIG["count"], execution=f"outcome-test-{run_id[:5]}")


def hand_written(number: int) -> Iterator[Any]:
    """Claim the items of a list with psycopg: one transaction finishes an item and takes the next."""
    import psycopg

    place = CONFIG["place"]
    connection = psycopg.connect(host=place["HOST"], port=place["PORT"], user=place["USER"], dbname=place["NAME"])
    cursor, worker, done = connection.cursor(), uuid4(), 0
    pk = hand_written_list(connection, number)
    while True:
        if done:
            cursor.execute("UPDATE cloudrun_jobs_itemchunk SET status = 'done' WHERE id = %s", [done])
        cursor.execute(
            "SELECT id, items FROM cloudrun_jobs_itemchunk WHERE list_id = %s AND status = 'open'"
            " AND (leased_until IS NULL OR leased_until < now())"
            " ORDER BY start LIMIT 1 FOR UPDATE SKIP LOCKED",
            [pk],
        )
        row = cursor.fetchone()
        assert row is not None
        done, items = row
        cursor.execute(
            "UPDATE cloudrun_jobs_itemchunk SET worker = %s, leased_until = now() + interval '60 s' WHERE id = %s",
            [worker, done],
        )
        connection.commit()
        yield items[0]


def hand_written_list(connection: Any, number: int) -> int:
    """Return the primary key of the list, which the first process to get the lock writes."""
    cursor = connection.cursor()
    cursor.execute("SELECT pg_advisory_xact_lock(7)")
    cursor.execute("SELECT id FROM cloudrun_jobs_itemlist WHERE number = %s", [number])
    row = cursor.fetchone()
    if row is None:
        cursor.execute(
            "INSERT INTO cloudrun_jobs_itemlist (run_id, kind, number, count, digest, writer)"
            " VALUES (%s, 'claim', %s, %s, '', %s) RETURNING id",
            [CONFIG["run_id"], number, ITEMS, uuid4()],
        )
        row = cursor.fetchone()
        cursor.execute(
            "INSERT INTO cloudrun_jobs_itemchunk"
            ' (list_id, start, size, items, "cursor", status, tries, error_class, error_message)'
            " SELECT %s, n, 1, jsonb_build_array(n), 0, 'open', 0, '', '' FROM generate_series(0, %s) AS n",
            [row[0], ITEMS - 1],
        )
    connection.commit()
    return int(row[0])


def overhead() -> None:
    """Print the seconds to write the list, and to iterate over it with `item()`."""
    from tests.runs.conftest import request

    with begun(str(request("outcome").pk)) as job:
        began = time.perf_counter()
        claims = job.claim(range(CONFIG["items"]), batch=1000)
        written = time.perf_counter()
        for item in claims:
            with job.item(item):
                pass
        ended = time.perf_counter()
    print(json.dumps({"writing the list": written - began, "loop with item()": ended - written}))


if __name__ == "__main__":
    configure()
    {"prepare": prepare, "serve": serve, "overhead": overhead}[CONFIG["work"]]()
