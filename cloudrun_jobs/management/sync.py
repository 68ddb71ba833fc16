"""What the two commands that sync have in common: options, the plan told, the changes made, the exit status."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser, SystemCheckError

from cloudrun_jobs.backends.cloudrun import CloudRunBackend
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.deploy.plan import Change, Desired, Plan, Store, apply, as_data, as_lines, plan, summary
from cloudrun_jobs.exceptions import CloudRunJobsError, ServiceError
from cloudrun_jobs.management.progress import Progress
from cloudrun_jobs.management.selection import ERROR, add_commands, cloudrun_backend, selected_jobs

DRIFT = 1


class SyncCommand(BaseCommand):
    """Plans, tells, and applies. Ends with 1 if `--check` found drift, with 2 if something went wrong."""

    def add_arguments(self, parser: CommandParser) -> None:
        mode = parser.add_mutually_exclusive_group()
        mode.add_argument("--dry-run", action="store_true", help="Show what would be changed, and change nothing.")
        mode.add_argument("--check", action="store_true", help="As --dry-run; end with status 1 if there is any.")
        parser.add_argument("--prune", action="store_true", help="Delete what no command declares any more.")
        parser.add_argument("--json", action="store_true", help="For machines.")
        add_commands(parser)

    def store(self, backend: CloudRunBackend) -> Store:
        """Return where the declared things are kept."""
        raise NotImplementedError

    def declared(
        self, jobs: Sequence[CloudRunJobs], backend: CloudRunBackend, options: dict[str, Any]
    ) -> list[Desired]:
        """Return what these jobs declare."""
        raise NotImplementedError

    def check_plan(self, todo: Plan) -> None:
        """Refuse a plan that cannot be carried out, before any of it is."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Do as other commands do, but let a failure of the system checks not look like drift."""
        try:
            return super().execute(*args, **options)
        except SystemCheckError as error:
            error.returncode = ERROR
            raise

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self._sync(options)
        except CloudRunJobsError as error:
            raise CommandError(str(error), returncode=ERROR) from error

    def _sync(self, options: dict[str, Any]) -> None:
        backend = cloudrun_backend()
        jobs = selected_jobs(options["commands"])
        store = self.store(backend)
        todo = plan(
            self.declared(jobs, backend, options),
            store.listed(),
            environment=backend.settings.environment,
            commands=options["commands"],
            prune=options["prune"],
        )
        self.check_plan(todo)
        if options["dry_run"] or options["check"]:
            self._show(todo, options)
        else:
            self._apply(todo, store, options)

    def _show(self, todo: Plan, options: dict[str, Any]) -> None:
        if options["json"]:
            self._write_json(todo, applied=False, failures={})
        else:
            for line, change in as_lines(todo):
                self.stdout.write(f"  {self._coloured(line, change)}")
            self._tell_rest(todo)
            self._say(_what_next(todo))
        if options["check"] and todo.has_drift:
            sys.exit(DRIFT)

    def _apply(self, todo: Plan, store: Store, options: dict[str, Any]) -> None:
        lines = {change.id: self._coloured(line, change) for line, change in as_lines(todo)}
        progress, failures = Progress(self.stderr, len(todo.to_apply)), dict[str, str]()

        def report(change: Change, remark: str, error: ServiceError | None) -> None:
            progress.clear()
            if error:
                failures[change.label] = str(error)
                self._say(self.style.ERROR(f"  ! {change.label}: {error}"))
            elif not options["json"]:
                self.stdout.write(f"  {lines[change.id]}{f' ({remark})' if remark else ''}")
            progress.step()

        apply(todo.to_apply, store, report)
        progress.clear()
        if options["json"]:
            self._write_json(todo, applied=True, failures=failures)
        else:
            self._tell_orphans(todo, lines)
            self._tell_rest(todo)
        self._tell_outcome(todo, failures)

    def _tell_orphans(self, todo: Plan, lines: dict[str, str]) -> None:
        for orphan in () if todo.prune else todo.orphans:
            self.stdout.write(f"  {lines[orphan.id]}")

    def _tell_rest(self, todo: Plan) -> None:
        self.stdout.write(f"  {summary(todo)}")
        for label, trouble in todo.troubles.items():
            self._say(self.style.WARNING(f"  ! {label}: {trouble}"))

    def _tell_outcome(self, todo: Plan, failures: dict[str, str]) -> None:
        total = len(todo.to_apply)
        if failures:
            words = f"{len(failures)} of {_count(total)} failed. What succeeded stays; run it again for the rest."
            raise CommandError(words, returncode=ERROR)
        self._say(f"{_count(total)} applied." if total else "Nothing to change.")

    def _write_json(self, todo: Plan, *, applied: bool, failures: dict[str, str]) -> None:
        data = {**as_data(todo), "applied": applied, "failures": failures}
        self.stdout.write(json.dumps(data, ensure_ascii=False, indent=2))

    def _coloured(self, line: str, change: Change) -> str:
        style = {"create": self.style.SUCCESS, "update": self.style.WARNING, "delete": self.style.ERROR}
        return style[change.action](line)

    def _say(self, words: str) -> None:
        """Write words to stderr, where they are not mixed up with data, and not in the colour of an error."""
        self.stderr.write(words, str)


def _count(number: int) -> str:
    return "1 change" if number == 1 else f"{number} changes"


def _what_next(todo: Plan) -> str:
    if todo.to_apply:
        return f"{_count(len(todo.to_apply))}. Run it without --dry-run and --check to apply."
    orphans = " Run it with --prune to delete what no command declares." if todo.orphans else ""
    return f"Nothing to change.{orphans}"
