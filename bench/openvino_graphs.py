"""A model's exits as OpenVINO graphs without masks or other exits, for `litserve_peer.py`.

    python bench/openvino_graphs.py --weights weights --model camvid-w18 --size 360x480 --out FOLDER

Writes `NUMBER.xml` for each exit of the ladder, counted through all its sizes: uint8 image at that
size in, the class of each pixel of the original size out. Sizes are not joined: each graph computes
one size alone, through the stages that its exit needs.
"""

import argparse
import warnings
from pathlib import Path

import openvino
import torch
import torch.nn.functional as F
from torch import nn

from anytime_model.checkpoint.manifest import read_manifest
from anytime_model.checkpoint.store import load_model
from anytime_model.engines.ladder import resized_size
from anytime_model.networks.base import padded_size


class OneExit(nn.Module):
    """An image to classes, through one exit."""

    def __init__(self, checkpoint, exit_, size, source):
        super().__init__()
        card = checkpoint.card
        self.stages = checkpoint.network.stages[:exit_]
        self.exit = checkpoint.network.exits[exit_ - 1]
        self.register_buffer("mean", 255.0 * torch.tensor(card.mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255.0 * torch.tensor(card.std).view(1, 3, 1, 1))
        padded = padded_size(size, card.config.stride)
        self.padding = (0, padded[1] - size[1], 0, padded[0] - size[0])
        self.cells = tuple(-(-n // card.config.map_stride) for n in size)
        self.source = source

    def forward(self, image):
        pixels = (image.permute(0, 3, 1, 2).float() - self.mean) / self.std
        features = (F.pad(pixels, self.padding, mode="replicate"),)
        for stage in self.stages:
            features = stage(features, None, lambda: None)
        rows, columns = self.cells
        logits = self.exit(features, None)[..., :rows, :columns]
        full = F.interpolate(logits, self.source, mode="bilinear", align_corners=False)
        return full.argmax(dim=1).to(torch.uint8)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--size", required=True, help="HEIGHTxWIDTH, px")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    source = tuple(int(side) for side in given.size.split("x"))
    card = read_manifest(given.weights)[given.model]
    checkpoint = load_model(card, given.weights)
    number = 0
    for side in card.sides or (None,):
        size = resized_size(source, side)
        for exit_ in range(1, card.config.num_exits + 1):
            number += 1
            part = OneExit(checkpoint, exit_, size, source).eval()
            with warnings.catch_warnings(), torch.inference_mode():
                warnings.simplefilter("ignore")
                model = openvino.convert_model(
                    part, example_input=torch.zeros(1, *size, 3, dtype=torch.uint8)
                )
            model.reshape([1, *size, 3])
            openvino.save_model(model, given.out / f"{number}.xml", compress_to_fp16=False)


if __name__ == "__main__":
    main()
