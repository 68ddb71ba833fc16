"""Translation between v1 and v2 preserves the job."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from google.cloud import run_v2
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.emulator.errors import ServiceError
from cloudrun_jobs.emulator.frontends.knative import specs

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
names = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
secrets = st.builds(run_v2.SecretKeySelector, secret=names, version=names)
references = st.builds(run_v2.EnvVarSource, secret_key_ref=secrets)
variables = st.one_of(
    st.builds(run_v2.EnvVar, name=names, value=words),
    st.builds(run_v2.EnvVar, name=names, value_source=references),
)
containers = st.builds(
    run_v2.Container,
    name=names,
    image=words,
    command=st.lists(words, max_size=3),
    args=st.lists(words, max_size=3),
    env=st.lists(variables, max_size=3),
    working_dir=words,
    resources=st.builds(run_v2.ResourceRequirements, limits=st.dictionaries(names, names, max_size=2)),
)
tasks = st.builds(
    run_v2.TaskTemplate,
    containers=st.lists(containers, max_size=2),
    max_retries=st.integers(0, 10),
    timeout=st.integers(1, 604_800).map(lambda seconds: timedelta(seconds=seconds)),
    service_account=words,
)
jobs = st.builds(
    run_v2.Job,
    client=names,
    client_version=names,
    labels=st.dictionaries(names, words, max_size=2),
    annotations=st.dictionaries(names, words, max_size=2),
    template=st.builds(
        run_v2.ExecutionTemplate,
        parallelism=st.integers(0, 100),
        task_count=st.integers(0, 10_000),
        labels=st.dictionaries(names, words, max_size=2),
        annotations=st.dictionaries(names, words, max_size=2),
        template=tasks,
    ),
)


@given(jobs)
def test_job_survives_round_trip(job):
    """A v2 job translated to v1 JSON and back is unchanged."""
    annotations = {**job.annotations, specs.CLIENT_NAME: job.client, specs.CLIENT_VERSION: job.client_version}
    v1 = {"metadata": {"labels": dict(job.labels), "annotations": annotations}, "spec": specs.job_spec_to_v1(job)}

    assert specs.job_to_v2(json.loads(json.dumps(v1))) == job


INTERFACE = {"network": "default", "subnetwork": "jobs", "tags": ["a", "b"]}
SOCKETS = {
    "name": "cloudsql",
    "cloud_sql_instance": {"instances": ["acme:europe-west4:main", "acme:europe-west4:logs"]},
}
MOUNTED = {"image": "app", "volume_mounts": [{"name": "cloudsql", "mount_path": "/cloudsql"}]}


@pytest.mark.parametrize(
    "task",
    [
        {"vpc_access": {"network_interfaces": [INTERFACE], "egress": "ALL_TRAFFIC"}},
        {"vpc_access": {"network_interfaces": [{"network": "default"}]}},
        {"vpc_access": {"connector": "projects/acme/locations/europe-west4/connectors/main"}},
        {"vpc_access": {"egress": "PRIVATE_RANGES_ONLY"}},
        {"volumes": [SOCKETS], "containers": [MOUNTED]},
    ],
)
def test_annotations_become_fields(task):
    """Networks and databases are annotations in v1 and fields in v2, never both."""
    job = run_v2.Job(template={"template": task})
    v1 = specs.job_spec_to_v1(job)
    again = specs.job_to_v2({"spec": v1})

    assert again.template.annotations == {}
    assert again.template.template.vpc_access == job.template.template.vpc_access
    assert again.template.template.volumes == job.template.template.volumes
    assert [container.volume_mounts for container in again.template.template.containers] == [
        container.volume_mounts for container in job.template.template.containers
    ]


@pytest.mark.parametrize(
    "v1",
    [
        {},
        {"spec": 1},
        {"spec": {"template": {"spec": {"template": {"spec": {"containers": [1]}}}}}},
        {"spec": {"template": {"spec": {"taskCount": "many", "template": {"spec": {}}}}}},
        {"spec": {"template": {"spec": {"template": {"spec": {"containers": [{"env": [{}]}]}}}}}},
    ],
)
def test_malformed_job_is_rejected(v1):
    """A malformed job is rejected with INVALID_ARGUMENT."""
    with pytest.raises(ServiceError, match="cannot be read") as raised:
        specs.job_to_v2(v1)

    assert raised.value.code == "INVALID_ARGUMENT"
