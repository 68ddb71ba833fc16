"""Measure the shares of 1000 tasks, one after the other, with the run records in PostgreSQL."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

import django
from django.conf import settings

from benchmarks.measuring import Seconds, report, timed

ITEMS, TASKS = 1_000_000, 1000


def main() -> None:
    _set_up()
    from cloudrun_jobs.models import JobRun
    from tests.jobs.models import Author
    from tests.sharding.tasks import task

    def shares(make: Callable[[], Iterable[Any]]) -> Callable[[int], Seconds]:
        run = JobRun.objects.create(command="echo", environment="test", trigger="delay")
        return lambda index: timed(lambda: _consume(task(run, index, TASKS).shard(make())))

    def sliced(make: Callable[[], Iterable[Any]]) -> Callable[[int], Seconds]:
        return lambda index: timed(lambda: _consume(islice(make(), index, None, TASKS)))

    items = list(range(ITEMS))
    sources: dict[str, Callable[[], Iterable[Any]]] = {"list": lambda: items, "iterator": lambda: iter(items)}
    for name, make in sources.items():
        sides = {"islice()": sliced(make), "shard()": shares(make)}
        report(f"{ITEMS:,} items, {name}: sum over {TASKS} tasks (at most 1.5)", _sums(sides), base="islice()")

    Author.objects.bulk_create((Author(name=f"author {number}") for number in items), batch_size=10_000)
    rows = Author.objects.order_by("pk")
    names = ("first pass", "one pass", "one pass, repeated")
    passes = {name: timed(lambda: _consume(rows.iterator(2000))) for name in names}
    for name, query in {"order_by('pk')": rows, "by row number": Author.objects.order_by("name")}.items():
        share = shares(query.all)
        # By row number each task reads all rows up to its share, so only a sample of the tasks is measured.
        indexes = range(TASKS) if query is rows else range(TASKS // 20, TASKS, TASKS // 10)
        passes[name] = sum(share(index) for index in indexes) * TASKS / len(indexes)
    report(f"{ITEMS:,} rows: sum over {TASKS} tasks (by primary key at most 2)", passes, base="one pass")


def _set_up() -> None:
    settings.configure(
        SECRET_KEY="only for benchmarks",
        INSTALLED_APPS=["cloudrun_jobs", "tests.jobs"],
        DATABASES={"default": json.loads(os.environ["BENCHMARK_DATABASE"])},
        CLOUDRUN_JOBS={"ENVIRONMENT": "test"},
        USE_TZ=True,
    )
    django.setup()
    from django.core.management import call_command

    call_command("migrate", run_syncdb=True, verbosity=0)


def _sums(sides: Mapping[str, Callable[[int], Seconds]]) -> dict[str, Seconds]:
    """Return the sum over all tasks, which are measured in turn."""
    sums = dict.fromkeys(sides, 0.0)
    for index in range(TASKS):
        for name, side in sides.items():
            sums[name] += side(index)
    return sums


def _consume(items: Iterable[Any]) -> None:
    deque(items, maxlen=0)


if __name__ == "__main__":
    main()
