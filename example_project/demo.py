"""What `make demo` shows: the job on the whole history by manage.py, then by .delay() from Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

MANAGE = str(Path(__file__).with_name("manage.py"))
SESSION = """
from datetime import date
from rates.management.commands.collect_rates import Command
operation = Command().delay(since=date(2026, 1, 1), currency=["JPY", "KRW"])
operation.execution_name
operation.done()
operation.result()
"""


def manage(title: str, *argv: str) -> None:
    """Run manage.py as a person would type it."""
    print(f"\n==> {title}\n$ python example_project/manage.py {' '.join(argv)}", flush=True)
    subprocess.run([sys.executable, MANAGE, *argv], check=True)


def python(title: str, session: str) -> None:
    """Type the lines at a Python prompt."""
    import django

    sys.path.insert(0, str(Path(MANAGE).parent))
    django.setup()
    print(f"\n==> {title}\n$ python example_project/manage.py shell", flush=True)
    names: dict[str, object] = {}
    for line in session.strip().splitlines():
        print(f">>> {line}", flush=True)
        exec(compile(line, "<demo>", "single"), names)


if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "example.settings"
    manage("The database", "migrate", "--verbosity=0")
    manage("The job, as a command, on the whole history", "collect_rates")
    python("The job, by .delay(), from Python", SESSION)
