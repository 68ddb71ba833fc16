"""Measure the admin's list of runs: each filter and the search, with a thousand rows and with a million."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.http import create_databases
from tests.servers import sql

ROOT = Path(__file__).resolve().parent.parent
SIZES = (1_000, 1_000_000)


def main() -> None:
    """Measure against PostgreSQL, in one process."""
    postgres = sql.postgres()
    try:
        names = [f"runs_{size}" for size in SIZES]
        databases = create_databases(sql.postgres_settings(postgres.port), *names)
        environment = {**os.environ, "BENCHMARK_DATABASES": json.dumps(databases)}
        subprocess.run([sys.executable, "-m", "benchmarks.admin_worker"], cwd=ROOT, env=environment, check=True)
    finally:
        postgres.stop()


if __name__ == "__main__":
    main()
