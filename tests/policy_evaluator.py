"""What a policy of AWS or Aliyun allows: as its reference says, for the conditions that we use.

Sources: "Policy evaluation logic" and "IAM JSON policy elements: Condition operators" of AWS;
"Policy structure and syntax" of RAM. An explicit Deny wins, and what nothing allows is denied.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from typing import Any

Context = Mapping[str, str]


def allows(policy: Mapping[str, Any], action: str, resource: str, context: Context) -> bool:
    """Return whether a request is allowed. context: its condition keys, which may be missing"""
    effects = {
        statement["Effect"]
        for statement in policy["Statement"]
        if _listed(statement["Action"], action, fold=True)
        and _listed(statement["Resource"], resource)
        and _holds(statement.get("Condition", {}), context)
    }
    assert effects <= {"Allow", "Deny"}
    return effects == {"Allow"}


def _listed(patterns: str | list[str], text: str, *, fold: bool = False) -> bool:
    some = [patterns] if isinstance(patterns, str) else patterns
    flags = re.I if fold else 0
    return any(re.fullmatch(fnmatch.translate(one), text, flags) for one in some)


def _holds(condition: Mapping[str, Mapping[str, Any]], context: Context) -> bool:
    """Return whether every operator and every key of a condition holds."""
    return all(
        _OPERATORS[operator](context.get(key), values)
        for operator, keys in condition.items()
        for key, values in keys.items()
    )


_OPERATORS: Mapping[str, Callable[[str | None, Any], bool]] = {
    "Null": lambda value, operand: (value is None) is (_only(operand) == "true"),
    "Bool": lambda value, operand: value is not None and value == _only(operand),
    "StringEquals": lambda value, operand: value is not None and value in _all(operand),
    "StringLike": lambda value, operand: value is not None and _listed(_all(operand), value),
}


def _all(values: str | list[str]) -> list[str]:
    return [values] if isinstance(values, str) else values


def _only(values: str | list[str]) -> str:
    (value,) = _all(values)
    return value
