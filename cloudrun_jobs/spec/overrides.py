"""What one run overrides of its job: the values that Cloud Run takes with a request."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from cloudrun_jobs import conf
from cloudrun_jobs.exceptions import InvalidArguments, InvalidJob
from cloudrun_jobs.spec.frozen import Frozen
from cloudrun_jobs.spec.job import JobSpec, replaced

NO_VARIABLES: Mapping[str, str] = MappingProxyType({})


class Overrides(Frozen):
    """The number of tasks, the timeout of a task, and environment variables in addition to the job's."""

    tasks: int | None
    timeout: timedelta | None
    env: Mapping[str, str]

    def __init__(
        self,
        *,
        tasks: int | None = None,
        timeout: timedelta | None = None,
        env: Mapping[str, str] = NO_VARIABLES,
    ) -> None:
        vars(self).update(tasks=tasks, timeout=timeout, env=env)

    def updated(
        self, spec: JobSpec, *, tasks: int | None, timeout: int | timedelta | None, env: Mapping[str, str] | None
    ) -> Overrides:
        """Return these with the given values, checked like declarations. Raises `InvalidArguments`."""
        numbers = _without_none({"tasks": self.tasks, "timeout": self.timeout})
        numbers |= _without_none({"tasks": tasks, "timeout": timeout})
        variables: Any = {**self.env, **(env or {})} if isinstance(env, Mapping | None) else env
        declared = {**spec.env_vars, **variables} if isinstance(variables, dict) else variables
        for name in variables if isinstance(variables, dict) else ():
            # The container takes its settings from them.
            if str(name).startswith(conf.PREFIX) and name != conf.TEST_MODE_VARIABLE:
                message = f"{spec.command}: using(): env: {name!r} is a variable of this package."
                raise InvalidArguments(message, hint="Declare it in the settings of all processes.")
        try:
            effective = replaced(spec, {**numbers, "env_vars": declared})
        except InvalidJob as error:
            problem = error.problems[0]
            message = str(problem).replace("env_vars", "env", 1)
            raise InvalidArguments(f"{spec.command}: using(): {message}", hint=problem.hint) from None
        return Overrides(
            tasks=effective.tasks if "tasks" in numbers else None,
            timeout=effective.timeout if "timeout" in numbers else None,
            env=MappingProxyType(variables),
        )

    @property
    def given(self) -> dict[str, Any]:
        """The values that are overridden, by name, as `using()` takes them."""
        return _without_none({"tasks": self.tasks, "timeout": self.timeout, "env": dict(self.env) or None})

    def encode(self) -> dict[str, Any] | None:
        """Return the values as a record keeps them, the timeout in seconds; None if nothing is overridden."""
        values = self.given
        if self.timeout is not None:
            values["timeout"] = int(self.timeout.total_seconds())
        return values or None

    @classmethod
    def decode(cls, data: Mapping[str, Any] | None) -> Overrides:
        """Return what `encode()` returned, from the record."""
        values = data or {}
        timeout = values.get("timeout")
        return cls(
            tasks=values.get("tasks"),
            timeout=None if timeout is None else timedelta(seconds=timeout),
            env=values.get("env", NO_VARIABLES),
        )


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


NO_OVERRIDES = Overrides()
