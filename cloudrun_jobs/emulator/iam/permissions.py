"""The permission that each method requires."""

from __future__ import annotations

from typing import Any

RUN_WITH_OVERRIDES = "run.jobs.runWithOverrides"
FULL_VIEW = "cloudtasks.tasks.fullView"
ACT_AS = "iam.serviceAccounts.actAs"
PERMISSIONS = {
    "Jobs.CreateJob": "run.jobs.create",
    "Jobs.GetJob": "run.jobs.get",
    "Jobs.ListJobs": "run.jobs.list",
    "Jobs.UpdateJob": "run.jobs.update",
    "Jobs.DeleteJob": "run.jobs.delete",
    "Jobs.RunJob": "run.jobs.run",
    "Jobs.GetIamPolicy": "run.jobs.getIamPolicy",
    "Jobs.SetIamPolicy": "run.jobs.setIamPolicy",
    "Services.GetService": "run.services.get",
    "Services.CreateService": "run.services.create",
    "Services.ListServices": "run.services.list",
    "RegionalServices.ListServices": "run.services.list",
    "Services.UpdateService": "run.services.update",
    "Services.DeleteService": "run.services.delete",
    "Revisions.GetRevision": "run.revisions.get",
    "Revisions.ListRevisions": "run.revisions.list",
    "WorkerPools.CreateWorkerPool": "run.workerpools.create",
    "WorkerPools.GetWorkerPool": "run.workerpools.get",
    "WorkerPools.ListWorkerPools": "run.workerpools.list",
    "WorkerPools.UpdateWorkerPool": "run.workerpools.update",
    "WorkerPools.DeleteWorkerPool": "run.workerpools.delete",
    "WorkerPools.GetIamPolicy": "run.workerpools.getIamPolicy",
    "WorkerPools.SetIamPolicy": "run.workerpools.setIamPolicy",
    "Services.GetIamPolicy": "run.services.getIamPolicy",
    "Services.SetIamPolicy": "run.services.setIamPolicy",
    "Executions.GetExecution": "run.executions.get",
    "Executions.ListExecutions": "run.executions.list",
    "Executions.DeleteExecution": "run.executions.delete",
    "Executions.CancelExecution": "run.executions.cancel",
    "Tasks.GetTask": "run.tasks.get",
    "Tasks.ListTasks": "run.tasks.list",
    "Operations.GetOperation": "run.operations.get",
    "Operations.WaitOperation": "run.operations.get",
    "Operations.ListOperations": "run.operations.list",
    "Operations.DeleteOperation": "run.operations.delete",
    "RunLocations.GetLocation": "run.locations.list",
    "RunLocations.ListLocations": "run.locations.list",
    "SecretLocations.GetLocation": "secretmanager.locations.get",
    "SecretLocations.ListLocations": "secretmanager.locations.list",
    "TaskLocations.GetLocation": "cloudtasks.locations.get",
    "TaskLocations.ListLocations": "cloudtasks.locations.list",
    "LogLocations.GetLocation": "logging.locations.get",
    "LogLocations.ListLocations": "logging.locations.list",
    "CloudScheduler.ListJobs": "cloudscheduler.jobs.list",
    "CloudScheduler.GetJob": "cloudscheduler.jobs.get",
    "CloudScheduler.CreateJob": "cloudscheduler.jobs.create",
    "CloudScheduler.UpdateJob": "cloudscheduler.jobs.update",
    "CloudScheduler.DeleteJob": "cloudscheduler.jobs.delete",
    "CloudScheduler.PauseJob": "cloudscheduler.jobs.pause",
    "CloudScheduler.ResumeJob": "cloudscheduler.jobs.enable",
    "CloudScheduler.RunJob": "cloudscheduler.jobs.run",
    "Locations.GetLocation": "cloudscheduler.locations.get",
    "Locations.ListLocations": "cloudscheduler.locations.list",
    "CloudTasks.CreateQueue": "cloudtasks.queues.create",
    "CloudTasks.GetQueue": "cloudtasks.queues.get",
    "CloudTasks.ListQueues": "cloudtasks.queues.list",
    "CloudTasks.UpdateQueue": "cloudtasks.queues.update",
    "CloudTasks.DeleteQueue": "cloudtasks.queues.delete",
    "CloudTasks.PauseQueue": "cloudtasks.queues.pause",
    "CloudTasks.ResumeQueue": "cloudtasks.queues.resume",
    "CloudTasks.PurgeQueue": "cloudtasks.queues.purge",
    "CloudTasks.GetIamPolicy": "cloudtasks.queues.getIamPolicy",
    "CloudTasks.SetIamPolicy": "cloudtasks.queues.setIamPolicy",
    "CloudTasks.CreateTask": "cloudtasks.tasks.create",
    "CloudTasks.GetTask": "cloudtasks.tasks.get",
    "CloudTasks.ListTasks": "cloudtasks.tasks.list",
    "CloudTasks.DeleteTask": "cloudtasks.tasks.delete",
    "CloudTasks.RunTask": "cloudtasks.tasks.run",
    "LoggingServiceV2.WriteLogEntries": "logging.logEntries.create",
    "LoggingServiceV2.ListLogEntries": "logging.logEntries.list",
    "LoggingServiceV2.TailLogEntries": "logging.logEntries.list",
    "LoggingServiceV2.ListLogs": "logging.logs.list",
    "LoggingServiceV2.DeleteLog": "logging.logs.delete",
    "SecretManagerService.CreateSecret": "secretmanager.secrets.create",
    "SecretManagerService.GetSecret": "secretmanager.secrets.get",
    "SecretManagerService.ListSecrets": "secretmanager.secrets.list",
    "SecretManagerService.UpdateSecret": "secretmanager.secrets.update",
    "SecretManagerService.DeleteSecret": "secretmanager.secrets.delete",
    "SecretManagerService.GetIamPolicy": "secretmanager.secrets.getIamPolicy",
    "SecretManagerService.SetIamPolicy": "secretmanager.secrets.setIamPolicy",
    "SecretManagerService.AddSecretVersion": "secretmanager.versions.add",
    "SecretManagerService.GetSecretVersion": "secretmanager.versions.get",
    "SecretManagerService.AccessSecretVersion": "secretmanager.versions.access",
    "SecretManagerService.ListSecretVersions": "secretmanager.versions.list",
    "SecretManagerService.EnableSecretVersion": "secretmanager.versions.enable",
    "SecretManagerService.DisableSecretVersion": "secretmanager.versions.disable",
    "SecretManagerService.DestroySecretVersion": "secretmanager.versions.destroy",
    "Projects.GetProject": "resourcemanager.projects.get",
    "Projects.GetIamPolicy": "resourcemanager.projects.getIamPolicy",
    "Projects.SetIamPolicy": "resourcemanager.projects.setIamPolicy",
    "IAM.CreateServiceAccount": "iam.serviceAccounts.create",
    "IAM.GetServiceAccount": "iam.serviceAccounts.get",
    "IAM.ListServiceAccounts": "iam.serviceAccounts.list",
    "IAM.DeleteServiceAccount": "iam.serviceAccounts.delete",
    "IAM.GetIamPolicy": "iam.serviceAccounts.getIamPolicy",
    "IAM.SetIamPolicy": "iam.serviceAccounts.setIamPolicy",
    "IAM.CreateRole": "iam.roles.create",
    "IAM.GetRole": "iam.roles.get",
    "IAM.ListRoles": "iam.roles.list",
    "IAM.UpdateRole": "iam.roles.update",
    "IAM.DeleteRole": "iam.roles.delete",
    "ServiceUsage.GetService": "serviceusage.services.get",
    "ServiceUsage.ListServices": "serviceusage.services.list",
    "ServiceUsage.BatchGetServices": "serviceusage.services.get",
    "ServiceUsage.EnableService": "serviceusage.services.enable",
    "ServiceUsage.BatchEnableServices": "serviceusage.services.enable",
    "ServiceUsage.DisableService": "serviceusage.services.disable",
    "ArtifactRegistry.CreateRepository": "artifactregistry.repositories.create",
    "ArtifactRegistry.GetRepository": "artifactregistry.repositories.get",
    "ArtifactRegistry.ListRepositories": "artifactregistry.repositories.list",
    "ArtifactRegistry.DeleteRepository": "artifactregistry.repositories.delete",
    "ArtifactRegistry.GetIamPolicy": "artifactregistry.repositories.getIamPolicy",
    "ArtifactRegistry.SetIamPolicy": "artifactregistry.repositories.setIamPolicy",
    "ArtifactRegistry.GetDockerImage": "artifactregistry.dockerimages.get",
    "ArtifactRegistry.ListDockerImages": "artifactregistry.dockerimages.list",
    "ArtifactRegistry.GetPackage": "artifactregistry.packages.get",
    "ArtifactRegistry.ListVersions": "artifactregistry.versions.list",
    "ArtifactRegistry.GetVersion": "artifactregistry.versions.get",
    "ArtifactRegistry.GetTag": "artifactregistry.tags.get",
    "ArtifactRegistry.ListTags": "artifactregistry.tags.list",
}


def resources_of(request: Any) -> list[str]:
    """Return the names of the resources of a request; several only if it reads or writes several logs."""
    for field in ("name", "parent", "resource"):
        value = _field(request, field)
        if value and isinstance(value, str):  # The `resource` of WriteLogEntries is a message.
            return [value]
    if isinstance(request, dict):
        return []
    for field in ("job", "secret", "service", "queue"):
        inner = _field(request, field)
        if inner is not None and inner.name:
            return [str(inner.name)]
    logs = [_field(request, "log_name"), *(entry.log_name for entry in _field(request, "entries") or ())]
    return list(dict.fromkeys(filter(None, [*logs, *(_field(request, "resource_names") or ())])))


def additional_permissions(method: str, request: Any) -> list[str]:
    """Return the permissions that this request requires besides that of its method."""
    if method == "Jobs.RunJob" and "overrides" in request:
        return [RUN_WITH_OVERRIDES]
    if method.startswith("CloudTasks.") and getattr(_field(request, "response_view"), "name", "") == "FULL":
        return [FULL_VIEW]
    return []


def accounts_of(method: str, request: Any) -> list[str]:
    """Return the service accounts that a request gives to a resource; an empty text is the default account."""
    if method in ("Jobs.CreateJob", "Jobs.UpdateJob"):
        return [request.job.template.template.service_account]
    if method in ("Services.CreateService", "Services.UpdateService"):
        return [request.service.template.service_account]
    if method in ("WorkerPools.CreateWorkerPool", "WorkerPools.UpdateWorkerPool"):
        return [request.worker_pool.template.service_account]
    if method in ("CloudScheduler.CreateJob", "CloudScheduler.UpdateJob"):
        return _accounts_of_target(request.job.http_target)
    if method == "CloudTasks.CreateTask":
        return _accounts_of_target(request.task.http_request)
    return []


def _accounts_of_target(target: Any) -> list[str]:
    tokens = (target.oauth_token.service_account_email, target.oidc_token.service_account_email)
    return [email for email in tokens if email]


def _field(request: Any, name: str) -> Any:
    return request.get(name) if isinstance(request, dict) else getattr(request, name, None)
