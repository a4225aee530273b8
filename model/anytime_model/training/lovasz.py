"""The Lovász-softmax loss: 1 - IoU, extended from label maps to probabilities.

IoU is a function of the set of wrong pixels. Sorted by how wrong they are, each pixel's share is
what the IoU loses as that pixel joins those before it; the sum of error times share is the convex
extension of 1 - IoU to errors between 0 and 1 (Berman, Rannen Triki, Blaschko: The Lovász-Softmax
loss, CVPR 2018, equations 8 and 9, and algorithm 1). A rare class weighs as much as a frequent one
and may not be found everywhere to be found at all, which a class-weighted cross-entropy rewards.
"""

from __future__ import annotations

import torch
from torch import Tensor


def lovasz_softmax(logits: Tensor, target: Tensor, ignore: int) -> Tensor:
    """Mean of 1 - IoU over the classes that the batch shows, 0 to 1.

    Of several processes each takes its own part of the batch.

    Args:
        logits: (B, K, h, w) float32.
        target: (B, h, w) int64 classes.
        ignore: the label of pixels that do not count.
    """
    known = target != ignore
    if not known.any():
        return logits.sum() * 0
    truth = target[known]
    present = truth.bincount().nonzero()[:, 0]
    probability = logits.softmax(1).permute(0, 2, 3, 1)[known][:, present].T
    is_class = truth == present[:, None]
    error = torch.where(is_class, 1 - probability, probability)
    worst_first, order = error.sort(dim=1, descending=True)
    share = _jaccard_steps(is_class.gather(1, order).float())
    return (worst_first * share).sum(1).mean()


def _jaccard_steps(is_class: Tensor) -> Tensor:
    """How much of 1 - IoU each pixel adds, (C, N), to those before it in its row.

    Args:
        is_class: (C, N), 1 for a pixel of the row's class, else 0; wrong ones first.
    """
    total = is_class.sum(1, keepdim=True)
    intersection = total - is_class.cumsum(1)
    union = total + (1 - is_class).cumsum(1)
    return torch.diff(1 - intersection / union, dim=1, prepend=torch.zeros_like(total))
