"""The base class of the sync commands."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser, SystemCheckError

from cloudrun_jobs import conf
from cloudrun_jobs.backends.cloudrun import CloudRunBackend
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.deploy.plan import Change, Desired, Existing, Plan, Store, apply, plan, printing
from cloudrun_jobs.exceptions import CloudRunJobsError, ServiceError
from cloudrun_jobs.management.exits import ERROR, FAILED, escaped_errors
from cloudrun_jobs.management.output import add_json_option, write_json, write_message
from cloudrun_jobs.management.selection import add_command_option, cloudrun_backend, selected_jobs
from cloudrun_jobs.management.streams import writable_output
from cloudrun_jobs.spec import JobSpec
from cloudrun_jobs.terminal import ProgressBar, escape

MIN_CHANGES_FOR_BAR = 11


class SyncCommand(BaseCommand):
    """Plans the changes, and shows or applies them.

    The exit status is 1 if `--check` finds drift, and 2 after an error.
    """

    def add_arguments(self, parser: CommandParser) -> None:
        mode = parser.add_mutually_exclusive_group()
        mode.add_argument("--dry-run", action="store_true", help="Show the changes without applying them.")
        mode.add_argument(
            "--check", action="store_true", help="As --dry-run, with exit status 1 if there is drift."
        )
        parser.add_argument("--prune", action="store_true", help="Delete resources that no command declares.")
        add_json_option(parser)
        add_command_option(parser)

    @abstractmethod
    def store(self, backend: CloudRunBackend) -> Store:
        """Return the store of the existing resources."""

    @abstractmethod
    def desired(
        self, jobs: Sequence[CloudRunJobs], store: Any, backend: CloudRunBackend, options: dict[str, Any]
    ) -> Sequence[Desired]:
        """Return the resources that the jobs declare."""

    @abstractmethod
    def is_deployed(self, spec: JobSpec, backend: CloudRunBackend) -> bool:
        """Return False if another backend needs no such resource for the job."""

    def check_existing(self, desired: Sequence[Any], existing: Sequence[Existing]) -> None:
        """Raise `CloudRunJobsError` for a resource that cannot become what the code declares."""

    def check_plan(self, todo: Plan) -> None:
        """Raise `CloudRunJobsError` for a plan that cannot be applied."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Exit with status 2 if the system checks fail: Django's 1 would mean drift."""
        try:
            return super().execute(*args, **options)
        except SystemCheckError as error:
            error.returncode = ERROR
            raise

    @escaped_errors()
    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with writable_output(self):
                self._sync(options)
        except CloudRunJobsError as error:
            raise CommandError(str(error), returncode=ERROR) from error

    def _sync(self, options: dict[str, Any]) -> None:
        backend = cloudrun_backend()
        jobs = selected_jobs(options["commands"], unknown=ERROR)  # 1 is drift.
        store = self.store(backend)
        desired, existing = self.desired(jobs, store, backend, options), store.list()
        self.check_existing(desired, existing)
        todo = plan(
            desired,
            existing,
            environment=backend.settings.environment,
            commands=options["commands"],
            prune=options["prune"],
            other_backends={
                spec.command: spec.backend_alias or conf.DEFAULT_ALIAS
                for spec in (job.spec for job in jobs)
                if not self.is_deployed(spec, backend)
            },
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
            for line, change in printing.as_lines(todo):
                self.stdout.write(f"  {self._coloured(line, change)}")
            self._write_summary(todo)
            write_message(self, _next_step(todo))
        if options["check"] and todo.has_drift:
            sys.exit(FAILED)

    def _apply(self, todo: Plan, store: Store, options: dict[str, Any]) -> None:
        lines = {change.id: self._coloured(line, change) for line, change in printing.as_lines(todo)}
        total, done, failures = len(todo.to_apply), 0, dict[str, str]()
        bar = ProgressBar(self.stderr, visible=total >= MIN_CHANGES_FOR_BAR)

        def report(change: Change, remark: str, error: ServiceError | None) -> None:
            nonlocal done
            done += 1
            bar.erase()
            if error:
                failures[change.label] = str(error)
                write_message(self, f"  ! {change.label}: {error}", self.style.ERROR)
            elif not options["json"]:
                self.stdout.write(f"  {lines[change.id]}{f' ({escape(remark)})' if remark else ''}")
            bar.draw(done, total, f"{done} of {total}")

        apply(todo.to_apply, store, report)
        bar.erase()
        if options["json"]:
            self._write_json(todo, applied=True, failures=failures)
        else:
            for orphan in () if todo.prune else todo.orphans:
                self.stdout.write(f"  {lines[orphan.id]}")
            self._write_summary(todo)
        if failures:
            message = f"{len(failures)} of {_count(total)} failed. The others were applied; run it again to retry."
            raise CommandError(message, returncode=ERROR)
        write_message(self, f"{_count(total)} applied." if total else "Nothing to change.")

    def _write_summary(self, todo: Plan) -> None:
        self.stdout.write(f"  {escape(printing.summary(todo))}")
        for label, trouble in todo.troubles.items():
            write_message(self, f"  ! {label}: {trouble}", self.style.WARNING)

    def _write_json(self, todo: Plan, *, applied: bool, failures: dict[str, str]) -> None:
        write_json(self, {**printing.as_data(todo), "applied": applied, "failures": failures}, indent=2)

    def _coloured(self, line: str, change: Change) -> str:
        style = {"create": self.style.SUCCESS, "update": self.style.WARNING, "delete": self.style.ERROR}
        return style[change.action](escape(line))


def _count(number: int) -> str:
    return "1 change" if number == 1 else f"{number} changes"


def _next_step(todo: Plan) -> str:
    if todo.to_apply:
        return f"{_count(len(todo.to_apply))}. Run it without --dry-run and --check to apply."
    orphans = " Run it with --prune to delete what no command declares." if todo.orphans else ""
    return f"Nothing to change.{orphans}"
