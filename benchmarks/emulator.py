"""How fast the emulator is: RPCs, executions, wide executions against xargs, a year of ticks, and its memory.

Run ``python -m benchmarks.emulator``, or name the measurements to take. Times are those of one machine; the
ratios are what can be compared.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from google.cloud import run_v2, scheduler_v1

from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.emulator.web import Response

PLACE = "projects/bench/locations/local"
HOOK = "https://bench.example.com/"


def create(emulator, *command, job_id="work", **template):
    container = run_v2.Container(image="app", command=list(command))
    task = run_v2.TaskTemplate(containers=[container], max_retries=0)
    job = run_v2.Job(template=run_v2.ExecutionTemplate(template=task, **template))
    return emulator.clients.jobs.create_job(parent=PLACE, job=job, job_id=job_id).result().name


def wait(emulator, operation):
    """Wait on the server, not by polling."""
    client = emulator.clients.jobs
    while not type(operation.operation).FromString(client.wait_operation({"name": operation.operation.name})).done:
        continue


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def median_ms(call, times=300):
    call()
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        call()
        taken.append((time.perf_counter() - begun) * 1000)
    return round(statistics.median(taken), 2)


def rpc():
    """Milliseconds (median) of GetJob, of RunJob, and of nothing but the transport."""
    with Emulator() as emulator:
        name = create(emulator, "/bin/true")
        jobs = emulator.clients.jobs
        get = median_ms(lambda: jobs.get_job(name=name))
        run = median_ms(lambda: jobs.run_job(name=name), times=100)
    return {"get_job_p50_ms": get, "run_job_p50_ms": run, "ratio": round(run / get, 1)}


def executions():
    """Executions of one ``/bin/true`` each per second, one after the other, and against a bare spawn."""
    count = 200
    with Emulator() as emulator:
        name = create(emulator, "/bin/true")
        begun = time.perf_counter()
        for _ in range(count):
            wait(emulator, emulator.clients.jobs.run_job(name=name))
        emulated = time.perf_counter() - begun
    begun = time.perf_counter()
    for _ in range(count):
        subprocess.run(["/bin/true"], check=True)
    bare = time.perf_counter() - begun
    return {"executions_per_second": round(count / emulated), "ratio_to_subprocess_run": round(emulated / bare, 1)}


def wide(command=("/bin/sh", "-c", "sleep 0.05")):
    """1 000 tasks, 50 at once, against ``xargs -P50`` of the same command: the ratio of their times."""
    xargs = ["xargs", "-P50", "-I{}", *command]
    numbers = "\n".join(map(str, range(1000)))
    begun = time.perf_counter()
    subprocess.run(xargs, input=numbers, text=True, check=True)
    bare = time.perf_counter() - begun
    with Emulator() as emulator:
        name = create(emulator, *command, task_count=1000, parallelism=50)
        begun = time.perf_counter()
        wait(emulator, emulator.clients.jobs.run_job(name=name))
        emulated = time.perf_counter() - begun
    return {"emulator_s": round(emulated, 2), "xargs_s": round(bare, 2), "ratio": round(emulated / bare, 2)}


def wide_python():
    """The same with a Python interpreter for a task."""
    return wide((sys.executable, "-S", "-c", "pass"))


def wide_true():
    """The same with ``/bin/true``, where all the time is the platform's own."""
    return wide(("/bin/true",))


def year():
    """Seconds for a year of an every-minute schedule, 525 600 ticks, on the frozen clock."""
    delivered = []
    with Emulator() as emulator:
        emulator.clock.freeze(datetime(2026, 1, 1, tzinfo=UTC))
        emulator.on_delivery(HOOK, lambda _: delivered.append(None) or Response(200))
        job = scheduler_v1.Job(name=f"{PLACE}/jobs/tick", schedule="* * * * *", http_target={"uri": HOOK})
        emulator.clients.scheduler.create_job(parent=PLACE, job=job)
        begun = time.perf_counter()
        emulator.clock.advance(timedelta(days=365))
        took = time.perf_counter() - begun
    return {
        "ticks": len(delivered),
        "seconds": round(took, 1),
        "microseconds_per_tick": round(took / len(delivered) * 1e6),
    }


def memory():
    """MiB that 10 000 executions add, of which the last 1 000 are kept."""
    with Emulator() as emulator:
        name = create(emulator, "/bin/true")
        start = resident()
        for _ in range(200):
            for operation in [emulator.clients.jobs.run_job(name=name) for _ in range(50)]:
                wait(emulator, operation)
        kept = len(list(emulator.clients.executions.list_executions(parent=name)))
        return {"before_mib": round(start), "added_mib": round(resident() - start), "executions_kept": kept}


MEASUREMENTS = {m.__name__: m for m in (rpc, executions, wide, wide_python, wide_true, year, memory)}


def main(names):
    for name in names or MEASUREMENTS:
        print(json.dumps({"measurement": name, **MEASUREMENTS[name]()}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
