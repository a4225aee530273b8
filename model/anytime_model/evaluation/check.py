"""A quick score of each exit without masks, which training plots while it runs.

The full measurement is `evaluation.measure`.
"""

from __future__ import annotations

import torch

from anytime_model.data.loading import collate, normalise
from anytime_model.data.sample import SampleSource
from anytime_model.evaluation.scores import scorer
from anytime_model.networks.base import Network
from anytime_model.tasks import TASKS


@torch.no_grad()
def quick_scores(
    network: Network, source: SampleSource, device: torch.device, batch: int = 1
) -> tuple[float, ...]:
    """The task's score of each exit, 0 to 1, at the images' own size.

    Args:
        network: put into evaluation mode, and back into training mode afterwards.
        source: what to score on.
        device: where the network is.
        batch: images at a time; they must be of one size.
    """
    task, map_stride = TASKS[source.task], network.config.map_stride
    scores = [scorer(source) for _ in range(network.config.num_exits)]
    network.eval()
    for start in range(0, len(source), batch):
        samples = collate([source[i] for i in range(start, min(start + batch, len(source)))])
        with torch.autocast(device.type, torch.bfloat16):
            states = network(normalise(samples.images.to(device)))
        size = (samples.images.shape[-2], samples.images.shape[-1])
        for state, score in zip(states, scores, strict=True):
            scored = task.crop(state.logits.cpu(), size, size, map_stride)
            score.add(scored, samples, map_stride=map_stride, scale=1.0)
    network.train()
    return tuple(score.score for score in scores)
