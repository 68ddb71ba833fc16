"""access.tf: valid, and the same roles and APIs as docs/deploy.md."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import yaml

from tests.deploy.export.terraform import NEEDS_PROVIDER, NEEDS_TERRAFORM, install_provider, terraform
from tests.deploying.steps import FOLDER, ROOT

ACCESS = FOLDER / "access.tf"
GUIDE = ROOT / "docs" / "deploy.md"
ROLE, API = re.compile(r"roles/[\w.]+"), re.compile(r"([a-z]+)\.googleapis\.com")


def test_roles_are_those_of_the_guide():
    """Terraform grants the roles that the guide grants by gcloud, and no other."""
    assert set(ROLE.findall(ACCESS.read_text())) == set(ROLE.findall(GUIDE.read_text()))


def test_apis_are_those_of_the_guide():
    """Terraform enables the APIs that the guide enables by gcloud, and no other."""
    names = re.search(r"apis = \[(.+?)\]", ACCESS.read_text(), re.DOTALL)[1]
    command = re.search(r"gcloud services enable (.+?)```", GUIDE.read_text(), re.DOTALL)[1]

    assert sorted(re.findall(r"\w+", names)) == sorted(API.findall(command))


def test_only_the_branches_that_are_deployed_are_admitted():
    """The conditions of both admit one repository, and the branches on which deploy.yml runs."""
    found = [re.search(r"assertion\.repository == .+\]", path.read_text())[0] for path in (ACCESS, GUIDE)]
    workflow = yaml.safe_load((FOLDER / "deploy.yml").read_text())
    branches = [f"refs/heads/{branch}" for branch in workflow[True]["push"]["branches"]]

    assert found[0].replace("${var.repository}", "$REPOSITORY") == found[1]
    assert found[1] == f"assertion.repository == '$REPOSITORY' && assertion.ref in {branches}"


def test_actions_may_become_the_deployer():
    """google-github-actions/auth exchanges a token by one API, and impersonates the account by the other."""
    assert {"sts", "iamcredentials"} <= set(API.findall(GUIDE.read_text()))


@NEEDS_TERRAFORM
def test_formatted(tmp_path):
    """`terraform fmt` changes nothing."""
    shutil.copy(ACCESS, tmp_path)

    assert terraform(tmp_path, "fmt", "-check", "-list=true").stdout == ""


@NEEDS_TERRAFORM
@NEEDS_PROVIDER
def test_valid(tmp_path):
    """`terraform validate` accepts the file."""
    install_provider(tmp_path)
    shutil.copy(ACCESS, tmp_path)
    done = terraform(tmp_path, "validate", "-json")

    assert json.loads(done.stdout)["error_count"] == 0, done.stdout


@NEEDS_TERRAFORM
@NEEDS_PROVIDER
@pytest.mark.parametrize("mistake", [("issuer_uri", "issuer"), (".github.name", ".github.nam")], ids=str)
def test_mistake_is_found(tmp_path, mistake):
    """A mistake in an argument or a reference is found."""
    install_provider(tmp_path)
    (tmp_path / "access.tf").write_text(ACCESS.read_text().replace(*mistake))
    done = terraform(tmp_path, "validate", "-json")

    assert json.loads(done.stdout)["error_count"] > 0
