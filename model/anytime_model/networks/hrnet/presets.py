"""Sizes of the HRNets: widths and depths of each preset.

Widths and depths follow HRNet v2 (Wang et al., TPAMI 2020) as the paper uses it. The paper's W18 is
HRNet-W18-Small-v2. `tiny` has the same structure at toy size, for tests.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preset:
    """One network size.

    Attributes:
        name: what users call it.
        width: channels C of the branch at 1/4 resolution; the branches below have 2C, 4C, 8C.
        stem: channels of the stem and of the bottlenecks of stage 1, which puts out four times as
            many.
        bottlenecks: residual bottlenecks in stage 1.
        modules: multi-resolution modules in stages 2, 3 and 4.
        blocks: basic blocks in each branch of a module.
        head_width: channels inside a redesigned segmentation exit.
    """

    name: str
    width: int
    stem: int
    bottlenecks: int
    modules: tuple[int, int, int]
    blocks: int
    head_width: int

    @property
    def stage_widths(self) -> tuple[tuple[int, ...], ...]:
        """Channels of every branch after each of the four stages, finest branch first."""
        c = self.width
        return ((4 * self.stem,), (c, 2 * c), (c, 2 * c, 4 * c), (c, 2 * c, 4 * c, 8 * c))


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("tiny", 4, stem=8, bottlenecks=1, modules=(1, 1, 1), blocks=1, head_width=8),
        Preset("w18", 18, stem=64, bottlenecks=2, modules=(1, 3, 2), blocks=2, head_width=64),
        Preset("w32", 32, stem=64, bottlenecks=4, modules=(1, 4, 3), blocks=4, head_width=64),
        Preset("w48", 48, stem=64, bottlenecks=4, modules=(1, 4, 3), blocks=4, head_width=128),
    )
}
