"""Compare `shard()` of a million items with `islice()`, and of a million rows with one pass over them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    from tests.servers import sql

    postgres = sql.postgres()
    try:
        environment = {**os.environ, "BENCHMARK_DATABASE": json.dumps(sql.postgres_settings(postgres.port))}
        subprocess.run([sys.executable, "-m", "benchmarks.shard_worker"], cwd=ROOT, env=environment, check=True)
    finally:
        postgres.stop()


if __name__ == "__main__":
    main()
