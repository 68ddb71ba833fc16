"""docs/troubleshooting.md: its messages are those of the code, and its findings are `doctor`'s."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from cloudrun_jobs.deploy.plan import printing
from cloudrun_jobs.doctor.checks import runtime
from cloudrun_jobs.emulator import errors
from cloudrun_jobs.emulator.engine import conditions, outcomes
from cloudrun_jobs.emulator.http_delivery import Result
from cloudrun_jobs.emulator.project import service_usage
from cloudrun_jobs.locks import acquire
from cloudrun_jobs.logs import receivers
from tests.deploying.steps import ROOT

GUIDE = (ROOT / "docs" / "troubleshooting.md").read_text()
MESSAGES = [line for block in re.findall(r"```text\n(.+?)```", GUIDE, re.DOTALL) for line in block.splitlines()]
FINDINGS = [text for line in re.findall(r"^`doctor`: (.+?)\.", GUIDE, re.MULTILINE) for text in line.split(", ")]
JOB = "collect-rates-production"
# https://cloud.google.com/run/docs/troubleshooting, and curl's message, which a test of the deployment reads.
DOCUMENTED = {
    "The request was aborted because there was no available instance.",
    "curl: (22) The requested URL returned error: 503",
}
PAUSED = SimpleNamespace(unchanged=[], paused=["collect_rates"], other_backends={})


def of(error):
    return error.message


PRODUCED = {
    Result.of(504).debug,
    of(errors.quota_exceeded("Jobs.RunJob")),
    of(errors.permission_denied("run.jobs.runWithOverrides", "projects/acme/locations/REGION/jobs/JOB")),
    of(errors.act_as_denied("app-jobs@acme.iam.gserviceaccount.com", "Jobs.CreateJob")),
    outcomes.Outcome.of_exit(1).failure_message(f"{JOB}-x7k2p-task0"),
    outcomes.OUT_OF_MEMORY_MESSAGE,
    outcomes.TIMED_OUT_MESSAGE,
    conditions.image_missing_message("asia-northeast1-docker.pkg.dev/acme/app/web:2"),
    of(service_usage.disabled("cloudscheduler.googleapis.com", "acme")).partition(" Enable it")[0],
    printing.summary(PAUSED).partition(", ")[2],
}


@pytest.mark.parametrize("message", sorted(PRODUCED | DOCUMENTED))
def test_message_is_explained(message):
    """The page contains each of these messages verbatim."""
    assert message in MESSAGES


@pytest.mark.parametrize("message", sorted(set(MESSAGES) - PRODUCED - DOCUMENTED))
def test_other_message_is_one_of_ours(message):
    """Messages with variable parts are those of the code: a lock, a change, a name, a status."""
    sources = (acquire, receivers, printing, runtime)
    words = re.findall(r"was skipped: the lock|for the lock|schedule:|account ID|Too Many Requests", message)
    texts = [ROOT.joinpath("cloudrun_jobs/emulator/project/service_accounts.py").read_text()]
    texts += [ROOT.joinpath(*module.__name__.split(".")).with_suffix(".py").read_text() for module in sources]

    assert words
    assert "schedule:" in words or runtime.RATE_LIMIT.search(message) or any(words[0] in text for text in texts)


@pytest.mark.parametrize("finding", sorted(set(FINDINGS)))
def test_finding_exists(finding):
    """Each finding that the page names is one of `doctor`'s."""
    folder = ROOT / "cloudrun_jobs"
    sources = [*(folder / "doctor").rglob("*.py"), folder / "runs" / "health.py"]

    assert any(f'"{finding.strip("`")}"' in path.read_text() for path in sources)
