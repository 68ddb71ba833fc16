"""Interpret the subset of the Workflows language that workflow.yaml uses."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

EXPRESSION = re.compile(r"\$\{(.+)\}", re.DOTALL)


class CallFailed(Exception):
    """A call of the workflow raised an error."""


class Value(dict[str, Any]):
    """A map whose keys are also attributes: `execution.metadata.name`."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


class Workflow:
    """Runs the steps of `main`; `call` performs a call, `environment` has the built-in variables."""

    def __init__(self, call: Callable[[str, dict[str, Any]], Any], environment: dict[str, str]) -> None:
        self._call = call
        self._variables: dict[str, Any] = {
            "sys": SimpleNamespace(get_env=environment.__getitem__),
            "map": SimpleNamespace(get=lambda value, key: value.get(key)),
            "json": SimpleNamespace(encode_to_string=json.dumps),
            "default": lambda value, other: other if value is None else value,
        }

    def run(self, workflow: dict[str, Any], argument: dict[str, Any]) -> Any:
        main = workflow["main"]
        self._variables |= dict.fromkeys(main.get("params", []), argument)
        return self._steps(main["steps"])

    def _steps(self, steps: list[dict[str, Any]]) -> Any:
        for step in steps:
            [body] = step.values()
            if "return" in body:
                return self.evaluate(body["return"])
            self._step(body)
        return None

    def _step(self, body: dict[str, Any]) -> None:
        if "assign" in body:
            for assignment in body["assign"]:
                self._variables |= {name: self.evaluate(value) for name, value in assignment.items()}
        elif "raise" in body:
            raise CallFailed(self.evaluate(body["raise"]))
        elif "try" in body:
            self._try(body)
        else:
            result = self._call(body["call"], self.evaluate(body["args"]))
            if "result" in body:
                self._variables[body["result"]] = result

    def _try(self, body: dict[str, Any]) -> None:
        try:
            self._step(body["try"])
        except CallFailed as error:
            self._variables[body["except"]["as"]] = error.args[0]
            self._steps(body["except"]["steps"])

    def evaluate(self, value: Any) -> Any:
        """Return the value with its expressions replaced; most are also Python's."""
        if isinstance(value, dict):
            return Value({key: self.evaluate(each) for key, each in value.items()})
        if isinstance(value, list):
            return [self.evaluate(each) for each in value]
        match = EXPRESSION.fullmatch(value) if isinstance(value, str) else None
        return eval(match[1], {"__builtins__": {}}, self._variables) if match else value
