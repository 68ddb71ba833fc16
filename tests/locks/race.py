"""Processes that all try to acquire a lock at once: python -m tests.locks.race PROCESSES ROUNDS."""

from __future__ import annotations

import json
import multiprocessing
import sys
from typing import TYPE_CHECKING, Any, cast

import django

if TYPE_CHECKING:
    from cloudrun_jobs.locks.base import Holder


def main(processes: int, rounds: int) -> None:
    """Print the answer of each process for each round."""
    fork = multiprocessing.get_context("fork")
    barrier, answers = fork.Barrier(processes), fork.Queue()
    runners = [fork.Process(target=run, args=(barrier, answers, rounds)) for _ in range(processes)]
    for runner in runners:
        runner.start()
    found = [answers.get(timeout=120) for _ in runners]
    for runner in runners:
        runner.join(20)
    print(json.dumps([[answer[number] for answer in found] for number in range(rounds)]))


def run(barrier: Any, answers: Any, rounds: int) -> None:
    """Try once in each round, all processes together."""
    found = []
    for number in range(rounds):
        barrier.wait(60)
        found.append(attempt(f"race {number % 3}"))
        barrier.wait(60)
        if found[-1]["won"]:
            found[-1]["manager"].release_lock(raise_exception=True)
    answers.put([{key: value for key, value in one.items() if key != "manager"} for one in found])


def attempt(name: str) -> dict[str, Any]:
    """Acquire the lock, or return the tokens of its holders."""
    from cloudrun_jobs.exceptions import LockTimeout
    from cloudrun_jobs.locks import LockManager

    manager = LockManager(name)
    try:
        lease = manager.await_lock(timeout=0)
    except LockTimeout as error:
        holders = cast("tuple[Holder, ...]", error.holders)
        return {"won": False, "name": name, "holders": [holder.token for holder in holders]}
    return {"won": True, "name": name, "token": lease.token, "manager": manager}


if __name__ == "__main__":
    django.setup()
    main(*map(int, sys.argv[1:]))
