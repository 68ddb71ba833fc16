"""Fault injection: make calls, deliveries and task attempts fail a given number of times."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any, Literal

from cloudrun_jobs.emulator.engine.outcomes import Kind
from cloudrun_jobs.emulator.errors import ServiceError, quota_exceeded

FaultKind = Literal[
    "fail", "fail_after", "delay", "exhaust", "cold_start", "double_delivery", "lose_response", "out_of_memory",
    "infrastructure_retry",
]  # fmt: skip
METHOD_FAULTS = ("fail", "fail_after", "delay", "exhaust")
OTHER_FAULTS = ("cold_start", "double_delivery", "lose_response", "out_of_memory", "infrastructure_retry")
OPTION_TYPES = {"method": str, "code": str, "message": str, "times": int | None, "seconds": int | float}
MAX_SECONDS = 366 * 24 * 3600.0


class InvalidFault(ValueError):
    """The fault or its method does not exist, or an option of it is invalid."""


@dataclass(slots=True)
class Fault:
    """One planned fault. `times` is the remaining number of uses; None is unlimited."""

    what: FaultKind
    method: str
    times: int | None
    seconds: float
    error: ServiceError | None


class Faults:
    """The planned faults. A method is a service and an RPC, ``Jobs.RunJob``; ``*`` is every method.

    `times` is how often a fault occurs; None is unlimited.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self.methods: frozenset[str] = frozenset()

    def fail(
        self,
        method: str,
        code: str = "UNAVAILABLE",
        message: str = "The service is unavailable.",
        times: int | None = 1,
    ) -> None:
        """Fail a call before the work is done."""
        self._add("fail", method, times, error=ServiceError(code, message))

    def fail_after(
        self,
        method: str,
        code: str = "UNAVAILABLE",
        message: str = "The connection was lost.",
        times: int | None = 1,
    ) -> None:
        """Do the work, then return an error: an ambiguous failure."""
        self._add("fail_after", method, times, error=ServiceError(code, message))

    def delay(self, method: str, seconds: float, times: int | None = None) -> None:
        """Do the work, then delay the response by this many real seconds."""
        self._add("delay", method, times, seconds)

    def exhaust(self, method: str, times: int | None = 1) -> None:
        """Fail a call with the error of an exhausted quota."""
        self._add("exhaust", method, times, error=quota_exceeded(method))

    def cold_start(self, seconds: float, times: int | None = 1) -> None:
        """Delay the first task of the next execution by this many seconds of the emulator's clock."""
        self._add("cold_start", "", times, seconds)

    def double_delivery(self, times: int | None = 1) -> None:
        """Repeat the next delivery of Cloud Scheduler or Cloud Tasks."""
        self._add("double_delivery", "", times)

    def lose_response(self, times: int | None = 1) -> None:
        """Lose the response to the next such delivery, which then counts as failed."""
        self._add("lose_response", "", times)

    def out_of_memory(self, times: int | None = 1) -> None:
        """Kill the next attempt as if it had exceeded its memory limit."""
        self._add("out_of_memory", "", times)

    def infrastructure_retry(self, times: int | None = 1) -> None:
        """Kill the next attempt when it has started and run it again, without counting a retry."""
        self._add("infrastructure_retry", "", times)

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def plan(self, what: str, **options: Any) -> None:
        """Plan a fault by its name, for the admin API."""
        if what not in (*METHOD_FAULTS, *OTHER_FAULTS):
            raise InvalidFault(
                f"expected a fault among {', '.join((*METHOD_FAULTS, *OTHER_FAULTS))}; got {what!r}"
            )
        parameters = signature(getattr(self, what)).parameters
        for name, value in options.items():
            if name not in parameters:
                raise InvalidFault(f"expected {', '.join(parameters)} for {what}, got {name}")
            if not isinstance(value, OPTION_TYPES[name]):
                raise InvalidFault(f"expected another type of {name}, got {value!r}")
        for name, parameter in parameters.items():
            if parameter.default is Parameter.empty and name not in options:
                raise InvalidFault(f"expected {name} for {what}, got none")
        getattr(self, what)(**options)

    def pending(self) -> list[dict[str, Any]]:
        with self._lock:
            return [{"what": fault.what, "method": fault.method, "times": fault.times} for fault in self._faults]

    def raise_before(self, method: str) -> None:
        """Raise the planned error, if any, before the work of a method."""
        for what in ("fail", "exhaust"):
            fault = self._take(what, method)
            if fault is not None and fault.error is not None:
                raise fault.error

    def take_delay(self, method: str) -> float:
        fault = self._take("delay", method)
        return 0.0 if fault is None else fault.seconds

    def raise_after(self, method: str) -> None:
        fault = self._take("fail_after", method)
        if fault is not None and fault.error is not None:
            raise fault.error

    def take_cold_start(self) -> float:
        fault = self._take("cold_start")
        return 0.0 if fault is None else fault.seconds

    def take_double_delivery(self) -> bool:
        return self._take("double_delivery") is not None

    def take_lost_response(self) -> bool:
        return self._take("lose_response") is not None

    def take_forced_end(self) -> Kind | None:
        """Return how the next attempt must end, or None if no fault is planned."""
        if self._take("out_of_memory") is not None:
            return Kind.OUT_OF_MEMORY
        return Kind.INFRASTRUCTURE if self._take("infrastructure_retry") is not None else None

    def _add(
        self,
        what: FaultKind,
        method: str,
        times: int | None,
        seconds: float = 0,
        error: ServiceError | None = None,
    ) -> None:
        if what in METHOD_FAULTS and method not in ("*", *self.methods):
            raise InvalidFault(f"expected a method among {', '.join(sorted(self.methods))}; got {method!r}")
        if times is not None and times < 1:
            raise InvalidFault(f"expected 1 time or more, or no limit; got {times}")
        if not 0 <= seconds <= MAX_SECONDS:
            raise InvalidFault(f"expected 0 to {MAX_SECONDS:.0f} seconds, got {seconds}")
        with self._lock:
            self._faults.append(Fault(what, method, times, seconds, error))

    def _take(self, what: str, method: str = "") -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.what == what and fault.method in ("*", method):
                    return self._use(fault)
        return None

    def _use(self, fault: Fault) -> Fault:
        if fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                self._faults.remove(fault)
        return fault
