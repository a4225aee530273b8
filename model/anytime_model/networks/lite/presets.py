"""Sizes of the lite networks: the rows of EfficientNet's table, cut into stages at the exits.

Rows are those of EfficientNet-B0 (Tan and Le, ICML 2019, table 1). Its Lite0 has no
squeeze-and-excitation, ReLU6 for swish, and the same stem and last row whatever the size. `tiny`
has the same structure at toy size, for tests.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: a chain of inverted residuals of one width.

    Attributes:
        kernel: side of the depthwise kernels.
        stride: of the first block, 1 or 2.
        expansion: how many times wider blocks are inside than at their input.
        width: channels that blocks put out.
        blocks: how many.
    """

    kernel: int
    stride: int
    expansion: int
    width: int
    blocks: int


@dataclass(frozen=True, slots=True)
class LitePreset:
    """One network size.

    Attributes:
        name: what users call it.
        stem: channels of the first convolution, which halves the resolution.
        stages: rows of each stage; the last row of a stage makes its exit's coarsest map.
        head_widths: channels inside each exit.
    """

    name: str
    stem: int
    stages: tuple[tuple[Row, ...], ...]
    head_widths: tuple[int, ...]


MAP_STRIDES = (4, 8, 16, 16, 32)
"""Px of the image for each cell of the maps that exits read: two of stage 1, one of each later."""


def _stages(widths: tuple[int, ...], blocks: tuple[int, ...]) -> tuple[tuple[Row, ...], ...]:
    rows = [
        Row(kernel, stride, expansion, width, count)
        for (kernel, stride, expansion), width, count in zip(
            ((3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6), (5, 2, 6), (3, 1, 6)),
            widths,
            blocks,
            strict=True,
        )
    ]
    return (tuple(rows[:3]), (rows[3],), (rows[4],), tuple(rows[5:]))


PRESETS = {
    preset.name: preset
    for preset in (
        LitePreset("tiny", 4, _stages((4, 4, 6, 6, 8, 8, 8), (1, 1, 1, 1, 1, 1, 1)), (8, 8, 8, 8)),
        LitePreset(
            "lite0",
            32,
            _stages((16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1)),
            (64, 64, 64, 96),
        ),
    )
}
