"""The settings: one dictionary, the environment over it, and nothing unknown in either."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_django import Settings

from cloudrun_jobs import backends, conf
from cloudrun_jobs.backends.cloudrun import CloudRunBackend
from cloudrun_jobs.backends.inline import InlineBackend
from cloudrun_jobs.exceptions import InvalidSettings
from tests.jobs.management.commands import echo

CLOUD = {"PROJECT": "acme", "REGION": "asia-northeast1"}


@pytest.mark.parametrize(
    ("environment", "backend"),
    [("local", InlineBackend), ("test", InlineBackend), ("production", CloudRunBackend), ("dev", CloudRunBackend)],
)
def test_environment_chooses_the_backend(settings: Settings, environment: str, backend: type) -> None:
    """Only "local" and "test" run inline."""
    settings.CLOUDRUN_JOBS = {**CLOUD, "ENVIRONMENT": environment}

    assert type(backends.current()) is backend


def test_settings_are_optional(settings: Settings) -> None:
    """A project without CLOUDRUN_JOBS is a local one."""
    del settings.CLOUDRUN_JOBS

    assert conf.load() == conf.Settings(environment="local")


def test_variables_win_over_the_dictionary(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container is configured by its environment."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "staging", "PROJECT": "acme"}
    monkeypatch.setenv("CLOUDRUN_JOBS_ENVIRONMENT", "production")
    monkeypatch.setenv("CLOUDRUN_JOBS_DEFAULTS", '{"timeout": 60}')

    loaded = conf.load()

    assert (loaded.environment, loaded.project, loaded.defaults) == ("production", "acme", {"timeout": 60})


@pytest.mark.parametrize(
    ("configured", "message"),
    [
        ("x", "CLOUDRUN_JOBS: expected a dictionary, got str."),
        ({"ENVIROMENT": "x"}, "unknown key 'ENVIROMENT'. Did you mean 'ENVIRONMENT'?"),
        ({1: "x"}, "unknown key 1"),
        ({"OPTIONS": None}, "CLOUDRUN_JOBS['OPTIONS']: expected a dictionary, got NoneType."),
        ({"ENVIRONMENT": "Prod"}, "expected lower-case letters, digits and hyphens, got 'Prod'."),
        ({"ENVIRONMENT": ""}, "CLOUDRUN_JOBS['ENVIRONMENT']"),
        ({"REGION": "evil.example/#"}, "CLOUDRUN_JOBS['REGION']: expected a region such as 'asia-northeast1'"),
        ({"PROJECT": "a/../b"}, "CLOUDRUN_JOBS['PROJECT']: expected a project id"),
        ({"PROJECT": 7}, "CLOUDRUN_JOBS['PROJECT']"),
        ({"BACKEND": "nowhere.Backend"}, "CLOUDRUN_JOBS['BACKEND']: No module named 'nowhere'"),
        ({"BACKEND": "nowhere"}, "expected the dotted path of a backend class"),
        ({"BACKEND": "cloudrun_jobs.conf.load"}, "cloudrun_jobs.conf.load is not a subclass of Backend."),
        ({"OPTIONS": {"endpiont": "x"}}, "has no option 'endpiont'. Did you mean 'endpoint'?"),
    ],
)
def test_invalid_setting_is_refused(settings: Settings, configured: Any, message: str) -> None:
    """The error names the key, the expected value and the configured one."""
    settings.CLOUDRUN_JOBS = configured

    with pytest.raises(InvalidSettings) as refusal:
        backends.current()

    assert message in str(refusal.value)


def test_invalid_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable."""
    monkeypatch.setenv("CLOUDRUN_JOBS_OPTIONS", "{endpoint}")

    with pytest.raises(InvalidSettings, match="CLOUDRUN_JOBS_OPTIONS: expected a JSON object"):
        conf.load()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("OPTIONS", '{"endpiont": "x"}', "CLOUDRUN_JOBS_OPTIONS: CloudRunBackend has no option 'endpiont'"),
        ("OPTIONS", '{"endpoint": "x"}', "CLOUDRUN_JOBS_OPTIONS['endpoint']: expected 'host:port'"),
        ("BACKEND", "nowhere.Backend", "CLOUDRUN_JOBS_BACKEND: No module named 'nowhere'"),
    ],
)
def test_invalid_variable_is_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    """The value is not in the dictionary."""
    settings.CLOUDRUN_JOBS = {**CLOUD, "ENVIRONMENT": "production"}
    monkeypatch.setenv(f"CLOUDRUN_JOBS_{name}", value)

    with pytest.raises(InvalidSettings) as refusal:
        backends.current()

    assert message in str(refusal.value)


def test_missing_project_and_region_are_reported_at_once(settings: Settings) -> None:
    """The project and the region in one message."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production"}

    with pytest.raises(InvalidSettings, match=r"\['PROJECT'\] and CLOUDRUN_JOBS\['REGION'\]: required"):
        backends.current()


def test_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its ENVIRONMENT misspelt, production would silently run jobs in the web process."""
    monkeypatch.setenv("CLOUDRUN_JOBS_ENVIROMENT", "production")

    with pytest.raises(InvalidSettings, match="Did you mean 'CLOUDRUN_JOBS_ENVIRONMENT'"):
        conf.load()


def test_one_dictionary_serves_all_environments(settings: Settings) -> None:
    """The settings of an inline environment may have the cloud's options."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "OPTIONS": {"rpc_timeout": 5}}

    assert type(backends.current()) is InlineBackend


@pytest.mark.parametrize("project", ["acme", "acme-prod-7", "example.com:acme"])
def test_projects_of_every_kind(settings: Settings, project: str) -> None:
    """Ordinary and domain-scoped projects are accepted."""
    settings.CLOUDRUN_JOBS = {"PROJECT": project}

    assert conf.load().project == project


def test_settings_are_read_once_in_a_block(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the block nothing changes; after it, everything is read again."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test"}
    with conf.reading_once():
        first, spec = conf.load(), echo.Command().spec
        settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "local"}
        monkeypatch.setattr(echo.Command, "timeout", 7, raising=False)

        assert conf.load() is first
        assert echo.Command().spec is spec

    assert conf.load().environment == "local"
    assert echo.Command().spec.timeout.total_seconds() == 7


def test_invalid_settings_are_read_again_in_a_block(settings: Settings) -> None:
    """An error is not kept."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "Test"}
    with conf.reading_once():
        with pytest.raises(InvalidSettings):
            conf.load()
        settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test"}

        assert conf.load().environment == "test"
