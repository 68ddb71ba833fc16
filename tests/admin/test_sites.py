"""Admin sites of a project's own, and its own subclasses of the list of runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import AnonymousUser
from django.test import Client

from cloudrun_jobs.locks import current
from cloudrun_jobs.models import Status
from tests.admin.conftest import record, shown
from tests.admin.sites import BackstageRuns, backstage
from tests.dashboard.job_pages import hold

RUNS, JOBS = "/backstage/cloudrun_jobs/jobrun/", "/backstage/cloudrun_jobs/job/"

pytestmark = pytest.mark.urls("tests.admin.sites")


@pytest.fixture
def guest(sign_in: Callable[..., Client]) -> Client:
    """A browser with a user who is not staff."""
    return sign_in("view_jobrun", "cancel_job", is_staff=False)


READ = (RUNS, JOBS, f"{RUNS}{{run}}/change/", f"{JOBS}echo/change/", f"{JOBS}echo/history/")


@pytest.mark.parametrize("path", READ)
def test_site_decides_who_may_enter(guest: Client, path: str) -> None:
    """A site that admits other users than staff shows them jobs and runs, with links to this site alone."""
    page = guest.get(path.format(run=record().pk)).content.decode()

    assert "/backstage/cloudrun_jobs/" in page
    assert "/admin/cloudrun_jobs/" not in page


def test_other_site_refuses_them(guest: Client) -> None:
    """The same user cannot enter the other site."""
    assert guest.get("/admin/cloudrun_jobs/jobrun/").status_code == 302


@pytest.mark.parametrize("path", [f"{JOBS}echo/pause/", f"{JOBS}echo/release-lock/", f"{RUNS}{{run}}/cancel/"])
def test_address_of_an_action_is_a_page(sign_in: Callable[..., Client], path: str) -> None:
    """After a sign-in, the browser opens the address of the form: a page says that it does nothing."""
    client = sign_in("view_jobrun", "run_job", "cancel_job", is_staff=False)
    response = client.get(path.format(run=record().pk))

    assert (response.status_code, response["Allow"]) == (405, "POST")
    assert "Use the buttons on the pages." in response.content.decode()


def test_site_without_sidebar(guest: Client) -> None:
    """A site without a sidebar shows the pages without one."""
    assert "nav-sidebar" not in guest.get(f"{JOBS}echo/change/").content.decode()


@pytest.mark.parametrize("path", [f"{RUNS}{{run}}/", f"{JOBS}echo/"])
def test_page_links_its_history(guest: Client, path: str) -> None:
    """The pages of a job and of a run link the history of the site."""
    path = path.format(run=record().pk)

    assert f'href="{path}history/"' in guest.get(f"{path}change/").content.decode()
    assert guest.get(f"{path}history/").status_code == 200


def test_names_of_the_site(guest: Client) -> None:
    """What a site adds to the context of its templates does not replace what a page shows."""
    run = record(requested_by="mina")

    assert "mina" in guest.get(f"{RUNS}{run.pk}/change/").content.decode()
    assert str(run.pk) in guest.get(f"{JOBS}echo/change/").content.decode()


def test_columns_of_a_project(guest: Client) -> None:
    """The list shows the columns that a project defines, from any field, without a query for each run."""
    record(argv=["echo", "--partner=7"])

    page = guest.get(RUNS).content.decode()

    assert '<td class="field-first_argument">--partner=7</td>' in page
    assert '<td class="field-environment">test</td>' in page


@pytest.mark.parametrize("query", ["", "?environment=test&status=succeeded", "?environment=gone"])
def test_columns_of_a_project_cost_no_query_each(
    guest: Client, django_assert_max_num_queries: Any, query: str
) -> None:
    """However many runs the list shows, their fields are read with one query."""
    for _ in range(20):
        record()

    with django_assert_max_num_queries(14):
        guest.get(RUNS + query)


def test_actions_of_a_project(guest: Client) -> None:
    """A project's own actions are offered beside those of the package."""
    run = record()

    response = guest.post(RUNS, {"action": "count_runs", "_selected_action": run.pk, "index": 0}, follow=True)

    assert "1 runs are selected." in response.content.decode()


def test_rows_that_a_project_hides(guest: Client) -> None:
    """A run that the project's queryset leaves out is neither listed nor shown, nor cancelled."""
    hidden = record("secret", Status.PENDING)

    assert shown(guest.get(RUNS)) == []
    assert guest.get(f"{RUNS}{hidden.pk}/change/").status_code == 302
    assert guest.post(f"{RUNS}{hidden.pk}/cancel/").status_code == 302

    hidden.refresh_from_db()
    assert hidden.status == Status.PENDING


@pytest.mark.parametrize(("path", "status"), [("change", 404), ("history", 302)])
def test_job_whose_runs_a_project_hides(guest: Client, path: str, status: int) -> None:
    """A job that only runs tell of is not shown if the project's queryset leaves out all of them."""
    record("secret", requested_by="ceo")

    assert guest.get(f"{JOBS}secret/{path}/").status_code == status


@pytest.mark.parametrize("path", ["", "echo/change/"])
def test_pages_of_jobs_show_the_runs_of_the_site(
    guest: Client, django_assert_max_num_queries: Any, path: str
) -> None:
    """Last runs and links of holders are those of the project's queryset, with a bounded number of queries."""
    hidden = record(requested_by="ceo", execution="echo-x7k2p")
    hold("echo", "echo-x7k2p")

    with django_assert_max_num_queries(9):
        page = guest.get(JOBS + path).content.decode()

    assert "echo-x7k2p" in page
    assert not [text for text in ("ceo", str(hidden.pk)) if text in page]
    current().close()


def test_permission_of_runs_counts_for_jobs(guest: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who may not see runs in this site sees none on the pages of jobs."""
    monkeypatch.setattr(BackstageRuns, "has_view_permission", lambda *_: False)
    run = record()

    assert str(run.pk) not in guest.get(f"{JOBS}echo/change/").content.decode()


@pytest.mark.parametrize("bulk", [True, False])
def test_permission_for_one_run(guest: Client, bulk: bool) -> None:
    """A permission that a project decides for each run is asked for it, on its page and in the list."""
    kept = record("keep", Status.PENDING)
    values = {"action": "cancel_runs", "_selected_action": kept.pk, "index": 0}

    response = guest.post(RUNS if bulk else f"{RUNS}{kept.pk}/cancel/", values)

    kept.refresh_from_db()
    assert (response.status_code, kept.status) == (403, Status.PENDING)


def test_visitor_without_an_account(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A site may let visitors without an account cancel runs; the history has accounts alone."""
    monkeypatch.setattr(AnonymousUser, "is_active", True)
    monkeypatch.setattr(AnonymousUser, "has_perm", lambda *_: True)
    waiting = record(status=Status.PENDING)

    client.post(RUNS, {"action": "cancel_runs", "_selected_action": waiting.pk, "index": 0})

    waiting.refresh_from_db()
    assert (waiting.status, LogEntry.objects.count()) == (Status.CANCELLED, 0)


def test_signed_out(client: Client) -> None:
    """A user who is signed out is sent to the site's own page for signing in, and comes back."""
    response = client.get(f"{JOBS}echo/change/")

    assert response.headers["Location"] == f"/backstage/login/?next={JOBS}echo/change/"


def test_variables_of_a_site(sign_in: Callable[..., Client], monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of all pages of the site, such as the `environment` of Unfold, do not replace those of a page."""
    names = {"environment": "frame", "help": "frame", "command": "frame", "form": "frame", "runs": "frame"}
    each_context = backstage.each_context
    monkeypatch.setattr(backstage, "each_context", lambda request: {**each_context(request), **names})

    response = sign_in("view_jobrun", "run_job").get(f"{JOBS}echo/start/")

    assert "The job runs in the environment <bdi>test</bdi>." in response.content.decode()
    assert 'id="start"' in response.content.decode()
