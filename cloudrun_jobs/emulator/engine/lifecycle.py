"""The lifecycle of one execution: start, retry, cancel and count its tasks, and set its outcome."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.cloud import run_v2
from google.rpc import status_pb2

from cloudrun_jobs.emulator import closed_world, names
from cloudrun_jobs.emulator.clock import write_timestamp
from cloudrun_jobs.emulator.engine import conditions
from cloudrun_jobs.emulator.engine.attempts import Attempt, Container
from cloudrun_jobs.emulator.engine.outcomes import Kind, Outcome
from cloudrun_jobs.emulator.engine.secrets import MissingSecret, Secrets, secret_name
from cloudrun_jobs.emulator.events import AttemptEnded, ExecutionEnded, ExecutionStarted
from cloudrun_jobs.emulator.logs.tasks import TaskLog, base_entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudrun_jobs.emulator.clock import Clock, Timer
    from cloudrun_jobs.emulator.config import Config
    from cloudrun_jobs.emulator.engine.store import Record, Store
    from cloudrun_jobs.emulator.events import Events
    from cloudrun_jobs.emulator.faults import Faults
    from cloudrun_jobs.emulator.iam.access import Iam
    from cloudrun_jobs.emulator.logs.store import LogStore
    from cloudrun_jobs.emulator.processes.spawner import Spawner
    from cloudrun_jobs.emulator.project.images import Images

Reason = run_v2.Condition.ExecutionReason
CommonReason = run_v2.Condition.CommonReason


@dataclass(frozen=True, slots=True)
class Platform:
    """The services shared by all executions."""

    config: Config
    clock: Clock
    spawner: Spawner
    logs: LogStore
    secrets: Secrets
    faults: Faults
    events: Events
    addresses: closed_world.Addresses
    images: Images
    iam: Iam


@dataclass(slots=True, eq=False)
class ExecutionLifecycle:
    """An unfinished execution. Its methods run under the store's lock."""

    record: Record
    store: Store
    platform: Platform
    on_completed: Callable[[Record], None]
    waiting: deque[tuple[int, int]] = field(default_factory=deque)  # Index and attempt number.
    running: dict[int, Attempt] = field(default_factory=dict)
    failure: tuple[Outcome, str] | None = None
    cancelled: bool = False
    cold_start: Timer | None = None
    container: Container = field(init=False)
    log_base: Any = field(init=False)

    @property
    def execution(self) -> run_v2.Execution:
        return self.record.execution

    @property
    def _pb(self) -> Any:
        """The execution as a protobuf message, whose fields are read and written faster."""
        return run_v2.Execution.pb(self.record.execution)

    def _task(self, index: int) -> Any:
        return run_v2.Task.pb(self.record.tasks[index])

    def begin(self) -> None:
        """Start the tasks soon: RunJob's response does not wait for them."""
        started = ExecutionStarted(self.execution.name, self.execution.task_count)
        self.platform.events.announce(started)
        self.waiting.extend((index, 0) for index in range(self.execution.task_count))
        delay = self.platform.faults.take_cold_start()
        if delay:
            self.cold_start = self.platform.clock.call_later(delay, self._start_unless_cancelled)
        else:
            self.platform.spawner.call_soon(self._start_unless_cancelled)

    def cancel(self) -> None:
        """Drop the waiting tasks and stop the running ones."""
        self.cancelled = True
        if self.cold_start is not None:
            self.cold_start.cancel()
        self._set_condition(
            "Completed", conditions.RUNNING, conditions.CANCELLING, execution_reason=Reason.CANCELLING
        )
        for index, _ in self.waiting:
            self._finish_task(index, Outcome(Kind.CANCELLED))
        self.waiting.clear()
        for attempt in self.running.values():
            attempt.end(Kind.CANCELLED, grace=self.platform.config.grace)
        self._complete_when_done()

    def signal(self, number: int) -> None:
        for attempt in self.running.values():
            self.platform.spawner.signal(attempt.key, number)

    def attempt_started(self, attempt: Attempt) -> None:
        with self.store.changed:
            now = self.platform.clock.now()
            task = self._task(attempt.index)
            if not task.HasField("start_time"):
                write_timestamp(task.start_time, now)
            conditions.set_condition(self.record.tasks[attempt.index], "Started", conditions.SUCCEEDED, now)
            if not self._pb.HasField("start_time"):
                self._mark_started()

    def attempt_ended(self, attempt: Attempt, outcome: Outcome) -> None:
        with self.store.changed:
            del self.running[attempt.index]
            self._pb.running_count -= 1
            task = self._task(attempt.index)
            task.last_attempt_result.CopyFrom(run_v2.TaskAttemptResult.pb(outcome.result()))
            remaining = len(self.waiting)
            if outcome.kind is Kind.INFRASTRUCTURE and not self.cancelled:
                self.waiting.appendleft((attempt.index, attempt.number))
            elif self._may_retry(outcome, task):
                self._retry(attempt, task)
            else:
                self._finish_task(attempt.index, outcome)
            restarts = len(self.waiting) > remaining
            self.platform.events.announce(
                AttemptEnded(self.execution.name, attempt.index, attempt.number, outcome, restarts)
            )
            self._start_waiting_tasks()
            self._complete_when_done()

    def _start_unless_cancelled(self) -> None:
        with self.store.changed:
            if not self.cancelled:
                self._provision()

    def _provision(self) -> None:
        now = self.platform.clock.now()
        self.log_base = base_entry(self.execution)
        missing = self.platform.images.missing(self.execution.template)
        if missing is not None:
            self._fail_before_start(conditions.image_missing_message(missing), CommonReason.CONTAINER_MISSING)
            return
        try:
            for position, variable in enumerate(self.execution.template.containers[0].env):
                self._check_access(position, variable)
                self.platform.secrets.value(variable, self.execution.name)
        except MissingSecret as error:
            self._log(0, 0).system(error.hint, "ERROR")
            self._fail_before_start(str(error), CommonReason.SECRETS_ACCESS_CHECK_FAILED)
            return
        waited = (now - self.execution.create_time).total_seconds()
        config = self.platform.config
        closed = closed_world.variables(self.platform.addresses, config.allow_hosts)
        self.container = Container.of(self.execution, config, closed)
        self._set_condition("ResourcesAvailable", conditions.SUCCEEDED, conditions.PROVISIONED)
        self._set_condition("ContainerReady", conditions.SUCCEEDED, conditions.imported_message(waited))
        self._start_waiting_tasks()

    def _check_access(self, position: int, variable: run_v2.EnvVar) -> None:
        """Raise an error if the account of the execution may not read the secret of a variable."""
        name = secret_name(variable, self.execution.name)
        project = names.project_of(self.execution.name)
        account = self.execution.template.service_account or names.default_account(project)
        if name is not None and not self.platform.iam.allows(account, "secretmanager.versions.access", name):
            version = variable.value_source.secret_key_ref.version or "latest"
            number = names.project_number(names.project_of(name))
            raise MissingSecret(
                f"spec.template.spec.containers[0].env[{position}].value_from.secret_key_ref.name: Permission "
                f"denied on secret: projects/{number}/secrets/{names.short(name)}/versions/{version} for Revision "
                f"service account {account}. The service account used must be granted the 'Secret Manager Secret "
                "Accessor' role (roles/secretmanager.secretAccessor) at the secret, project or higher level.",
                hint=f"The IAM policies of {name} and of its project do not grant {account} access.",
            )

    def _fail_before_start(self, message: str, reason: int) -> None:
        """Fail the execution before any task starts."""
        self._set_condition("ContainerReady", conditions.FAILED, message, reason=reason)
        self._set_condition("Completed", conditions.FAILED, message, reason=reason)
        self.record.error = status_pb2.Status(code=9, message=message)
        self.waiting.clear()
        self._complete()

    def _start_waiting_tasks(self) -> None:
        limit = self._pb.parallelism
        while self.waiting and len(self.running) < limit:
            self._start(*self.waiting.popleft())

    def _start(self, index: int, number: int) -> None:
        platform = self.platform
        attempt = Attempt(
            listener=self,
            index=index,
            number=number,
            container=self.container,
            log=self._log(index, number),
            clock=platform.clock,
            spawner=platform.spawner,
            grace=platform.config.grace,
            forced_end=platform.faults.take_forced_end(),
        )
        write_timestamp(self._task(index).scheduled_time, platform.clock.now())
        self.running[index] = attempt
        self._pb.running_count += 1
        for name in self.container.replaced:
            attempt.log.system(
                f"The emulator replaced the variable {name} of this job: it is a closed world.", "WARNING"
            )
        files = closed_world.TaskDirectory(platform.spawner.directory())
        env = self.container.environment(index, number, files, self._secret)
        attempt.start(self.container.program(env, files))

    def _log(self, index: int, number: int) -> TaskLog:
        return TaskLog(self.platform.logs, self.log_base, index, number)

    def _secret(self, variable: run_v2.EnvVar) -> str:
        return self.platform.secrets.value(variable, self.execution.name)

    def _may_retry(self, outcome: Outcome, task: Any) -> bool:
        failed = outcome.kind in (Kind.EXITED, Kind.TIMED_OUT, Kind.OUT_OF_MEMORY)
        return failed and not self.cancelled and task.retried < task.max_retries

    def _retry(self, attempt: Attempt, task: Any) -> None:
        # retried_count counts tasks that were retried, not retries.
        self._pb.retried_count += 0 if task.retried else 1
        task.retried += 1
        self.waiting.appendleft((attempt.index, attempt.number + 1))

    def _finish_task(self, index: int, outcome: Outcome) -> None:
        now, task = self.platform.clock.now(), self._task(index)
        write_timestamp(task.completion_time, now)
        write_timestamp(task.update_time, now)
        if outcome.kind is Kind.SUCCEEDED:
            self._pb.succeeded_count += 1
            conditions.set_condition(self.record.tasks[index], "Completed", conditions.SUCCEEDED, now)
            return
        if self.cancelled:
            self._pb.cancelled_count += 1
            message, reason = conditions.CANCELLED, Reason.CANCELLED
        else:
            self._pb.failed_count += 1
            message, reason = outcome.failure_message(names.short(task.name)), _execution_reason(outcome)
            self.failure = self.failure or (outcome, message)
        conditions.set_condition(
            self.record.tasks[index], "Completed", conditions.FAILED, now, message, execution_reason=reason
        )

    def _mark_started(self) -> None:
        now = self.platform.clock.now()
        waited = (now - self.execution.create_time).total_seconds()
        self.execution.start_time = now
        self._set_condition("Started", conditions.SUCCEEDED, conditions.started_message(waited))
        self._set_condition("Completed", conditions.RUNNING, conditions.WAITING_TO_COMPLETE)
        self.store.changed.notify_all()

    def _complete_when_done(self) -> None:
        if not self.waiting and not self.running and not self.record.done:
            self._set_outcome()
            self._complete()

    def _set_outcome(self) -> None:
        if self.cancelled:
            # The operation of a cancelled execution ends without an error.
            self._set_condition(
                "Completed", conditions.FAILED, conditions.CANCELLED, execution_reason=Reason.CANCELLED
            )
        elif self.failure is not None:
            outcome, message = self.failure
            self._set_condition(
                "Completed", conditions.FAILED, message, execution_reason=_execution_reason(outcome)
            )
            self.record.error = status_pb2.Status(code=outcome.number, message=message)
        else:
            elapsed = (self.platform.clock.now() - self.execution.create_time).total_seconds()
            self._set_condition("Completed", conditions.SUCCEEDED, conditions.completed_message(elapsed))

    def _complete(self) -> None:
        self.execution.completion_time = self.platform.clock.now()
        self.execution.reconciling = False
        self.execution.observed_generation = self.execution.generation
        self.record.lifecycle = None
        self.platform.events.announce(self._ended())
        self.on_completed(self.record)
        self.store.changed.notify_all()

    def _ended(self) -> ExecutionEnded:
        execution = self.execution
        completed = next(each for each in execution.conditions if each.type_ == "Completed")
        failed = completed.state == conditions.FAILED
        seconds = (execution.completion_time - execution.create_time).total_seconds()
        tasks = {
            "succeeded": execution.succeeded_count,
            "failed": execution.failed_count,
            "cancelled": execution.cancelled_count,
            "retried": execution.retried_count,
        }
        outcome = "cancelled" if self.cancelled else "failed" if failed else "succeeded"
        return ExecutionEnded(execution.name, outcome, seconds, tasks, completed.message)

    def _set_condition(self, type_: str, state: int, message: str, **reason: int) -> None:
        now = self.platform.clock.now()
        self.execution.update_time = now
        conditions.set_condition(self.execution, type_, state, now, message, **reason)


def _execution_reason(outcome: Outcome) -> int:
    return Reason.NON_ZERO_EXIT_CODE if outcome.kind is Kind.EXITED else Reason.EXECUTION_REASON_UNDEFINED
