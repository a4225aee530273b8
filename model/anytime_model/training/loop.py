"""The training loop: epochs of steps, masks from their epoch on, progress files and checks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from anytime_model.confidence import Criterion
from anytime_model.data.loading import AugmentedSet, EpochOrder, epoch_batches, steps_per_epoch
from anytime_model.networks.base import Network
from anytime_model.tasks import TASKS
from anytime_model.training import progress as progress_file
from anytime_model.training.curves import Curves
from anytime_model.training.processes import ALONE, ProcessRank
from anytime_model.training.progress import TrainingProgress
from anytime_model.training.recipe import Recipe
from anytime_model.training.stopping import TrainingStoppedError
from anytime_model.training.train_step import StepReport, TrainStep

PROGRESS = "progress.pt"
CURVES = "curves.csv"


def columns(num_exits: int) -> tuple[str, ...]:
    """Columns of the curves of a network with so many exits."""
    exits = range(1, num_exits + 1)
    return (
        "epoch",
        "rate",
        "loss",
        *(f"loss_{k}" for k in exits),
        *(f"active_{k}" for k in exits[:-1]),
        "gradient",
        *(f"check_{k}" for k in exits),
        "seconds_per_step",
    )


class Callback(Protocol):
    """Called as a training goes on."""

    def step(self, epoch: int, done: int, total: int, report: StepReport) -> None:
        """A step was made: `done` of `total` of the whole training."""
        ...

    def checked(self, epoch: int, scores: tuple[float, ...]) -> None:
        """The check split was scored, one value for each exit."""
        ...


Check = Callable[[Network], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class CheckpointPolicy:
    """How often progress is saved, scored and recorded.

    Attributes:
        save_s: seconds between progress files inside an epoch; one is written after each epoch.
        check_epochs: epochs between scorings of the check split.
        row_steps: steps that a row of the curves averages.
    """

    save_s: float = 120.0
    check_epochs: int = 5
    row_steps: int = 20


class Training:
    """A training that can stop after any step and go on from there.

    Args:
        recipe: what to do.
        train_step: network and optimiser.
        data: what to learn from.
        folder: where progress and curves go.
        callback: called after each step and each check.
        check: scores a network on the check split, or None.
        process: this process among others.
        workers: processes that load and augment.
        policy: how often to save and check.
        stop: asked after each step whether to stop.
    """

    def __init__(
        self,
        recipe: Recipe,
        train_step: TrainStep,
        data: AugmentedSet,
        folder: Path,
        callback: Callback,
        *,
        check: Check | None = None,
        process: ProcessRank = ALONE,
        workers: int = 0,
        policy: CheckpointPolicy = CheckpointPolicy(),
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.step = 0
        self.epoch = 0
        self.step_in_epoch = 0
        self._train_step = train_step
        self._data = data
        self._folder = folder
        self._callback = callback
        self._check = check
        self._process = process
        self._workers = workers
        self._policy = policy
        self._stop = stop
        self._saved_step = 0
        self._earlier_curves: Path | None = None
        self._per_epoch = steps_per_epoch(len(data), recipe.batch)
        self._recipe = recipe = recipe.ending_after(self._per_epoch)
        self._steps = recipe.steps or 0
        self._criteria = training_criteria(recipe)

    def resume(self, path: Path, siblings: Iterable[str] = ()) -> None:
        """Go on from a progress file of this recipe.

        Args:
            path: the file.
            siblings: names of other recipes whose progress will do.

        Raises:
            CheckpointError: it cannot be used.
        """
        found = progress_file.load(path, self._recipe.name, *siblings)
        self.step, self.epoch, self.step_in_epoch = found.step, found.epoch, found.step_in_epoch
        self._saved_step = found.step
        self._earlier_curves = path.parent / CURVES
        progress_file.restore(self._train_step.plain, found.network, path)
        for optimiser, state in zip(self._train_step.optimisers, found.optimisers, strict=True):
            optimiser.load_state_dict(state)
        if self._train_step.average and found.average:
            self._train_step.average.load(found.average)

    def run(self) -> None:
        """Train to the recipe's last epoch.

        Raises:
            TrainingStoppedError: stopped, or out of memory. TrainingProgress can be gone on from.
            CheckpointError: the disk is full. The progress before is kept.
        """
        curves = None
        if self._process.leads:
            self._folder.mkdir(parents=True, exist_ok=True)
            names = columns(self._recipe.network.num_exits)
            curves = Curves(self._folder / CURVES, names, self.step, self._earlier_curves)
        try:
            while self.step < self._steps:
                self._epoch(curves)
        except (MemoryError, RuntimeError) as error:
            if not _is_memory(error):
                raise
            raise TrainingStoppedError(
                f"out of memory in step {self.step + 1}",
                self._saved_step,
                "Resume with a smaller --batch, or on a larger device.",
            ) from error

    def save(self) -> None:
        """Write the progress file, on the leading process."""
        if not self._process.leads:
            return
        train_step = self._train_step
        progress_file.save(
            TrainingProgress(
                recipe=self._recipe.name,
                step=self.step,
                epoch=self.epoch,
                step_in_epoch=self.step_in_epoch,
                network=train_step.plain.state_dict(),
                average=train_step.average.tensors if train_step.average else None,
                optimisers=[o.state_dict() for o in train_step.optimisers],
            ),
            self._folder / PROGRESS,
        )
        self._saved_step = self.step

    def averaged(self) -> dict[str, Tensor]:
        """The weights to keep: the average where there is one."""
        average = self._train_step.average
        return average.tensors if average else self._train_step.plain.state_dict()

    def _epoch(self, curves: Curves | None) -> None:
        recipe, process = self._recipe, self._process
        order = EpochOrder(
            len(self._data),
            recipe.batch,
            self.epoch,
            recipe.seed,
            process.rank,
            process.world,
            self.step_in_epoch,
        )
        masked = recipe.adaptivity and self.epoch >= recipe.adaptivity.starts(recipe.epochs)
        criteria = self._criteria if masked else None
        row: list[StepReport] = []
        saved_s = began_s = time.monotonic()
        for batch in epoch_batches(self._data, order, self._workers):
            factor = recipe.schedule.factor(self.step, self._per_epoch, self._steps)
            report = self._train_step.step(batch, self.step, factor, criteria)
            self.step += 1
            self.step_in_epoch += 1
            row.append(report)
            self._callback.step(self.epoch, self.step, self._steps, report)
            now_s = time.monotonic()
            if curves and len(row) == self._policy.row_steps:
                values = _mean(row) | {
                    "epoch": self.epoch,
                    "rate": recipe.optimiser.rate * factor,
                    "seconds_per_step": (now_s - began_s) / len(row),
                }
                curves.add(self.step, values)
                row, began_s = [], now_s
            if now_s - saved_s > self._policy.save_s:
                self.save()
                saved_s = now_s
            if self._stop():
                self.save()
                raise TrainingStoppedError(
                    f"stopped after step {self.step}",
                    self._saved_step,
                    "Go on with --resume.",
                )
            if self.step == self._steps:
                break
        self.epoch += 1
        self.step_in_epoch = 0
        if process.leads and self._check and self._check_is_due():
            self._score(curves)
        self.save()

    def _check_is_due(self) -> bool:
        return self.epoch % self._policy.check_epochs == 0 or self.step == self._steps

    def _score(self, curves: Curves | None) -> None:
        """Score the averaged weights, and put the trained ones back."""
        network = self._train_step.plain
        trained = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        network.load_state_dict(self.averaged())
        try:
            scores = self._check(network) if self._check else ()
        finally:
            network.load_state_dict(trained)
        self._callback.checked(self.epoch, scores)
        if curves:
            values = {f"check_{k}": score for k, score in enumerate(scores, start=1)}
            curves.add(self.step, values | {"epoch": self.epoch})


def training_criteria(recipe: Recipe) -> tuple[Criterion | None, ...] | None:
    """The masks that a recipe trains with, one for each exit; None if it has none."""
    if recipe.adaptivity is None:
        return None
    task = TASKS[recipe.network.task]
    name = task.first_criterion
    return (*(task.criterion(name, value) for value in recipe.adaptivity.thresholds), None)


def _mean(reports: list[StepReport]) -> dict[str, float]:
    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    exits = zip(*(r.exits for r in reports), strict=True)
    active = zip(*(r.active for r in reports), strict=True)
    return {
        "loss": mean([r.loss for r in reports]),
        "gradient": mean([r.gradient for r in reports]),
        **{f"loss_{k}": mean(list(v)) for k, v in enumerate(exits, start=1)},
        **{f"active_{k}": mean(list(v)) for k, v in enumerate(active, start=1)},
    }


def _is_memory(error: Exception) -> bool:
    """Whether an error is about memory; torch's allocator on the CPU has no type of its own."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "memory" in str(error)
