"""Measure the emulator: RPCs, executions, wide executions against xargs, a year of ticks, and memory.

Run ``python -m benchmarks.emulator``, with the names of the measurements to take (default: all). Times depend on
the machine; ratios can be compared.
"""

from __future__ import annotations

import json
import resource
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
    """Wait with WaitOperation instead of polling."""
    client = emulator.clients.jobs
    while not type(operation.operation).FromString(client.wait_operation({"name": operation.operation.name})).done:
        continue


def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def median_ms(call, times=300):
    call()
    durations = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        durations.append((time.perf_counter() - started) * 1000)
    return round(statistics.median(durations), 2)


def rpc():
    """Median milliseconds of GetJob and RunJob, and their ratio."""
    with Emulator() as emulator:
        name = create(emulator, "/bin/true")
        jobs = emulator.clients.jobs
        get = median_ms(lambda: jobs.get_job(name=name))
        run = median_ms(lambda: jobs.run_job(name=name), times=100)
    return {"get_job_p50_ms": get, "run_job_p50_ms": run, "ratio": round(run / get, 1)}


def executions():
    """Sequential executions of ``/bin/true`` per second, and the ratio to ``subprocess.run``."""
    count = 200
    with Emulator() as emulator:
        name = create(emulator, "/bin/true")
        started = time.perf_counter()
        for _ in range(count):
            wait(emulator, emulator.clients.jobs.run_job(name=name))
        emulated = time.perf_counter() - started
    started = time.perf_counter()
    for _ in range(count):
        subprocess.run(["/bin/true"], check=True)
    bare = time.perf_counter() - started
    return {"executions_per_second": round(count / emulated), "ratio_to_subprocess_run": round(emulated / bare, 1)}


def wide(command=("/bin/sh", "-c", "sleep 0.05")):
    """1 000 tasks, 50 at once, against ``xargs -P50`` with the same command."""
    xargs = ["xargs", "-P50", "-I{}", *command]
    numbers = "\n".join(map(str, range(1000)))
    started = time.perf_counter()
    subprocess.run(xargs, input=numbers, text=True, check=True)
    bare = time.perf_counter() - started
    with Emulator() as emulator:
        name = create(emulator, *command, task_count=1000, parallelism=50)
        started = time.perf_counter()
        wait(emulator, emulator.clients.jobs.run_job(name=name))
        emulated = time.perf_counter() - started
    return {"emulator_s": round(emulated, 2), "xargs_s": round(bare, 2), "ratio": round(emulated / bare, 2)}


def wide_python():
    """`wide` with a Python interpreter as the task."""
    return wide((sys.executable, "-S", "-c", "pass"))


def wide_true():
    """`wide` with ``/bin/true``, which measures only the overhead of the platform."""
    return wide(("/bin/true",))


def processor_seconds():
    """Processor time of this process and of the children that have ended."""
    return sum(sum(resource.getrusage(of)[:2]) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def wide_cpu():
    """Processor time of `wide_true`, client included, against ``xargs``, which varies less under other load."""
    started = processor_seconds()
    numbers = "\n".join(map(str, range(1000)))
    subprocess.run(["xargs", "-P50", "-I{}", "/bin/true"], input=numbers, text=True, check=True)
    bare = processor_seconds() - started
    started = processor_seconds()
    with Emulator() as emulator:
        name = create(emulator, "/bin/true", task_count=1000, parallelism=50)
        wait(emulator, emulator.clients.jobs.run_job(name=name))
    emulated = processor_seconds() - started
    return {
        "emulator_cpu_s": round(emulated, 2),
        "xargs_cpu_s": round(bare, 2),
        "ratio": round(emulated / bare, 2),
    }


def year():
    """Seconds for a year of an every-minute schedule, 525 600 ticks, on the frozen clock."""
    delivered = []
    with Emulator() as emulator:
        emulator.clock.freeze(datetime(2026, 1, 1, tzinfo=UTC))
        emulator.on_delivery(HOOK, lambda _: delivered.append(None) or Response())
        job = scheduler_v1.Job(name=f"{PLACE}/jobs/tick", schedule="* * * * *", http_target={"uri": HOOK})
        emulator.clients.scheduler.create_job(parent=PLACE, job=job)
        started = time.perf_counter()
        emulator.clock.advance(timedelta(days=365))
        elapsed = time.perf_counter() - started
    return {
        "ticks": len(delivered),
        "seconds": round(elapsed, 1),
        "microseconds_per_tick": round(elapsed / len(delivered) * 1e6),
    }


def memory():
    """MiB that 10 000 executions add, with the last 1 000 kept."""
    with Emulator() as emulator:
        name = create(emulator, "/bin/true")
        start = resident_mib()
        for _ in range(200):
            for operation in [emulator.clients.jobs.run_job(name=name) for _ in range(50)]:
                wait(emulator, operation)
        kept = len(list(emulator.clients.executions.list_executions(parent=name)))
        return {"before_mib": round(start), "added_mib": round(resident_mib() - start), "executions_kept": kept}


MEASUREMENTS = {m.__name__: m for m in (rpc, executions, wide, wide_python, wide_true, wide_cpu, year, memory)}


def main(names):
    for name in names or MEASUREMENTS:
        print(json.dumps({"measurement": name, **MEASUREMENTS[name]()}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
