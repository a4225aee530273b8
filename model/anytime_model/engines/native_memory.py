"""Plans of the native engine: one for each image size, the last used kept, within bounded memory.

A plan is a program with its buffers at one size. It also keeps the run buffers of images that are
done, for the next ones. When a new size does not fit beside the others, the sizes unused for
longest go first; a plan whose runs are under way is never dropped.
"""

from collections import OrderedDict
from ctypes import c_int32

from anytime_model.engines.native_program import Operation, Program
from anytime_model.errors import ImageError
from anytime_model.kernels.handles import ModelHandle, PlanHandle, RunHandle
from anytime_model.kernels.library import (
    TERMS,
    Library,
    Op,
    OutOfMemoryError,
    Place,
    Slot,
)

MOST_SIDE = 32768
"""Of a padded image, px: what the kernels' packed coordinates can hold."""


class Plan:
    """A program at one image size, with the run buffers that are free."""

    def __init__(self, handle: PlanHandle) -> None:
        self._handle = handle
        self._idle: list[RunHandle] = []
        self._out = 0

    @property
    def in_use(self) -> bool:
        """Whether an image of this size is under way."""
        return self._out > 0

    @property
    def bytes(self) -> int:
        """Of all its buffers."""
        runs = len(self._idle) + self._out
        return self._handle.scratch_bytes + runs * self._handle.run_bytes

    @property
    def next_run_bytes(self) -> int:
        """What another run would add."""
        return 0 if self._idle else self._handle.run_bytes

    def take_run(self) -> RunHandle:
        """Buffers for an image."""
        run = self._idle.pop() if self._idle else RunHandle(self._handle)
        self._out += 1
        return run

    def give_back(self, run: RunHandle) -> None:
        """The image is done, or given up."""
        self._out -= 1
        self._idle.append(run)

    def drop_idle(self) -> None:
        """Free the buffers that no image uses."""
        self._idle.clear()


class Plans:
    """Plans by padded size."""

    def __init__(self, library: Library, isa: str, program: Program, memory_bytes: int) -> None:
        self._model = ModelHandle(library, isa)
        for conv in program.convs:
            self._model.add_conv(conv.weights, conv.stride, dense=conv.dense)
        for norm in program.norms:
            self._model.add_norm(norm.bias, norm.shift, norm.window)
        self._buffers = program.buffers
        self._slots = [Slot(b.level, b.channels, b.floats, b.place) for b in program.buffers]
        self._ops = [_op(operation) for operation in program.operations]
        self._ends = program.ends
        self._element_bytes = 2 if isa.endswith("bf16") else 4
        self._memory_bytes = memory_bytes
        self._plans: OrderedDict[tuple[int, int], Plan] = OrderedDict()

    @property
    def bytes(self) -> int:
        """Of all plans."""
        return sum(plan.bytes for plan in self._plans.values())

    def take_run(self, height: int, width: int) -> tuple[Plan, RunHandle]:
        """The plan for a padded size, and buffers for an image.

        Raises:
            ImageError: the size needs more memory than there may be or is.
        """
        plan = self._plans.pop((height, width), None)
        try:
            if plan is None:
                plan = self._new(height, width)
            self._make_room(plan.next_run_bytes + plan.bytes, (height, width))
            self._plans[height, width] = plan
            return plan, plan.take_run()
        except OutOfMemoryError as e:
            raise ImageError(_too_large(height, width, f"{e}")) from e

    def _new(self, height: int, width: int) -> Plan:
        if max(height, width) > MOST_SIDE:
            raise ImageError(_too_large(height, width, f"a side has at most {MOST_SIDE} px"))
        size = (height, width)
        self._make_room(self._estimate(height, width), size)
        return Plan(PlanHandle(self._model, size, self._slots, self._ops, self._ends))

    def _estimate(self, height: int, width: int) -> int:
        """Bytes of a plan with one run, before it is made; exact but for lists and windows."""
        return sum(
            ((height >> b.level) + 2)
            * ((width >> b.level) + 2)
            * b.channels
            * (4 if b.floats else self._element_bytes)
            for b in self._buffers
            if b.place not in {Place.LOCAL, Place.WINDOW}
        )

    def _make_room(self, wanted: int, size: tuple[int, int]) -> None:
        for plan in self._plans.values():
            if self.bytes + wanted <= self._memory_bytes:
                return
            plan.drop_idle()
        for key in [key for key, plan in self._plans.items() if not plan.in_use]:
            if self.bytes + wanted <= self._memory_bytes:
                return
            del self._plans[key]
        if self.bytes + wanted > self._memory_bytes:
            raise ImageError(
                _too_large(
                    *size,
                    f"it needs {wanted >> 20} MiB of {self._memory_bytes >> 20} MiB, of which "
                    f"other images hold {self.bytes >> 20} MiB",
                )
            )


def _op(operation: Operation) -> Op:
    sources = operation.sources
    return Op(
        operation.kind,
        operation.where,
        operation.conv,
        operation.norm,
        operation.relu,
        operation.keep,
        operation.out,
        operation.first,
        operation.residual,
        operation.pool,
        operation.together,
        operation.banded,
        len(sources),
        (c_int32 * TERMS)(*sources, *[-1] * (TERMS - len(sources))),
    )


def _too_large(height: int, width: int, why: str) -> str:
    return f"an image of {height}x{width} px (padded) cannot be run: {why}. Send a smaller one."
