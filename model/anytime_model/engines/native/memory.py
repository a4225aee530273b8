"""Buffers of the native engines: one plan for each image size, all within one bound of memory.

A plan is a program with its buffers at one size. It also keeps the run buffers of images that are
done, for the next ones. A budget holds the plans of any number of engines. When a new size does not
fit beside the others, the plans unused for longest go first, whichever engine they belong to; a
plan whose runs are under way is never dropped. The features that videos hold count too: they are
refused where there is no room for them, and taken back where an image needs it.
"""

import threading
import weakref
from collections import OrderedDict
from ctypes import c_float, c_int32
from functools import cache

from anytime_model.engines.native.program import Operation, Program
from anytime_model.errors import InputError, NoRoomError
from anytime_model.kernels.handles import CacheHandle, ModelHandle, PlanHandle, RunHandle
from anytime_model.kernels.library import (
    ELEMENT_BYTES,
    TERMS,
    Library,
    Op,
    OutOfMemoryError,
    Slot,
    Storage,
    dtype_of,
)

DEFAULT_BYTES = 2 << 30

MOST_HELD = 0.5
"""Share of a budget that the features of videos may take."""

MOST_SIDE = 32768
"""Of a padded image, px: what the kernels' packed coordinates can hold."""

Size = tuple[int, int]


class Plan:
    """A program at one image size, with the run buffers that are free."""

    def __init__(self, handle: PlanHandle) -> None:
        self._handle = handle
        self._idle: list[RunHandle] = []
        self._taken = 0

    @property
    def in_use(self) -> bool:
        """Whether an image of this size is under way."""
        return self._taken > 0

    @property
    def bytes(self) -> int:
        """Of all its buffers."""
        runs = len(self._idle) + self._taken
        return self._handle.scratch_bytes + runs * self._handle.run_bytes

    @property
    def bytes_of_one(self) -> int:
        """With a single run."""
        return self._handle.scratch_bytes + self._handle.run_bytes

    @property
    def next_run_bytes(self) -> int:
        """What another run would add."""
        return 0 if self._idle else self._handle.run_bytes

    def take_run(self) -> RunHandle:
        """Buffers for an image."""
        run = self._idle.pop() if self._idle else RunHandle(self._handle)
        self._taken += 1
        return run

    def give_back(self, run: RunHandle) -> None:
        """The image is done, or given up."""
        run.use_cache(None)
        self._taken -= 1
        self._idle.append(run)

    def new_cache(self) -> CacheHandle:
        """Memory for the features of a video, of a program that holds them."""
        return CacheHandle(self._handle)

    def drop_idle(self) -> None:
        """Free the buffers that no image uses."""
        self._idle.clear()


class PlanMaker:
    """Makes the plans of one engine.

    Args:
        library: the kernels.
        isa: instruction set.
        program: the lowered network.
        model: its weights, if they are packed already.
    """

    def __init__(
        self, library: Library, isa: str, program: Program, model: ModelHandle | None = None
    ) -> None:
        self.model = model or _packed(library, isa, program)
        self._buffers = program.buffers
        zero = 0 if program.image_steps is None else program.image_steps.zero
        self._slots = [
            Slot(b.level, b.channels, b.floats, b.storage, 0 if b.slot else zero)
            for b in program.buffers
        ]
        self._ops = [_op(operation) for operation in program.operations]
        self._heads, self._ends = program.heads, program.ends
        self._element_bytes = ELEMENT_BYTES[dtype_of(isa)]

    def make(self, size: Size) -> Plan:
        """The plan for images padded to (H, W) px.

        Raises:
            OutOfMemoryError: there is not enough memory.
        """
        handle = PlanHandle(self.model, size, self._slots, self._ops, self._ends, heads=self._heads)
        return Plan(handle)

    def estimate(self, size: Size) -> int:
        """Bytes of a plan with one run, before it is made; exact but for lists and windows."""
        height, width = size
        return sum(
            ((height >> b.level) + 2)
            * ((width >> b.level) + 2)
            * b.channels
            * (4 if b.floats else self._element_bytes)
            for b in self._buffers
            if b.storage not in {Storage.LOCAL, Storage.WINDOW, Storage.HELD}
        )

    def estimate_held(self, size: Size) -> int:
        """Bytes of the features that one video holds."""
        height, width = size
        return sum(
            ((height >> b.level) + 2)
            * ((width >> b.level) + 2)
            * b.channels
            * (4 if b.floats else self._element_bytes)
            for b in self._buffers
            if b.storage is Storage.HELD
        )


class NativeFeatureCache:
    """The features of a video's last frame at one size, until they are taken back."""

    def __init__(self, handle: CacheHandle) -> None:
        self.handle: CacheHandle | None = handle

    @property
    def bytes(self) -> int:
        """Of memory."""
        return 0 if self.handle is None else self.handle.bytes

    @property
    def lost(self) -> bool:
        """See `FeatureCache` of engines/base.py."""
        return self.handle is None

    def take_back(self) -> None:
        """Free the memory, once the run that works in it has ended."""
        self.handle = None


class MemoryBudget:
    """One bound on the buffers of several native engines, which may run in several threads.

    Args:
        limit_bytes: on the buffers of all engines and image sizes together.
    """

    def __init__(self, limit_bytes: int = DEFAULT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self._plans: OrderedDict[tuple[int, Size], Plan] = OrderedDict()
        self._caches: weakref.WeakSet[NativeFeatureCache] = weakref.WeakSet()
        self._lock = threading.RLock()

    @property
    def used_bytes(self) -> int:
        """Bytes of all buffers held now, over all engines and sizes."""
        with self._lock:
            return self.held_bytes + sum(plan.bytes for plan in self._plans.values())

    @property
    def held_bytes(self) -> int:
        """Bytes of the features of videos; part of `used_bytes`."""
        with self._lock:
            return sum(cache.bytes for cache in self._caches)

    def take_cache(self, maker: PlanMaker, size: Size) -> NativeFeatureCache | None:
        """Memory for the features of a video padded to (H, W) px; None if there is no room.

        It counts until nobody holds it, or it is taken back.
        """
        with self._lock:
            wanted = maker.estimate_held(size)
            if self.held_bytes + wanted > MOST_HELD * self.limit_bytes:
                return None
            try:
                plan, run = self.take_run(maker, size)
                try:
                    self._make_room(wanted, size, plan, of_videos=False)
                    cache = NativeFeatureCache(plan.new_cache())
                finally:
                    plan.give_back(run)
            except (InputError, OutOfMemoryError):
                return None
            self._caches.add(cache)
            return cache

    def take_run(self, maker: PlanMaker, size: Size) -> tuple[Plan, RunHandle]:
        """An engine's plan for images padded to (H, W) px, and buffers for one of them.

        Raises:
            NoRoomError: not beside the images that are under way.
            InputError: the size needs more memory than there may be or is.
        """
        if max(size) > MOST_SIDE:
            raise InputError(_too_large(size, f"a side has at most {MOST_SIDE} px"))
        with self._lock:
            key = (id(maker), size)
            try:
                if key not in self._plans:
                    self._make_room(maker.estimate(size), size)
                    self._plans[key] = maker.make(size)
                self._plans.move_to_end(key)
                plan = self._plans[key]
                try:
                    self._make_room(plan.next_run_bytes, size, plan)
                except InputError:
                    if not plan.in_use:  # made a moment ago, and larger than estimated
                        del self._plans[key]
                    raise
                return plan, plan.take_run()
            except OutOfMemoryError as e:
                raise InputError(_too_large(size, f"{e}")) from e

    def enter(self, maker: PlanMaker) -> None:
        """Count an engine's plans here until the engine is gone."""
        weakref.finalize(maker, self._leave, id(maker)).atexit = False

    def _leave(self, maker_id: int) -> None:
        with self._lock:
            for key in [key for key in self._plans if key[0] == maker_id]:
                del self._plans[key]

    def _make_room(
        self, wanted: int, size: Size, own: Plan | None = None, *, of_videos: bool = True
    ) -> None:
        """Gives plans up until so many bytes fit, and then features.

        Args:
            wanted: bytes.
            size: of the image that they are for.
            own: the plan that they are for.
            of_videos: whether features may be taken back.
        """
        for key, plan in list(self._plans.items()):
            if self.used_bytes + wanted <= self.limit_bytes:
                return
            if plan is own:
                continue
            plan.drop_idle()
            if not plan.in_use and self.used_bytes + wanted > self.limit_bytes:
                del self._plans[key]
        for features in list(self._caches) if of_videos else ():
            if self.used_bytes + wanted > self.limit_bytes:
                features.take_back()
        held = self.used_bytes
        if held + wanted <= self.limit_bytes:
            return
        alone = wanted if own is None else own.bytes_of_one
        if alone > self.limit_bytes:
            raise InputError(
                _too_large(size, f"it needs {alone >> 20} MiB of {self.limit_bytes >> 20} MiB")
            )
        raise NoRoomError(
            f"an image of {size[0]}x{size[1]} px (padded) does not fit beside those under way: it "
            f"needs {wanted >> 20} MiB more, and {held >> 20} of {self.limit_bytes >> 20} MiB are "
            "held. Wait until one of them has ended."
        )


@cache
def process_budget() -> MemoryBudget:
    """The budget of all engines of this process that are given no other."""
    return MemoryBudget()


def _packed(library: Library, isa: str, program: Program) -> ModelHandle:
    """A program's weights, in its order."""
    model = ModelHandle(library, isa)
    for conv in program.convs:
        if conv.depthwise:
            model.add_depthwise(conv.weights, conv.stride)
        else:
            model.add_conv(
                conv.weights,
                conv.stride,
                before=conv.before,
                dense=conv.dense,
                whole=conv.whole,
            )
    for norm in program.norms:
        model.add_norm(norm.bias, norm.shift, norm.window, norm.scale)
    return model


def _op(operation: Operation) -> Op:
    sources = operation.sources
    return Op(
        operation.kind,
        operation.where,
        operation.conv,
        operation.norm,
        operation.activation,
        operation.keep,
        operation.out,
        operation.first,
        operation.residual,
        operation.pool,
        operation.fused,
        operation.tiled,
        len(sources),
        (c_int32 * TERMS)(*sources, *[-1] * (TERMS - len(sources))),
        operation.residual_scale,
        (c_float * TERMS)(*(operation.scales or (1.0,) * len(sources))),
    )


def _too_large(size: Size, why: str) -> str:
    height, width = size
    return f"an image of {height}x{width} px (padded) cannot be run: {why}. Send a smaller one."
