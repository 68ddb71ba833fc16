"""System checks report faults before anything runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core import checks, mail
from django.core.management import get_commands
from django.core.management.base import CommandParser
from django.db import OperationalError, connections
from pytest_django import Settings

from cloudrun_jobs import InvalidArguments, Schedule, SecretRef
from cloudrun_jobs.checks import TAG, check_reach_of_records, check_settings, check_time_zones
from cloudrun_jobs.command import problems
from cloudrun_jobs.command_line import build
from cloudrun_jobs.registry import FoundJobs
from tests.jobs.management.commands import echo, everything

ROOT = Path(__file__).parents[1]


def run_checks(*, deploy: bool = False) -> dict[str | None, checks.CheckMessage]:
    messages = checks.run_checks(tags=[TAG], include_deployment_checks=deploy)
    return {message.id: message for message in messages}


def test_valid_jobs_give_no_message() -> None:
    """Sound declarations give no message."""
    assert run_checks() == {}


@pytest.mark.parametrize(
    ("attribute", "value", "code", "message"),
    [
        ("schedule", "@daily", "cloudrun_jobs.E004", "echo: schedule: expected None or a Cloud Scheduler"),
        ("time_zone", "Asia/Tokio", "cloudrun_jobs.E005", "echo: time_zone"),
        ("timeout", 0, "cloudrun_jobs.E006", "echo: timeout"),
        ("overlap", "x", "cloudrun_jobs.E006", "echo: overlap: expected one of skip, wait, fail, allow, got 'x'."),
        ("handle", lambda self: None, "cloudrun_jobs.E008", "echo: handle"),
        ("max_retrys", 3, "cloudrun_jobs.W005", "echo: 'max_retrys' is not a declaration."),
    ],
)
def test_invalid_job_is_reported(
    monkeypatch: pytest.MonkeyPatch,
    attribute: str,
    value: Any,
    code: str,
    message: str,
) -> None:
    """Each fault has its id, the command's name and a hint where there is one."""
    monkeypatch.setattr(echo.Command, attribute, value, raising=False)

    found = run_checks()

    assert set(found) == {code}
    assert found[code].msg.startswith(message)


@pytest.mark.parametrize("name", ["execute", "delay", "lease", "check_lease", "command_name", "spec", "_active"])
def test_names_of_the_base_class_are_reserved(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A command that redefines what CloudRunJobs uses is reported, and delay() refuses it."""
    monkeypatch.setattr(echo.Command, name, None, raising=False)

    assert [problem.id for problem in problems(echo.Command)] == ["cloudrun_jobs.E016"]


def test_reserved_name_is_reported_with_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the method, and the hint what to do."""
    monkeypatch.setattr(echo.Command, "delay", lambda self: None)

    found = run_checks()

    assert set(found) == {"cloudrun_jobs.E016"}
    assert found["cloudrun_jobs.E016"].hint == "Rename it."
    assert found["cloudrun_jobs.E016"].msg == (
        "echo: delay: expected a name that CloudRunJobs does not use, "
        "got tests.jobs.management.commands.echo.Command.delay."
    )


def test_reserved_name_of_a_mixin_is_reported() -> None:
    """A mixin in front of CloudRunJobs replaces its method, too."""

    class Mixin:
        def handle(self) -> None: ...

        def progress(self) -> None: ...

    class Command(Mixin, echo.Command):
        """Inherits the names."""

    assert [(problem.attribute, problem.id) for problem in problems(Command)] == [
        ("handle", "cloudrun_jobs.E008"),
        ("progress", "cloudrun_jobs.E016"),
    ]


@pytest.mark.parametrize(
    "name",
    ["release", "operation", "send", "cancel", "_release", "_declared", "add_arguments", "check", "create_parser"],
)
def test_other_names_are_free(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A command's own methods, and Django's that may be overridden, have any name."""
    method = getattr(echo.Command, name, lambda self: None)
    monkeypatch.setattr(echo.Command, name, method, raising=False)

    assert run_checks() == {}


def returns(self: Any, results: list[Any]) -> Any: ...


def takes_none(self: Any) -> Any: ...


def takes_two(self: Any, results: list[Any], more: int) -> Any: ...


def yields(self: Any, results: list[Any]) -> Any:
    yield results


async def yields_later(self: Any, results: list[Any]) -> Any:
    yield results


@pytest.mark.parametrize(
    ("reduce", "message"),
    [
        (takes_none, r"expected a method reduce\(self, results\), got reduce\(self"),
        (takes_two, r"got reduce\(self.*, results.*, more"),
        (yields, "got a generator, which is never iterated"),
        (yields_later, "got a generator, which is never iterated"),
        ("sum", "got 'sum'"),
        (staticmethod(takes_two), "got reduce"),
        (classmethod(takes_none), "got reduce"),
    ],
)
def test_invalid_reduce_is_reported(monkeypatch: pytest.MonkeyPatch, reduce: Any, message: str) -> None:
    """reduce() must take the results, and must not be a generator."""
    monkeypatch.setattr(echo.Command, "reduce", reduce, raising=False)

    [problem] = problems(echo.Command)
    assert (problem.attribute, problem.id) == ("reduce", "cloudrun_jobs.E025")
    assert re.search(message, str(problem))


@pytest.mark.parametrize(
    "reduce",
    [returns, staticmethod(takes_none), classmethod(returns), sum, None],
    ids=["method", "static", "class", "builtin", "none"],
)
def test_valid_reduce(monkeypatch: pytest.MonkeyPatch, reduce: Any) -> None:
    """None removes an inherited reduce()."""
    monkeypatch.setattr(echo.Command, "reduce", reduce, raising=False)

    assert list(problems(echo.Command)) == []


@pytest.mark.parametrize(("value", "expected"), [("yes", "True or False"), (True, "a method reduce")])
def test_invalid_reduce_partial_is_reported(monkeypatch: pytest.MonkeyPatch, value: Any, expected: str) -> None:
    """It must be a bool, and has no meaning without reduce()."""
    monkeypatch.setattr(echo.Command, "reduce_partial", value)

    [problem] = problems(echo.Command)
    assert (problem.attribute, problem.id) == ("reduce_partial", "cloudrun_jobs.E025")
    assert expected in str(problem)


@pytest.mark.parametrize(
    ("schedule", "code", "message"),
    [
        ("0 0 1 * MON", "cloudrun_jobs.W002", "echo: the schedule '0 0 1 * MON' names days of the month and of"),
        (
            Schedule("30 2 * * *", time_zone="Europe/Zurich"),
            "cloudrun_jobs.W001",
            "echo: the schedule '30 2 * * *' names a time that Europe/Zurich skips or repeats, next on ",
        ),
        (
            [Schedule("0 0 * * *", args={"partnr": 1})],
            "cloudrun_jobs.E009",
            "echo: the schedule '0 0 * * *' cannot start it. Unknown option 'partnr'.",
        ),
        ([Schedule("0 0 L * *")], "cloudrun_jobs.E004", "echo: schedule[0]: expected"),
    ],
)
def test_doubtful_schedule_is_reported(
    monkeypatch: pytest.MonkeyPatch, schedule: Any, code: str, message: str
) -> None:
    """A schedule that Cloud Scheduler accepts, but probably with another meaning, gives a warning."""
    monkeypatch.setattr(echo.Command, "schedule", schedule, raising=False)

    found = run_checks()

    assert set(found) == {code}
    assert found[code].msg.startswith(message)


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule("0 2 * * *", time_zone="Asia/Tokyo"),
        Schedule("*/5 * * * *", time_zone="Europe/Zurich"),
        Schedule("0 3 * * *", time_zone="Europe/Zurich"),
        Schedule("every day 02:30", time_zone="Europe/Zurich"),
        Schedule("0 0 * * *", args={"words": ["a"], "partner": 7}),
    ],
)
def test_valid_schedule_gives_no_message(monkeypatch: pytest.MonkeyPatch, schedule: Schedule) -> None:
    """Zones without DST, schedules of every hour, and the first hour after a change are valid."""
    monkeypatch.setattr(echo.Command, "schedule", schedule, raising=False)

    assert run_checks() == {}


def test_required_argument_needs_a_value_in_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """A schedule that gives the command less than it requires would fail every night."""
    monkeypatch.setattr(everything.Command, "schedule", "0 0 * * *", raising=False)

    message = run_checks()["cloudrun_jobs.E009"]

    assert "the following arguments are required: source" in message.msg
    assert message.hint == "Declare arguments: schedule = [Schedule('...', args={...})]."


def test_parser_without_its_tables_breaks_no_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks of `migrate` run before the tables exist from which a command has its choices."""

    def ask(self: Any, parser: Any) -> None:
        raise OperationalError("no such table")

    monkeypatch.setattr(echo.Command, "schedule", "0 0 * * *", raising=False)
    monkeypatch.setattr(echo.Command, "add_arguments", ask)

    assert run_checks() == {}


def test_default_arguments_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default arguments must start an execution."""
    monkeypatch.setattr(echo.Command, "args", {"partnr": 7}, raising=False)

    assert run_checks()["cloudrun_jobs.E009"].msg == "echo: args cannot start it. Unknown option 'partnr'."


def test_schedules_hint_is_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint of an invalid schedule is the fix."""
    monkeypatch.setattr(echo.Command, "schedule", "@daily", raising=False)

    assert "Write '0 0 * * *'." in str(run_checks()["cloudrun_jobs.E004"].hint)


@pytest.fixture
def _keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that declares an option of the name that delay() has."""

    def add_arguments(self: echo.Command, parser: CommandParser) -> None:
        parser.add_argument("--idempotency-key")

    monkeypatch.setattr(echo.Command, "add_arguments", add_arguments)
    monkeypatch.setattr(echo.Command, "run", lambda self, **options: options["idempotency_key"])


@pytest.mark.usefixtures("_keyed")
def test_idempotency_key_option_is_reported() -> None:
    """delay() has a parameter of that name, so the option could not be passed."""
    found = run_checks()

    assert set(found) == {"cloudrun_jobs.E014"}
    assert found["cloudrun_jobs.E014"].msg.startswith("echo: idempotency_key is a parameter of delay()")


@pytest.mark.usefixtures("_keyed")
def test_ambiguous_idempotency_key_is_refused() -> None:
    """delay() refuses a key that may be the option's; without a key it runs the job."""
    assert echo.Command().delay().result() is None
    with pytest.raises(InvalidArguments, match=r"idempotency_key is a parameter of delay\(\).* Rename"):
        echo.Command().delay(idempotency_key="x")


def test_failing_add_arguments_breaks_no_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choices may come from a table that `migrate` has yet to create."""
    monkeypatch.setattr(echo.Command, "add_arguments", lambda self, parser: 1 / 0)

    assert run_checks() == {}


@pytest.fixture
def _untidy(settings: Settings) -> Iterator[None]:
    """Install an app of commands that are not as they should be."""
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "tests.invalid_commands"]
    get_commands.cache_clear()
    yield
    get_commands.cache_clear()


@pytest.mark.usefixtures("_untidy")
def test_conflicts_between_commands_are_reported() -> None:
    """Two jobs with one name, a class under another name and an unimportable module are reported."""
    found = run_checks()

    assert set(found) == {"cloudrun_jobs.E007", "cloudrun_jobs.E013", "cloudrun_jobs.W006"}
    assert "would both be the Cloud Run job 'same-name-test'" in found["cloudrun_jobs.E007"].msg
    assert "renamed: its Command is that of tests.jobs.management.commands.echo" in found["cloudrun_jobs.E013"].msg
    assert "'broken' of the app tests.invalid_commands cannot be imported" in found["cloudrun_jobs.W006"].msg
    assert found["cloudrun_jobs.W006"].hint == "RuntimeError: no library for this"


@pytest.mark.usefixtures("_untidy")
def test_unimportable_command_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other jobs are checked."""
    monkeypatch.setattr(echo.Command, "timeout", 0, raising=False)

    assert {"cloudrun_jobs.W006", "cloudrun_jobs.E006"} <= set(run_checks())


def test_commands_of_other_packages_are_not_imported() -> None:
    """A command of an installed package that does not mention jobs is not imported: it may have side effects."""
    code = (
        "import django, sys; django.setup()\n"
        "from django.core.checks import run_checks; run_checks()\n"
        "print(*(name for name in sys.modules if name.startswith('django.contrib.') and '.commands.' in name))"
    )
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == []


def test_bad_settings_are_one_message(settings: Settings) -> None:
    """Invalid settings are reported once, not for each job."""
    settings.CLOUDRUN_JOBS = {"ENVIROMENT": "x"}

    found = run_checks(deploy=True)

    assert set(found) == {"cloudrun_jobs.E001"}
    assert found["cloudrun_jobs.E001"].hint == "Did you mean 'ENVIRONMENT'?"


CLOUD = {
    "ENVIRONMENT": "production",
    "PROJECT": "acme",
    "REGION": "asia-northeast1",
    "LOCKS": {"BACKEND": "cloudrun_jobs.locks.database.DatabaseLocks"},
    "RECONCILE": {"schedule": "*/5 * * * *"},
}


@pytest.fixture
def _no_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the environment of Django's test runner."""
    monkeypatch.delattr(mail, "outbox")


@pytest.mark.usefixtures("_no_test")
def test_inline_environment_is_reported_on_deploy(settings: Settings) -> None:
    """`check --deploy` warns if delay() would run jobs in the web process."""
    assert set(run_checks(deploy=True)) == {"cloudrun_jobs.W004"}

    settings.CLOUDRUN_JOBS = CLOUD
    assert set(run_checks(deploy=True)) == {"cloudrun_jobs.W024"}  # The suite's database is SQLite.


@pytest.mark.parametrize("vendor", ["sqlite", "postgresql", "mysql", "oracle"])
@pytest.mark.parametrize("environment", ["production", "staging", "local", "test"])
def test_sqlite_in_a_cloud_environment_is_reported(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, environment: str, vendor: str
) -> None:
    """`check --deploy` warns if each container would have records of its own, and names the database."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": environment, "PROJECT": "acme", "REGION": "asia-northeast1"}
    monkeypatch.setattr(type(connections["default"]), "vendor", vendor)

    found = check_reach_of_records(None)

    is_reported = vendor == "sqlite" and environment in {"production", "staging"}
    assert [(each.id, "'default'" in str(each.hint)) for each in found] == [
        ("cloudrun_jobs.W024", True)
    ] * is_reported


@pytest.mark.usefixtures("_no_test")
@pytest.mark.parametrize("reconcile", [None, {}, {"timeout": 60}, {"schedule": None}, {"schedule": []}])
def test_runs_that_nothing_reconciles_are_reported_on_deploy(
    settings: Settings, reconcile: dict[str, Any] | None
) -> None:
    """`check --deploy` warns without a job, or a schedule, that finishes runs whose container died."""
    settings.CLOUDRUN_JOBS = CLOUD | {"RECONCILE": reconcile or {}}
    if reconcile is None:
        del settings.CLOUDRUN_JOBS["RECONCILE"]

    assert set(run_checks(deploy=True)) == {"cloudrun_jobs.W008", "cloudrun_jobs.W024"}
    assert run_checks() == {}


@pytest.mark.parametrize("environment", ["production", "staging", "local", "test"])
def test_tests_in_a_cloud_environment_are_reported(settings: Settings, environment: str) -> None:
    """delay() in a test would start an execution in the cloud."""
    settings.CLOUDRUN_JOBS = CLOUD | {"ENVIRONMENT": environment}

    assert set(run_checks()) == ({"cloudrun_jobs.W009"} if environment in {"production", "staging"} else set())


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("CLOUDRUN_JOB", "Did you mean 'CLOUDRUN_JOBS'?"),
        ("CLOUDRUN_JOBS_PROJECT", "CLOUDRUN_JOBS = {'PROJECT': ...}"),
    ],
)
def test_unrecognised_setting_is_reported(settings: Settings, name: str, hint: str) -> None:
    """A project whose dictionary has another name would run its jobs in the web process."""
    setattr(settings, name, {"ENVIRONMENT": "production"})
    del settings.CLOUDRUN_JOBS

    (message,) = check_settings(None)

    assert (message.id, message.msg) == ("cloudrun_jobs.W007", f"settings.{name} is not read by cloudrun_jobs.")
    assert message.hint is not None
    assert hint in message.hint


def test_unknown_lock_args_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the first run would find a misspelt name in lock_args."""
    monkeypatch.setattr(everything.Command, "lock_args", ("sorce", "args"), raising=False)

    found = run_checks()["cloudrun_jobs.E006"]

    assert found.msg == "everything: lock_args: expected names of its options, got 'sorce'."
    assert found.hint == "Did you mean 'source'?"


def test_django_options_in_lock_args_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """They do not distinguish runs."""
    monkeypatch.setattr(everything.Command, "lock_args", ("verbosity",), raising=False)

    assert "got 'verbosity'" in run_checks()["cloudrun_jobs.E006"].msg


@pytest.mark.parametrize("key", ["DEFAULTS", "RECONCILE"])
def test_misspelt_declaration_in_the_settings_is_reported(settings: Settings, key: str) -> None:
    """The check reports it before a job uses it."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", key: {"max_retry": 1}}

    assert [(message.id, message.hint) for message in check_settings(None)] == [
        ("cloudrun_jobs.E001", "Did you mean 'max_retries'?")
    ]


def test_local_times_are_refused(settings: Settings) -> None:
    """The times of the records are compared with the database server's clock."""
    settings.USE_TZ = False

    assert [message.id for message in check_time_zones(None)] == ["cloudrun_jobs.E015"]


@pytest.fixture(params=["directory", "zip"])
def install(
    request: pytest.FixtureRequest, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., None]]:
    """Return a function that installs an app with a command `zipped`, from a directory or from a zip file."""
    name = f"app_in_{request.param}"

    def install(command: str = "zipped", **texts: str) -> None:
        job = f"management/commands/{command}"
        texts = {"": "", "management": "", "management/commands": "", job: JOB, **texts}
        path = tmp_path / "site-packages"
        for where, text in texts.items():
            file = path / name / (f"{where}.py" if where == job else f"{where}/__init__.py")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        if request.param == "zip":
            path = Path(shutil.make_archive(f"{tmp_path}/zip/site-packages/apps", "zip", path))
        monkeypatch.syspath_prepend(path)
        settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, name]
        get_commands.cache_clear()

    yield install
    for module in [module for module in sys.modules if module.startswith(name)]:
        del sys.modules[module]
    get_commands.cache_clear()


JOB = """
from cloudrun_jobs import CloudRunJobs

class Command(CloudRunJobs):
    timeout = 0

    def run(self, **options): ...
"""


@pytest.mark.parametrize("package", ["management", "management/commands", "management/commands/zipped"])
@pytest.mark.parametrize("error", ["import no_such_library", "1 / 0", "raise SystemExit(3)", "def ("])
def test_unimportable_package_is_a_warning(install: Callable[..., None], package: str, error: str) -> None:
    """A package of commands that cannot be imported stops no command of manage.py."""
    install(**{package: f"# cloudrun_jobs\n{error}"})

    found = run_checks()

    assert set(found) == {"cloudrun_jobs.W006"}
    assert re.search(r"'zipped' of the app app_in_\w+ cannot be imported", found["cloudrun_jobs.W006"].msg)


def test_installed_app_is_read(install: Callable[..., None]) -> None:
    """A job of an installed app is found, zipped or not."""
    install()

    assert run_checks()["cloudrun_jobs.E006"].msg.startswith("zipped: timeout: expected whole seconds")


def test_installed_command_that_mentions_no_jobs_is_not_imported(install: Callable[..., None]) -> None:
    """A command of another package may have side effects when it is imported."""
    install(**{"management/commands/zipped": "1 / 0"})

    assert run_checks() == {}


def test_job_that_outlives_the_request_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cloud Scheduler waits for at most half an hour for a job that runs during its request."""
    monkeypatch.setattr(echo.Command, "target", "service", raising=False)
    assert run_checks() == {}
    monkeypatch.setattr(echo.Command, "timeout", 3600, raising=False)

    found = run_checks()

    assert set(found) == {"cloudrun_jobs.E019"}
    assert found["cloudrun_jobs.E019"].msg == (
        "echo: timeout: expected at most 1800 seconds, the longest attempt_deadline of Cloud Scheduler, "
        "got 3600 seconds."
    )
    assert (found["cloudrun_jobs.E019"].hint or "").startswith("Run it as a job:")


@pytest.mark.parametrize(
    ("attribute", "meant"),
    [("retries", "max_retries"), ("cron", "schedule"), ("TIMEOUT", "timeout"), ("timezone", "time_zone")],
)
def test_attribute_that_is_no_declaration_has_a_hint(
    monkeypatch: pytest.MonkeyPatch, attribute: str, meant: str
) -> None:
    """The hint is the declaration that has the meaning, or a similar name."""
    monkeypatch.setattr(echo.Command, attribute, 3, raising=False)

    assert run_checks()["cloudrun_jobs.W005"].hint == f"Did you mean {meant!r}?"


@pytest.mark.parametrize("key", ["environment", "Environment", "enviroment"])
def test_key_in_lower_case_has_a_hint(settings: Settings, key: str) -> None:
    """A key of the settings is found whatever its case."""
    settings.CLOUDRUN_JOBS = {key: "production"}

    assert [message.hint for message in check_settings(None)] == ["Did you mean 'ENVIRONMENT'?"]


def test_given_arguments_are_in_the_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint for a schedule with arguments does not ask for arguments."""
    schedule = [Schedule("0 0 * * *", args={"partner": 7})]
    monkeypatch.setattr(echo.Command, "schedule", schedule, raising=False)
    monkeypatch.setattr(echo.Command, "add_arguments", _require_source)

    message = run_checks()["cloudrun_jobs.E009"]

    assert "the following arguments are required: source" in message.msg
    assert message.hint == "Correct its args, which are {'partner': 7}."


def _require_source(self: echo.Command, parser: CommandParser) -> None:
    parser.add_argument("source")
    parser.add_argument("--partner", type=int)
    parser.add_argument("--flag", type=bool, default=True)


@pytest.mark.parametrize("name", ["nothing_like_it", "help"])
def test_hint_for_lock_args_lists_the_jobs_own_options(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Options that every command has, --help and --version among them, identify no run."""
    monkeypatch.setattr(echo.Command, "lock_args", (name,), raising=False)
    monkeypatch.setattr(echo.Command, "add_arguments", _require_source)

    assert run_checks()["cloudrun_jobs.E006"].hint == "Known: args, flag, partner, source."


@pytest.mark.parametrize("flag", [False, 0])
def test_hint_for_a_boolean_type(monkeypatch: pytest.MonkeyPatch, flag: object) -> None:
    """bool("False") is True, whatever the option's default."""
    monkeypatch.setattr(echo.Command, "add_arguments", _require_source)

    with pytest.raises(InvalidArguments, match=r"type=bool returns True for every text .* action='store_true'"):
        echo.Command().delay("a", flag=flag)


@pytest.mark.parametrize("install", ["directory"], indirect=True)
def test_job_called_web_is_reported(install: Callable[..., None]) -> None:
    """The image starts its web server for that name."""
    install(**{"management/commands/web": JOB.replace("timeout = 0", "timeout = 1")}, command="web")

    assert set(run_checks()) == {"cloudrun_jobs.W010"}


@pytest.mark.parametrize(
    ("http", "found"),
    [
        ({}, set()),
        ({"RATE": "60/m"}, {"cloudrun_jobs.W011"}),
        ({"RATE": "60"}, {"cloudrun_jobs.E001"}),
        ({"SESSION": 1}, {"cloudrun_jobs.E001"}),
    ],
    ids=str,
)
def test_http_settings_are_checked(settings: Settings, http: dict[str, Any], found: set[str]) -> None:
    """Invalid credentials are reported, and a rate limit without a shared cache."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "HTTP": http}

    assert set(run_checks()) == found


@pytest.mark.parametrize("attribute", ["http_options", "secret_options"])
def test_unknown_options_are_reported(monkeypatch: pytest.MonkeyPatch, attribute: str) -> None:
    """Otherwise the first request would find a misspelt name, or show a secret."""
    monkeypatch.setattr(echo.Command, attribute, ("partnr",), raising=False)

    found = run_checks()["cloudrun_jobs.E006"]

    assert found.msg == f"echo: {attribute}: expected names of its options, got 'partnr'."
    assert found.hint == "Did you mean 'partner'?"


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        (
            {"note": "hunter2", "partner": 7},
            "cannot start it. note: expected a SecretRef, got a plain value, which would be recorded.",
        ),
        ({"note": ["hunter2"]}, "cannot start it. note: expected a SecretRef, got list [secret]."),
    ],
    ids=["valid", "invalid"],
)
def test_secret_options_are_not_declared(
    monkeypatch: pytest.MonkeyPatch, args: dict[str, Any], shown: str
) -> None:
    """The value would be in the cloud's configuration, and in plans of it."""
    monkeypatch.setattr(echo.Command, "secret_options", ("note",), raising=False)
    monkeypatch.setattr(echo.Command, "args", args, raising=False)

    found = run_checks()["cloudrun_jobs.E009"]

    assert found.msg == f"echo: args {shown}"
    assert "hunter2" not in str(found.hint)


def test_references_may_be_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """`args` and schedules may contain references."""
    schedule = Schedule("0 9 * * *", args={"note": SecretRef("token")})
    monkeypatch.setattr(echo.Command, "secret_options", ("note",), raising=False)
    monkeypatch.setattr(echo.Command, "args", {"note": SecretRef("token:3")}, raising=False)
    monkeypatch.setattr(echo.Command, "schedule", [schedule], raising=False)

    assert run_checks() == {}
    assert build(echo.Command(), (), schedule.args, {}) == ("echo", "--note=secret:token")


def test_secret_option_of_callers_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option may not be in both lists: callers could name any secret that the job's account may read."""
    monkeypatch.setattr(echo.Command, "secret_options", ("note",), raising=False)
    monkeypatch.setattr(echo.Command, "http_options", ("partner", "note"), raising=False)

    found = run_checks()["cloudrun_jobs.E033"]

    assert found.msg == "echo: http_options: expected no option that is in secret_options, got ['note']."


def test_token_for_a_command_that_is_no_job_is_reported(settings: Settings) -> None:
    """It would be refused everything."""
    token = {"name": "n8n", "sha256": "0" * 64, "scopes": ["run"], "commands": ["echo", "ecko"]}
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "HTTP": {"TOKENS": [token]}}

    found = run_checks()

    assert set(found) == {"cloudrun_jobs.W012"}
    assert found["cloudrun_jobs.W012"].msg == (
        "CLOUDRUN_JOBS['HTTP']: TOKENS: 'n8n' may use 'ecko', which is no job."
    )
    assert found["cloudrun_jobs.W012"].hint == "Did you mean 'echo'?"


@pytest.mark.parametrize("name", ["stats", "cancel"])
def test_job_named_like_a_url_of_the_http_api_is_reported(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, name: str
) -> None:
    """The URL would hide the job, so it is an error, but only in a project with the HTTP API."""
    command = type("Command", (echo.Command,), {"__module__": f"shop.management.commands.{name}"})
    monkeypatch.setattr("cloudrun_jobs.checks.find_jobs", lambda: FoundJobs({name: command()}))
    assert run_checks() == {}

    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "HTTP": {"HEALTH": "public"}}

    found = run_checks()
    assert set(found) == {"cloudrun_jobs.E018"}
    assert found["cloudrun_jobs.E018"].msg == f"{name}: is a reserved word in URLs of the HTTP API."
