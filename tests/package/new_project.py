"""Uses the installed package as the README begins: a new project, its tables, a job, and what the job recorded.

A program, for an environment that has the package and what it requires, and nothing else.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import cloudrun_jobs

COMMAND = """
from cloudrun_jobs import CloudRunJobs


class Command(CloudRunJobs):
    help = "Add up"
    schedule = "0 9 * * *"

    def add_arguments(self, parser):
        parser.add_argument("numbers", nargs="*", type=int)

    def run(self, *args, **options):
        self.stdout.write(f"The sum is {sum(options['numbers'])}.")
"""


def run(*command: str, directory: Path) -> str:
    """Run in this directory; print what it prints, and return that."""
    done = subprocess.run([sys.executable, *command], cwd=directory, text=True, capture_output=True, check=False)
    print(done.stdout, end="")
    assert done.returncode == 0, f"{command} exited with {done.returncode}: {done.stderr}"
    return done.stdout


def main(directory: Path) -> None:
    run("-m", "django", "startproject", "shop", ".", directory=directory)
    commands = directory / "sums/management/commands"
    commands.mkdir(parents=True)
    for package in (commands, commands.parent, commands.parents[1]):
        (package / "__init__.py").touch()
    (commands / "add_up.py").write_text(COMMAND)
    with (directory / "shop/settings.py").open("a") as settings:
        settings.write('INSTALLED_APPS += ["cloudrun_jobs", "sums"]\n')

    run("manage.py", "check", "--fail-level", "WARNING", directory=directory)
    run("manage.py", "makemigrations", "--check", directory=directory)
    run("manage.py", "migrate", "--verbosity", "0", directory=directory)
    assert "The sum is 42." in run("manage.py", "add_up", "40", "2", directory=directory)
    assert "succeeded" in run("manage.py", "cloudrun_jobs", "runs", directory=directory)


if __name__ == "__main__":
    place = Path(cloudrun_jobs.__file__)
    assert place.is_relative_to(sysconfig.get_path("purelib")), f"expected an installed package, got {place}"
    with tempfile.TemporaryDirectory() as home:
        main(Path(home))
