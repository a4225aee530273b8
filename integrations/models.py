"""The model that an integration uses."""

from __future__ import annotations

from collections.abc import Iterable

from anytime_client import ModelInfo, Task


def choose_model(models: Iterable[ModelInfo], task: Task, name: str | None = None) -> ModelInfo:
    """The model of a task by its name, or the server's first.

    Raises:
        ValueError: the server has none.
    """
    of_task = {model.name: model for model in models if model.task is task}
    if not of_task or (name is not None and name not in of_task):
        found = ", ".join(of_task) or "none"
        wanted = f"the model {name!r}" if name else f"a model for {task}"
        raise ValueError(f"expected {wanted}, found {found} for {task}; see `anytime models`")
    return of_task[name] if name is not None else next(iter(of_task.values()))
