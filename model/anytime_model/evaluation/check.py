"""A quick score of each exit without masks: what training plots while it runs.

One number an exit: mIoU, or PCKh@0.5. The full measurement is `evaluation.measure`.
"""

from __future__ import annotations

import torch

from anytime_model.anytime import AnytimeNetwork
from anytime_model.config import NUM_EXITS
from anytime_model.data.loading import collate, normalise
from anytime_model.data.sample import SampleSource
from anytime_model.evaluation.scores import PoseScore, SegmentationScore
from anytime_model.tasks import decode_keypoints, decode_labels


@torch.no_grad()
def quick_scores(
    network: AnytimeNetwork, source: SampleSource, device: torch.device, batch: int = 1
) -> tuple[float, ...]:
    """MIoU or PCKh@0.5 of each exit, 0 to 1, at the images' own size.

    Args:
        network: put into evaluation mode, and back into training mode afterwards.
        source: what to score on.
        device: where the network is.
        batch: images at a time; they must be of one size.
    """
    outputs = len(source.outputs)
    classes = [SegmentationScore(outputs) for _ in range(NUM_EXITS)]
    joints = [PoseScore(outputs, 0.5) for _ in range(NUM_EXITS)]
    network.eval()
    for start in range(0, len(source), batch):
        samples = collate([source[i] for i in range(start, min(start + batch, len(source)))])
        with torch.autocast(device.type, torch.bfloat16):
            states = network(normalise(samples.images.to(device)))
        for state, by_class, by_joint in zip(states, classes, joints, strict=True):
            if samples.labels is not None:
                by_class.add(decode_labels(state.logits.cpu(), state.image_size), samples.labels)
            elif samples.joints is not None and samples.head_px is not None:
                found = decode_keypoints(state.logits.cpu(), state.image_size)
                by_joint.add(found, samples.joints, samples.head_px)
    network.train()
    if source.task == "segmentation":
        return tuple(score.mean_iou for score in classes)
    return tuple(score.mean for score in joints)
