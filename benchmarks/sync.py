"""How much a sync of a thousand jobs and schedules costs: none changed, one changed, all of them new.

Against what the peers do: a get and an update for each. Cloud Run and Cloud Scheduler are the emulator, which
answers as late as a service in the same continent does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from functools import partial

COUNT = 1000
LATENCY = 0.03  # Seconds; of calls without it, see "loopback".
ACCOUNT = "scheduler@bench.iam.gserviceaccount.com"


def declare(count):
    """Make so many commands, each in a module of its own, as those of an app are."""
    from cloudrun_jobs import CloudRunJobs

    return [
        type("Command", (CloudRunJobs,), {**ATTRIBUTES, "__module__": f"bench.management.commands.job_{number}"})()
        for number in range(count)
    ]


ATTRIBUTES = {
    "schedule": "0 3 * * *",
    "image": "app:1",
    "env_vars": {"LANG": "ko_KR.UTF-8"},
    "add_arguments": lambda self, parser: parser.add_argument("--partner", type=int),
    "run": lambda self, *args, **options: None,
}


class Side:
    """Schedules or jobs: what is declared, where it is kept, and how the peers would bring it up to date."""

    def __init__(self, emulator, backend, commands, *, schedules):
        from cloudrun_jobs.deploy import jobs as job_declarations
        from cloudrun_jobs.deploy import schedules as schedule_declarations
        from cloudrun_jobs.deploy.cloudrun.jobs import Jobs
        from cloudrun_jobs.deploy.cloudrun.schedules import Schedules

        self.emulator, self.backend, self.commands, self.schedules = emulator, backend, commands, schedules
        self.desired = (schedule_declarations if schedules else job_declarations).desired
        self.new_store = partial(Schedules if schedules else Jobs, backend)

    def sync(self):
        from cloudrun_jobs.deploy.plan import apply, plan

        store, desired = self.new_store(), self.desired(self.commands, self.backend)
        todo = plan(desired, store.list(), environment="production")
        assert apply(todo.to_apply, store, lambda *report: None) == 0

    def peers(self, names):
        clients = self.emulator.clients
        client = clients.scheduler if self.schedules else clients.jobs
        for name in names:
            client.update_job(job=client.get_job(name=name))

    def names(self):
        from cloudrun_jobs.deploy.plan import Change

        store = self.new_store()
        return [store.name(Change(action="update", id=job.id, label="")) for job in store.list()]

    def measured(self, work):
        """Return the seconds that something takes, and its calls."""
        self.emulator.calls.clear()
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun, Counter(self.emulator.calls)


def main(names):
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django

    django.setup()
    for name in names or ("schedules", "jobs"):
        run(name)


def run(name):
    from django.test import override_settings

    from cloudrun_jobs import backends
    from cloudrun_jobs.emulator import Emulator

    with Emulator() as emulator:
        options = {"endpoint": emulator.grpc, "scheduler_service_account": ACCOUNT}
        configured = {
            "ENVIRONMENT": "production",
            "PROJECT": "bench",
            "REGION": "local-local1",
            "OPTIONS": options,
        }
        with override_settings(CLOUDRUN_JOBS=configured):
            measure(name, Side(emulator, backends.current(), declare(COUNT), schedules=name == "schedules"))


def measure(name, side):
    created, created_calls = side.measured(side.sync)
    tell(name, "all created", created, created_calls)
    half_unchanged(name, side, "loopback", 0, COUNT)
    half_unchanged(name, side, f"{LATENCY * 1000:.0f} ms", LATENCY, 100)


def half_unchanged(name, side, where, latency, sample):
    """Measure syncs of nothing and of one change, and the peers' loop, over a sample where it takes long."""
    if latency:
        side.emulator.faults.delay("*", latency)
    unchanged, calls = min((side.measured(side.sync) for _ in range(3)), key=lambda taken: taken[0])
    tell(name, f"none changed, {where}", unchanged, calls)
    names = side.names()[:sample]
    peers, _ = side.measured(lambda: side.peers(names))
    peers *= COUNT / sample
    tell(name, f"get and update each, {where}", peers, {"of": 2 * COUNT}, ratio=round(peers / unchanged, 1))
    schedule = "0 4 * * *" if not latency else "0 5 * * *"
    type(side.commands[0]).schedule, type(side.commands[0]).image = schedule, schedule.replace(" ", "")[:2]
    changed, calls = side.measured(side.sync)
    tell(name, f"one changed, {where}", changed, calls)


def tell(name, what, seconds, calls, **more):
    print(
        json.dumps({"sync": name, "what": what, "seconds": round(seconds, 2), "calls": dict(calls), **more}),
        flush=True,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
