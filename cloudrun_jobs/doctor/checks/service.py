"""Check the web service, if jobs run in it: `target = "service"`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from cloudrun_jobs import conf
from cloudrun_jobs.doctor.checks.check import Check
from cloudrun_jobs.doctor.commands import gcloud, grant_on
from cloudrun_jobs.doctor.facts import Facts
from cloudrun_jobs.doctor.findings import Finding
from cloudrun_jobs.http import credentials
from cloudrun_jobs.spec import JobSpec

GOOGLE_URL = re.compile(r"https://[^/]+\.run\.app")


def _is_used(facts: Facts) -> bool:
    return bool(facts.in_service()) and facts.backend.service_url is not None


def service_missing(facts: Facts, _: None) -> Iterator[Finding]:
    url = facts.backend.service_url or ""
    # Another URL may be that of a load balancer, which this check cannot resolve.
    if _is_used(facts) and GOOGLE_URL.match(url) and facts.service() is None:
        setting = conf.setting_name("OPTIONS", "service_url")
        message = f"No service in {facts.project} has the URL {url}, which {setting} names."
        fix = f"In the settings: {setting} = the URL that `gcloud run services list` shows"
        yield Finding("service_missing", None, message, fix)


def unchecked_url(facts: Facts) -> str:
    """Return the URL if it is not one of Cloud Run, and no service has it as an audience; else ""."""
    url = facts.backend.service_url or ""
    return url if _is_used(facts) and not GOOGLE_URL.match(url) and facts.service() is None else ""


def _name(service: Mapping[str, Any]) -> str:
    return str(service["name"]).rpartition("/")[2]


def _update(facts: Facts, service: Mapping[str, Any], **flags: str) -> str:
    return gcloud("run", "services", "update", _name(service), **flags, **_place(facts, service))


def _place(facts: Facts, service: Mapping[str, Any]) -> dict[str, str]:
    return {"region": str(service["name"]).split("/")[3], "project": facts.project}


def service_cold(facts: Facts, _: None) -> Iterator[Finding]:
    service = facts.service() if _is_used(facts) else None
    if service is None:
        return
    template = service.get("template", {}).get("scaling", {}).get("minInstanceCount", 0)
    if not template and not service.get("scaling", {}).get("minInstanceCount", 0):
        message = f"The service {_name(service)} has no minimum instances: its jobs wait for cold starts."
        yield Finding("service_cold", None, message, _update(facts, service, min_instances="1"))


def service_timeout(facts: Facts, spec: JobSpec) -> Iterator[Finding]:
    service = facts.service() if _is_used(facts) and spec.runs_in_request else None
    if service is None:
        return
    seconds, limit = spec.timeout.total_seconds(), float(service.get("template", {}).get("timeout", "300s")[:-1])
    if seconds > limit:
        message = (
            f"The service {_name(service)} ends requests after {limit:g} seconds, but {spec.command} has a timeout"
            f" of {seconds:g}: it ends with 504."
        )
        yield Finding("service_timeout", spec.command, message, _update(facts, service, timeout=f"{seconds:.0f}"))


def service_invoker(facts: Facts, spec: JobSpec) -> Iterator[Finding]:
    """Without the role, Cloud Run rejects the requests before they reach the service."""
    service, account = facts.service() if _is_used(facts) else None, facts.scheduler_account(spec)
    if service is None or account is None or service.get("invokerIamDisabled"):
        return
    if facts.account_exists(account) and not facts.account_has(
        account, "run.routes.invoke", "run", f"v2/{service['name']}"
    ):
        place = _place(facts, service)
        fix = grant_on(("run", "services"), _name(service), account, "roles/run.invoker", **place)
        message = f"Cloud Scheduler cannot call {_name(service)} for {spec.command}: {account} may not invoke it."
        yield Finding("service_invoker", spec.command, message, fix)


def service_traffic(facts: Facts, _: None) -> Iterator[Finding]:
    service = facts.service() if _is_used(facts) else None
    if service is None:
        return
    newest = str(service.get("latestReadyRevision", "")).rpartition("/")[2]
    served = {str(part.get("revision", "")).rpartition("/")[2] for part in service.get("trafficStatuses", ())}
    if newest and served and newest not in served:
        words = ("run", "services", "update-traffic", _name(service), "--to-latest")
        fix = gcloud(*words, **_place(facts, service))
        message = f"The newest revision of {_name(service)}, {newest}, gets no traffic: jobs run older code."
        yield Finding("service_traffic", None, message, fix)


def oidc_rejected(facts: Facts, spec: JobSpec) -> Iterator[Finding]:
    """The service accepts a Scheduler job's token only if its settings contain the audience and the account."""
    account, url = facts.scheduler_account(spec), (facts.backend.service_url or "").rstrip("/")
    if not url or account is None:
        return
    oidc = credentials.load().oidc
    setting = conf.setting_name("HTTP")
    if oidc is None:
        problem, value = "accepts no OIDC tokens", f"['OIDC'] = {{'audience': '{url}', 'emails': ['{account}']}}"
    elif oidc.audience != url:
        problem, value = f"expects tokens for {oidc.audience}, not for {url}", f"['OIDC']['audience'] = '{url}'"
    elif account not in oidc.emails:
        emails = [*sorted(oidc.emails), account]
        problem, value = f"does not accept tokens of {account}", f"['OIDC']['emails'] = {emails}"
    elif oidc.commands is not None and spec.command not in oidc.commands:
        commands = sorted({*oidc.commands, spec.command})
        problem, value = f"does not let OIDC callers start {spec.command}", f"['OIDC']['commands'] = {commands}"
    else:
        return
    message = f"The web service rejects Cloud Scheduler's requests for {spec.command}: it {problem}."
    yield Finding("oidc_rejected", spec.command, message, f"In the settings: {setting}{value}")


CHECKS = (
    Check(("service_missing",), service_missing),
    Check(("service_cold",), service_cold),
    Check(("service_timeout",), service_timeout, Facts.in_service),
    Check(("service_invoker",), service_invoker, Facts.in_service),
    Check(("service_traffic",), service_traffic),
    Check(("oidc_rejected",), oidc_rejected, Facts.in_service),
)
