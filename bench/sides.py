"""How often a pose model takes left for right: joints found where the label has the other side.

A joint counts as swapped if it is found more than half a head from its label and within half a head
of the label of its other side. Crossed or closed limbs, where both sides are near, count too.

    python bench/sides.py --data LSPET --split val weights/lspet-w18.safetensors ...
"""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from anytime_model.evaluation import ladder
from anytime_model.evaluation.run import MaskOptions

NEAR = 0.5
"""Heads within which a joint is right, as in PCKh@0.5."""


def swapped(found, joints, head_px, flip):
    """Which of the joints are swapped, and which could be: (J,) boolean each."""
    side = np.arange(len(joints)) != flip
    known = (joints[:, 2] > 0) & side
    own = np.linalg.norm(found[:, :2] - joints[:, :2], axis=1)
    other = np.linalg.norm(found[:, :2] - joints[flip, :2], axis=1)
    near_other = (other <= NEAR * head_px) & (joints[flip, 2] > 0)
    return known & (own > NEAR * head_px) & near_other, known


def measure(weights, data, split):
    """The share of swapped joints after each rung, all rungs made."""
    prepared = ladder.prepare(weights, data, split, MaskOptions())
    source, criteria = prepared.source, prepared.masked.rung_criteria()
    flip = np.asarray(source.skeleton.flip)
    counts = np.zeros((len(criteria), 2))
    for index in range(len(source)):
        sample = source[index]
        climbing = prepared.engine.begin(sample.image)
        for rung, criterion in enumerate(criteria, start=1):
            found = prepared.engine.decode(climbing.advance(criterion, rung=rung)).points
            counts[rung - 1] += [
                part.sum() for part in swapped(found, sample.joints, sample.head_px, flip)
            ]
    return counts[:, 0] / counts[:, 1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="val")
    arguments = parser.parse_args()
    table = Table(title=f"swapped joints, % of those that have sides, {arguments.split}")
    table.add_column("weights")
    table.add_column("after each rung", justify="right")
    for weights in arguments.weights:
        shares = measure(weights, arguments.data, arguments.split)
        table.add_row(weights.stem, " / ".join(f"{100 * share:.1f}" for share in shares))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
