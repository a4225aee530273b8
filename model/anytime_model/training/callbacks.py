"""Callbacks that show a training: a progress bar for a terminal, lines for a log file."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from anytime_model.training.train_step import StepReport


class LogLines:
    """A line every so many steps, for logs: steps, losses, rate and time left.

    Args:
        console: where to.
        every: steps between lines.
    """

    def __init__(self, console: Console, every: int = 20) -> None:
        self._console = console
        self._every = every
        self._began_s: float | None = None
        self._first = 0

    def step(self, epoch: int, done: int, total: int, report: StepReport) -> None:
        """See `loop.Callback`."""
        now_s = time.monotonic()
        if self._began_s is None:
            self._began_s, self._first = now_s, done
        if done % self._every:
            return
        pace_s = (now_s - self._began_s) / max(1, done - self._first)
        left_min = pace_s * (total - done) / 60
        exits = " ".join(f"{loss:.3f}" for loss in report.exits)
        self._console.print(
            f"epoch {epoch} step {done}/{total} losses {exits} "
            f"{pace_s:.2f} s/step {left_min:.0f} min left",
            soft_wrap=True,
        )

    def checked(self, epoch: int, scores: tuple[float, ...]) -> None:
        """See `loop.Callback`."""
        self._console.print(f"epoch {epoch}: " + _scores(scores), soft_wrap=True)


class ProgressBar:
    """A progress bar with rate and time left; use it as a context.

    Args:
        console: a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
            console=console,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def step(self, epoch: int, done: int, total: int, report: StepReport) -> None:
        """See `loop.Callback`."""
        if self._task is None:
            self._task = self._progress.add_task(
                "", total=total, completed=done - 1, epoch=epoch, rate="", losses=""
            )
        task = self._progress.tasks[self._task]
        rate = f"{task.speed:.2f} steps/s" if task.speed else ""
        losses = " ".join(f"{loss:.3f}" for loss in report.exits)
        self._progress.update(self._task, completed=done, epoch=epoch, rate=rate, losses=losses)

    def checked(self, epoch: int, scores: tuple[float, ...]) -> None:
        """See `loop.Callback`."""
        self._progress.console.print(f"epoch {epoch}: " + _scores(scores))


def _scores(scores: tuple[float, ...]) -> str:
    return " ".join(f"exit {k} {100 * score:.2f}" for k, score in enumerate(scores, start=1))
