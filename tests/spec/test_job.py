"""A declaration becomes a frozen value, or an error that names every fault."""

from __future__ import annotations

import pickle
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from cloudrun_jobs.exceptions import InvalidJob, InvalidSettings
from cloudrun_jobs.spec import DECLARATIONS, MAX_NAME, Schedule, declare, resource_name

VALID: list[dict[str, Any]] = [
    {"timeout": 1},
    {"timeout": timedelta(hours=168)},
    {"max_retries": 10},
    {"parallelism": None},
    {"tasks": 10_000, "task_parallelism": 10_000},
    {"cpu": 8, "memory": "32Gi"},
    {"cpu": 0.5},
    {"cpu": "80m", "memory": "128Mi"},
    {"cpu": "4", "memory": "3G"},
    {"time_zone": "Asia/Seoul", "schedule": "0 9 * * 1-5"},
    {"service_account": "app-jobs@acme.iam.gserviceaccount.com"},
    {"secrets": {"KEY": "partner-key", "OLD": "partner-key:3", "NEW": "partner-key:latest"}},
    {"env_vars": {"LANG": "ko_KR.UTF-8"}},
    {"schedule": []},
    {"schedule": Schedule("0 0 * * *", name="night")},
    {"schedule": ["every 5 minutes", Schedule("0 0 * * *", args={"partner": 7}, time_zone="Asia/Seoul")]},
    {
        "target": "service",
        "timeout": 30,
        "attempt_deadline": 30,
        "retry_config": {"retry_count": 5, "max_doublings": 0},
    },
    {"retry_config": {"min_backoff_duration": 5, "max_backoff_duration": timedelta(hours=1)}},
    {"image": "europe-docker.pkg.dev/acme/app/app@sha256:00", "entrypoint": ["/bin/app"], "args": {"x": 1}},
    {"vpc": {"connector": "main", "egress": "all-traffic"}},
    {"vpc": {"network": "default", "subnetwork": "jobs", "tags": ["a"], "egress": "private-ranges-only"}},
    {"cloud_sql": ["acme:asia-northeast1:main", "example.com:acme:asia-northeast1:main"]},
    {"labels": {"team": "billing", "empty": ""}},
    {"job_name": "nightly-import"},
    {"job_name": {"production": "nightly-import", "staging": None}},
    {"job_name": "x" * 63},
]
INVALID: list[tuple[dict[str, Any], str]] = [
    (
        {"timeout": 0},
        "timeout: expected whole seconds from 1 to 604800 (168 hours), or a timedelta, got 0 seconds.",
    ),
    ({"timeout": timedelta(hours=169)}, "timeout"),
    ({"job_name": "Nightly"}, "job_name: expected a name of up to 63 lower-case letters, digits and hyphens"),
    ({"job_name": "nightly-"}, "job_name"),
    ({"job_name": "7-nights"}, "job_name"),
    ({"job_name": ""}, "job_name"),
    ({"job_name": "x" * 64}, "job_name"),
    ({"job_name": ["nightly"]}, "job_name"),
    ({"job_name": {"production": "a/b"}}, "job_name"),
    ({"job_name": {"Production": "nightly"}}, "job_name"),
    ({"timeout": timedelta(milliseconds=1500)}, "got 1.5 seconds."),
    ({"timeout": True}, "timeout"),
    ({"timeout": 10**30}, "timeout"),
    ({"timeout": "600"}, "timeout"),
    ({"max_retries": 11}, "max_retries: expected a whole number from 0 to 10, got 11."),
    ({"max_retries": None}, "max_retries"),
    ({"parallelism": 0}, "parallelism: expected None (no limit) or a whole number from 1 to 1000, got 0."),
    ({"tasks": 10_001}, "tasks"),
    ({"tasks": True}, "tasks"),
    ({"task_parallelism": 2}, "task_parallelism: expected at most tasks (1), got 2. parallelism limits"),
    ({"cpu": "9"}, "cpu: expected 0.08 to 1, 2, 4, 6 or 8 CPUs"),
    ({"cpu": "two"}, "cpu"),
    ({"cpu": 1.5}, "cpu"),
    ({"memory": "256Mi"}, "memory: expected 512Mi to 4096Mi with 1 CPU"),
    ({"time_zone": "localtime"}, "time_zone"),
    ({"time_zone": "right/UTC"}, "time_zone"),
    ({"memory": "512"}, "memory: expected an amount such as '512Mi'"),
    ({"memory": "8Gi"}, "memory: expected 512Mi to 4096Mi with 1 CPU, got '8Gi'."),
    ({"cpu": 4, "memory": "1Gi"}, "memory: expected 2048Mi to 16384Mi with 4 CPU"),
    ({"schedule": "@daily"}, "schedule: expected None or a Cloud Scheduler expression, got '@daily'."),
    ({"schedule": 5}, "schedule"),
    ({"schedule": ""}, "Expected 5 fields"),
    ({"schedule": ["0 0 * * *", ""]}, "schedule[1]: expected None or a Cloud Scheduler expression"),
    ({"schedule": [5]}, "schedule[0]: expected None, a Cloud Scheduler expression, or a list of Schedule"),
    ({"schedule": [Schedule("0 0 31 2 *")]}, "It never runs"),
    ({"schedule": Schedule("0 0 * * *", time_zone="Asia/Tokio")}, "schedule.time_zone: expected a time zone"),
    ({"schedule": [Schedule("0 0 * * *", args=["x"])]}, "schedule[0].args: expected a dictionary"),
    ({"schedule": [Schedule("0 0 * * *", name="a b")]}, "schedule[0].name: expected letters"),
    ({"schedule": [Schedule("0 0 * * *", name="reserved-1")]}, "not beginning with 'reserved'"),
    ({"schedule": [Schedule("0 0 * * *", name="2"), "0 0 * * *"]}, "a different name for each Schedule"),
    ({"target": "jobs"}, "target: expected 'job' or 'service', got 'jobs'. Did you mean 'job'?"),
    ({"attempt_deadline": 10}, "attempt_deadline: expected None or 15 to 1800 seconds"),
    ({"retry_config": 3}, "retry_config: expected None or a dictionary"),
    (
        {"retry_config": {"retry_cnt": 3}},
        "retry_config: expected a known key, got 'retry_cnt'. Did you mean 'retry_count'?",
    ),
    ({"retry_config": {"retry_count": 6}}, "retry_config['retry_count']: expected a whole number from 0 to 5"),
    ({"retry_config": {"min_backoff_duration": -1}}, "retry_config['min_backoff_duration']: expected seconds"),
    ({"image": ""}, "image: expected None or the name of an image"),
    ({"entrypoint": []}, "entrypoint: expected a list of strings"),
    ({"entrypoint": "python"}, "entrypoint: expected a list of strings"),
    ({"args": ["x"]}, "args: expected a dictionary of options"),
    ({"vpc": {}}, "vpc: expected a dictionary with keys among connector"),
    ({"vpc": {"conector": "x"}}, "vpc: expected a known key, got 'conector'. Did you mean 'connector'?"),
    ({"vpc": {"connector": "x", "network": "y"}}, "vpc: expected a connector, or a network and subnetwork"),
    ({"vpc": {"network": ""}}, "vpc['network']: expected a name"),
    ({"vpc": {"network": "x", "egress": "all"}}, "vpc['egress']: expected private-ranges-only or all-traffic"),
    ({"vpc": {"network": "x", "tags": "y"}}, "vpc['tags']: expected a list of network tags"),
    ({"cloud_sql": ["main"]}, "cloud_sql: expected a list of Cloud SQL instances"),
    ({"cloud_sql": "p:r:i"}, "cloud_sql: expected a list of Cloud SQL instances"),
    ({"labels": ["x"]}, "labels: expected a dictionary"),
    ({"labels": {"Team": "x"}}, "labels: expected names of lower-case letters"),
    ({"labels": {"team": "X"}}, "labels['team']: expected lower-case letters"),
    ({"time_zone": "Asia/Tokio"}, "time_zone: expected a time zone of the tz database"),
    ({"time_zone": "../etc/passwd"}, "time_zone"),
    ({"time_zone": "Asia"}, "time_zone"),
    ({"time_zone": None}, "time_zone"),
    ({"service_account": "jobs"}, "service_account"),
    ({"secrets": {"KEY": "projects/p/secrets/key"}}, "secrets['KEY']: expected the name of a secret"),
    ({"secrets": ["KEY"]}, "secrets: expected a dictionary, got list."),
    ({"env_vars": {"KEY": 1}}, "env_vars['KEY']: expected a string, got int."),
    ({"env_vars": {"1KEY": "x"}}, "letters, digits and underscores"),
    ({"env_vars": {"K_SERVICE": "x"}}, "neither Cloud Run nor this package reserves"),
    ({"env_vars": {"PORT": "x"}}, "neither Cloud Run nor this package reserves"),
    ({"env_vars": {"CLOUDRUN_JOBS_RUN_ID": "x"}}, "neither Cloud Run nor this package reserves"),
    ({"env_vars": {"KEY": "é" * 16_385}}, "at most 32768 bytes, got 32770."),
    ({"env_vars": {1: "x", "a": "x"}, "secrets": {1: "y", "a": "y"}}, "no name that is also in secrets"),
    ({"env_vars": {"KEY": "x"}, "secrets": {"KEY": "x"}}, "no name that is also in secrets, got ['KEY']"),
    ({"env_vars": {f"V{n}": "" for n in range(1000)}}, "fewer than 1000 variables"),
]


@pytest.mark.parametrize("declared", VALID, ids=str)
def test_valid_declaration_is_accepted(declared: dict[str, Any]) -> None:
    """The bounds, and every way to write a value, are valid."""
    declare("refresh_token", declared)


@pytest.mark.parametrize(("declared", "message"), INVALID, ids=str)
def test_invalid_declaration_is_refused(declared: dict[str, Any], message: str) -> None:
    """The error names the command, the attribute, the expected value and the declared one."""
    with pytest.raises(InvalidJob) as refusal:
        declare("refresh_token", declared)

    assert str(refusal.value).startswith("refresh_token: ")
    assert message in str(refusal.value)


def test_all_faults_are_reported_at_once() -> None:
    """Three bad values are three problems of one error, which survives pickling."""
    with pytest.raises(InvalidJob) as refusal:
        declare("refresh_token", {"timeout": 0, "tasks": 0, "cpu": "9"})

    assert [problem.attribute for problem in refusal.value.problems] == ["timeout", "tasks", "cpu"]
    assert pickle.loads(pickle.dumps(refusal.value)).problems == refusal.value.problems


def test_values_that_may_be_secret_are_not_shown() -> None:
    """A secret's value in the place of its name is not part of the error."""
    with pytest.raises(InvalidJob) as refusal:
        declare("x", {"secrets": {"KEY": "hunter2!"}, "env_vars": {"A": 1}})

    assert "hunter2" not in str(refusal.value)


ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.timedeltas()


@pytest.mark.parametrize("attribute", DECLARATIONS)
@given(value=ANYTHING | st.lists(ANYTHING) | st.dictionaries(st.text() | st.integers(), ANYTHING))
def test_validation_raises_only_invalid_job(attribute: str, value: Any) -> None:
    """Any value is either valid or an InvalidJob, for every attribute."""
    with suppress(InvalidJob):
        declare("x", {attribute: value})


def test_schedules_have_zone_and_name() -> None:
    """The job's zone is that of schedules without one; in a list, each has a name or a number."""
    listed = ["0 1 * * *", Schedule("0 2 * * *", name="two", time_zone="Asia/Seoul"), "0 3 * * *"]
    several = declare("x", {"schedule": listed, "time_zone": "Etc/UTC"}).schedules
    single = declare("x", {"schedule": "0 1 * * *"}).schedules

    assert [(each.cron, each.time_zone, each.name) for each in several] == [
        ("0 1 * * *", "Etc/UTC", "1"),
        ("0 2 * * *", "Asia/Seoul", "two"),
        ("0 3 * * *", "Etc/UTC", "3"),
    ]
    assert single == (Schedule("0 1 * * *", time_zone="Asia/Tokyo"),)
    assert declare("x", {}).schedules == ()


def test_declared_names_are_recorded(settings: Settings) -> None:
    """A value of the class or of DEFAULTS is distinguished from the package's default."""
    settings.CLOUDRUN_JOBS = {"DEFAULTS": {"cpu": 2}}

    assert declare("x", {"memory": "2Gi"}).declared == {"cpu", "memory"}


def test_spec_cannot_be_changed() -> None:
    """It is a value: hashable, equal by content, and apart from the dictionaries it was made of."""
    variables = {"LANG": "ja_JP.UTF-8"}
    spec = declare("x", {"env_vars": variables})
    variables["LANG"] = "C"

    assert spec.env_vars == {"LANG": "ja_JP.UTF-8"}
    assert hash(spec) == hash(declare("x", {"env_vars": {"LANG": "ja_JP.UTF-8"}}))
    with pytest.raises(TypeError):
        spec.env_vars["LANG"] = "C"  # type: ignore[index]


def test_declarations_win_over_defaults(settings: Settings) -> None:
    """The class wins over DEFAULTS, and DEFAULTS over Cloud Run's own."""
    settings.CLOUDRUN_JOBS = {"DEFAULTS": {"timeout": 60, "max_retries": 3}}

    spec = declare("x_y", {"timeout": 90})

    assert (spec.timeout, spec.max_retries, spec.time_zone) == (timedelta(seconds=90), 3, "Asia/Tokyo")
    assert (spec.name, spec.command) == ("x-y-local", "x_y")


def test_invalid_default_is_reported_with_its_setting(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint names the setting, unless the class declares the value."""
    settings.CLOUDRUN_JOBS = {"DEFAULTS": {"time_zone": "Asia/Tokio", "tasks": 0}}
    with pytest.raises(InvalidJob) as refusal:
        declare("x", {"tasks": -1})
    zone, tasks = refusal.value.problems
    assert zone.hint == "Did you mean 'Asia/Tokyo'? It is from CLOUDRUN_JOBS['DEFAULTS']."
    assert tasks.hint == ""

    monkeypatch.setenv("CLOUDRUN_JOBS_DEFAULTS", '{"vpc": {"x": 1}}')
    with pytest.raises(InvalidJob, match=r"It is from CLOUDRUN_JOBS_DEFAULTS\."):
        declare("x", {})


def test_unknown_default_is_refused(settings: Settings) -> None:
    """A misspelt key of DEFAULTS is not silently without effect."""
    settings.CLOUDRUN_JOBS = {"DEFAULTS": {"timout": 60}}

    with pytest.raises(InvalidSettings, match=r"unknown key 'timout'\. Did you mean 'timeout'\?"):
        declare("x", {})


@pytest.mark.parametrize("command", ["Großes", "_x", "9lives", "x.y", "Daily"])
def test_command_that_cannot_name_a_job_is_refused(command: str) -> None:
    """Cloud Run's names have lower-case letters, digits and hyphens."""
    with pytest.raises(InvalidJob, match="name: expected a module name of lower-case letters"):
        declare(command, {})


def test_long_names_are_shortened_and_stay_distinct() -> None:
    """Beyond Cloud Run's limit the end becomes a hash, the same one each time."""
    name, other = resource_name("x" * 80, "production"), resource_name("x" * 81, "production")

    assert len(name) <= MAX_NAME
    assert name != other
    assert name == resource_name("x" * 80, "production")


@pytest.mark.parametrize(
    ("entrypoint", "script"),
    [
        (["python"], "manage.py"),
        (["/opt/venv/bin/python3.13"], "manage.py"),
        (["python", "-u"], "manage.py"),
        (["python", "-X", "dev", "-W", "error"], "manage.py"),
        (["uv", "run", "python"], "manage.py"),
        (["python", "manage.py"], ""),
        (["python", "-m", "app"], ""),
        (["python", "-c", "import app"], ""),
        (["python", "-u", "-m", "app"], ""),
        (["/server/entrypoint.sh"], ""),
        (["not-python"], ""),
        (["python-wrapper"], ""),
    ],
)
def test_python_alone_gets_the_script(entrypoint: list[str], script: str) -> None:
    """An entrypoint that ends in a Python interpreter needs `manage.py` as the first argument."""
    assert declare("work", {"entrypoint": entrypoint}).script == script


@pytest.mark.parametrize(
    ("job_name", "name"),
    [
        (None, "work-test"),
        ("own", "own"),
        ({"test": "own"}, "own"),
        ({"staging": "own"}, "work-test"),
        ({}, "work-test"),
    ],
)
def test_name_is_the_declared_one(job_name: Any, name: str) -> None:
    """A dictionary declares a name for some environments."""
    assert declare("work", {"job_name": job_name}).name == name
