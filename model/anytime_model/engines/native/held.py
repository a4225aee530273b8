"""The program of a video's frames: every map that a layer looks at is held for the next frame.

In a program for single images, buffers are used again as soon as nobody reads them, and much of
the first stage only ever exists a few rows at a time. Here every map from 1/4 of the image on has a
buffer of its own, which a cache holds from frame to frame; weights and sums are the same. The
larger maps of the stem are made anew around what is computed, from the image. See Cache in
kernels/native/held.hpp.
"""

from dataclasses import replace

from anytime_model.engines.native.program import MAP_LEVEL, Buffer, Operation, Program
from anytime_model.kernels.library import Kind, Storage, Where

MOST_STAGES = 8
"""That the kernels tell apart in a cache."""


def held_program(program: Program) -> Program | None:
    """The same network for a video's frames; None where features cannot be held.

    They cannot in networks without masks, whose exits may be left out.
    """
    everywhere = any(one.where is Where.EVERYWHERE for one in program.operations)
    if everywhere or program.heads or len(program.ends) > MOST_STAGES:
        return None
    buffers = [
        replace(one, storage=_storage(one)) if one.storage is Storage.WINDOW else one
        for one in program.buffers
    ]
    now = list(range(len(buffers)))
    operations = []
    for one in program.operations:
        sources, residual = tuple(now[slot] for slot in one.sources), one.residual
        if residual >= 0:
            residual = now[residual]
        if _begins_a_map(one) and _storage(buffers[one.out]) is Storage.HELD:
            now[one.out] = len(buffers)
            buffers.append(replace(buffers[one.out], slot=len(buffers), storage=Storage.HELD))
        operations.append(
            replace(one, sources=sources, residual=residual, out=now[one.out], tiled=False)
        )
    used = {0, 1, *(slot for one in operations for slot in (one.out, *one.sources, one.residual))}
    order = {slot: number for number, slot in enumerate(sorted(used - {-1}))}
    order[-1] = -1
    return replace(
        program,
        buffers=[replace(buffers[slot], slot=order[slot]) for slot in sorted(used - {-1})],
        operations=[
            replace(
                one,
                out=order[one.out],
                sources=tuple(order[slot] for slot in one.sources),
                residual=order[one.residual],
            )
            for one in operations
        ],
    )


def _storage(buffer: Buffer) -> Storage:
    """What holds a buffer in a video."""
    if buffer.slot <= 1 or buffer.storage is Storage.LOCAL:
        return buffer.storage
    return Storage.HELD if buffer.level >= MAP_LEVEL else Storage.SCRATCH


def _begins_a_map(operation: Operation) -> bool:
    """Whether an operation overwrites what was in its buffer, and adds nothing to it."""
    continues = (
        operation.kind is Kind.INTERPOLATE
        or operation.first > 0
        or operation.residual == operation.out
    )
    return not continues
