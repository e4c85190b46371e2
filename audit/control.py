"""The registry of controls: one requirement each, as a test function that reads as a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from audit.contracts import TASKS

F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class ControlSpec:
    """What a control states, before it runs.

    Attributes:
        id: stable id such as ``DET-PATCH-WB``; a variant is ``DET-PATCH-WB/patch-iou``.
        title: the statement when it holds. failure: the statement when it does not.
        goal: what the owner wants. refs: ids of the reference list. task: one of ``audit.contracts.TASKS``.
        threat: who the attacker is and what they can do. remediation: what to do about a failure.
    """

    id: str
    title: str
    failure: str
    goal: str
    refs: tuple[str, ...]
    task: str
    threat: str
    remediation: str


REGISTRY: dict[str, ControlSpec] = {}
ATTRIBUTE = "__audit_control__"


def control(
    id: str,
    *,
    title: str,
    failure: str,
    goal: str,
    refs: Sequence[str],
    threat: str,
    remediation: str,
    task: str = "detector",
) -> Callable[[F], F]:
    """Declare a test function as a control. All texts are required; ids are unique.

    Raises:
        ValueError: an empty text, an unknown task, or an id that another function holds.
    """
    spec = ControlSpec(id, title, failure, goal, tuple(refs), task, threat, remediation)
    empty = [k for k in ("id", "title", "failure", "goal", "refs", "threat", "remediation") if not getattr(spec, k)]
    if empty:
        raise ValueError(f"control {id!r}: {', '.join(empty)} must not be empty")
    if task not in TASKS:
        raise ValueError(f"control {id!r}: task must be one of {', '.join(TASKS)}, got {task!r}")

    def register(function: F) -> F:
        home = f"{function.__module__}.{function.__qualname__}"
        held = _HOMES.get(id)
        if held not in (None, home):
            raise ValueError(f"control id {id!r} is held by {held} already; give {home} another")
        REGISTRY[id] = spec
        _HOMES[id] = home
        setattr(function, ATTRIBUTE, spec)
        return function

    return register


_HOMES: dict[str, str] = {}


def base(full_id: str) -> str:
    """``DET-PATCH-WB`` of ``DET-PATCH-WB/patch-iou``."""
    return full_id.partition("/")[0]


def variant(full_id: str) -> str:
    """``patch-iou`` of ``DET-PATCH-WB/patch-iou``; empty where there is none."""
    return full_id.partition("/")[2]
