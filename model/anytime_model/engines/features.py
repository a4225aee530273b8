"""The features that a video holds from frame to frame, at each size of a ladder."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anytime_model.engines.base import FeatureCache, HoldingEngine
from anytime_model.networks.base import Size, padded_size

Mask = NDArray[np.bool_]


@dataclass(slots=True)
class _AtSize:
    """One size's features.

    Attributes:
        size: (H, W) px of the resized image.
        cache: None where there is no room.
        filled: whether they have been made everywhere.
        fresh: (h, w) where they are of no frame any more, collected over the frames that did not
            come to this size; None while nothing is.
    """

    size: Size
    cache: FeatureCache | None
    filled: bool = False
    fresh: Mask | None = None


class VideoFeatures:
    """The features of one video.

    Args:
        engine: that makes them.
    """

    def __init__(self, engine: HoldingEngine) -> None:
        self.engine = engine
        self._at: dict[int, _AtSize] = {}
        self._refused = False

    @property
    def refused(self) -> bool:
        """Whether there was no room, or features of this network cannot be held."""
        return self._refused

    @property
    def bytes(self) -> int:
        """Held, over all sizes."""
        return sum(at.cache.bytes for at in self._at.values() if at.cache is not None)

    def frame(self, fresh: Callable[[Size], Mask] | None) -> None:
        """The next frame begins.

        Args:
            fresh: where it is to be computed, (h, w), of the resized image of (H, W) px; None for
                everywhere.
        """
        for at in self._at.values():
            if fresh is None:
                at.filled, at.fresh = False, None
            elif at.filled:
                now = fresh(at.size)
                at.fresh = now if at.fresh is None else at.fresh | now

    def forget(self) -> None:
        """A frame is computed without them, so that they are of no frame any more."""
        self.frame(None)

    def take(self, index: int, size: Size) -> tuple[FeatureCache, Mask | None] | None:
        """The cache of a size for a run that begins, which from here on knows what is fresh.

        Args:
            index: of the size in the ladder.
            size: (H, W) px of the resized image.

        Returns:
            It, and where it is fresh, None for everywhere; None where there is no room.
        """
        at = self._at.get(index)
        if at is None or at.size != size or (at.cache is not None and at.cache.lost):
            at = self._at[index] = _AtSize(size, self.engine.new_cache(size))
        if at.cache is None:
            self._refused = True
            return None
        if not at.filled:
            return at.cache, None
        config = self.engine.card.config
        fresh = at.fresh
        if fresh is None:
            height, width = padded_size(size, config.stride)
            fresh = np.zeros((height // config.map_stride, width // config.map_stride), np.bool_)
        at.fresh = None
        return at.cache, fresh

    def fill(self, index: int) -> None:
        """The first map of a frame that is fresh everywhere has been made at a size."""
        self._at[index].filled = True
