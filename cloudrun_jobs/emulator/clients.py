"""The Google clients, connected to an emulator."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import grpc
from google.cloud import run_v2, scheduler_v1
from google.cloud.logging_v2.services.logging_service_v2 import LoggingServiceV2Client
from google.cloud.logging_v2.services.logging_service_v2.transports import LoggingServiceV2GrpcTransport
from google.cloud.run_v2.services.executions.transports import ExecutionsGrpcTransport
from google.cloud.run_v2.services.jobs.transports import JobsGrpcTransport
from google.cloud.run_v2.services.tasks.transports import TasksGrpcTransport
from google.cloud.scheduler_v1.services.cloud_scheduler.transports import CloudSchedulerGrpcTransport

if TYPE_CHECKING:
    from google.cloud.secretmanager_v1.services.secret_manager_service import SecretManagerServiceClient
    from google.cloud.tasks_v2.services.cloud_tasks import CloudTasksClient


class Clients:
    """One client per service, over one channel."""

    def __init__(self, address: str) -> None:
        # The emulator is on this machine, so a proxy of the environment does not apply.
        self._channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])

    @cached_property
    def jobs(self) -> run_v2.JobsClient:
        return run_v2.JobsClient(transport=JobsGrpcTransport(channel=self._channel))

    @cached_property
    def executions(self) -> run_v2.ExecutionsClient:
        return run_v2.ExecutionsClient(transport=ExecutionsGrpcTransport(channel=self._channel))

    @cached_property
    def tasks(self) -> run_v2.TasksClient:
        return run_v2.TasksClient(transport=TasksGrpcTransport(channel=self._channel))

    @cached_property
    def scheduler(self) -> scheduler_v1.CloudSchedulerClient:
        transport = CloudSchedulerGrpcTransport(channel=self._channel)
        return scheduler_v1.CloudSchedulerClient(transport=transport)

    @cached_property
    def logging(self) -> LoggingServiceV2Client:
        transport = LoggingServiceV2GrpcTransport(channel=self._channel)
        return LoggingServiceV2Client(transport=transport)

    @cached_property
    def secrets(self) -> SecretManagerServiceClient:
        """The client of the extra ``secrets``."""
        from google.cloud.secretmanager_v1.services.secret_manager_service import SecretManagerServiceClient

        transport = SecretManagerServiceClient.get_transport_class("grpc")
        return SecretManagerServiceClient(transport=transport(channel=self._channel))

    @cached_property
    def cloud_tasks(self) -> CloudTasksClient:
        """The client of the extra ``tasks``."""
        from google.cloud.tasks_v2.services.cloud_tasks import CloudTasksClient

        return CloudTasksClient(transport=CloudTasksClient.get_transport_class("grpc")(channel=self._channel))

    def close(self) -> None:
        self._channel.close()
