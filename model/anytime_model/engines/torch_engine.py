"""The torch engine: the network itself, which the faster engines must agree with.

It runs on any device that torch has. Masked positions are computed and then replaced, so masks
save multiply-adds on paper but no time here.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anytime_model.checkpoint.store import Checkpoint
from anytime_model.confidence import Criterion
from anytime_model.engines.base import Dtype, Pause, check_image, check_normalised, resized_image
from anytime_model.errors import ConfigError
from anytime_model.flops import conv_costs, step_macs
from anytime_model.networks.base import Prior, State
from anytime_model.results import Decoded, ExitResult


class TorchEngine:
    """Runs a checkpoint with torch.

    Args:
        checkpoint: network and card.
        device: such as "cpu" or "cuda".
        bf16: run convolutions in bfloat16 (autocast).
    """

    sparse = False

    def __init__(self, checkpoint: Checkpoint, device: str = "cpu", *, bf16: bool = False) -> None:
        self.card = checkpoint.card
        self.device = _usable(device)
        self.dtype: Dtype = "bf16" if bf16 else "f32"
        # Module.to's stubs leave memory_format out.
        self.network = checkpoint.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(self.card.mean, device=self.device).view(shape)
        self._std = torch.tensor(self.card.std, device=self.device).view(shape)

    @property
    def name(self) -> str:
        """What computes."""
        return f"torch-{self.device.type}-{self.dtype}"

    def begin(self, image: NDArray[np.uint8], prior: Prior | None = None) -> "TorchRun":
        """See `Engine.begin`."""
        check_image(image)
        with torch.inference_mode():
            # Callers may pass read-only arrays, which torch does not take.
            pixels = torch.from_numpy(image.copy()).to(self.device)
            scaled = pixels.permute(2, 0, 1).unsqueeze(0).float() / 255
            return self._begin((scaled - self._mean) / self._std, prior)

    def begin_normalised(
        self, image: NDArray[np.float32], prior: Prior | None = None
    ) -> "TorchRun":
        """See `NetworkEngine.begin_normalised`."""
        check_normalised(image)
        with torch.inference_mode():
            return self._begin(torch.from_numpy(image.copy()).to(self.device)[None], prior)

    def _begin(self, image: Tensor, prior: Prior | None) -> "TorchRun":
        channels_last = image.contiguous(memory_format=torch.channels_last)
        return TorchRun(self, self.network.begin(channels_last, prior))

    def prepare(self, size: tuple[int, int]) -> None:
        """See `Engine.prepare`: there is nothing to make."""

    def resized(self, image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
        """See `Engine.resized`."""
        return resized_image(image, size)

    def decode(self, result: ExitResult) -> Decoded:
        """See `Engine.decode`."""
        return self.card.task.decode(result)


class TorchRun:
    """One image on its way through a torch engine."""

    def __init__(self, engine: TorchEngine, state: State) -> None:
        self._engine = engine
        self._state = state

    @property
    def exit(self) -> int:
        """Exits made so far."""
        return self._state.exit

    def advance(
        self,
        criterion: Criterion | None = None,
        pause: Pause | None = None,
        *,
        exit_: int | None = None,
    ) -> ExitResult:
        """See `Run.advance`."""
        engine = self._engine
        with (
            torch.inference_mode(),
            torch.autocast(engine.device.type, torch.bfloat16, enabled=engine.dtype == "bf16"),
        ):
            state = engine.network.advance(self._state, criterion, pause, exit_=exit_)
        made, self._state = self._state.exit, state
        logits = _made(state.logits)
        confidence = engine.card.task.confidence(logits)
        height, width = state.image_size
        costs = conv_costs(engine.card.config, height, width)
        active = (
            torch.ones_like(confidence, dtype=torch.bool) if state.active is None else state.active
        )
        return ExitResult(
            exit=state.exit,
            image_size=state.image_size,
            logits=logits[0].float().cpu().numpy(),
            confidence=confidence[0, 0].cpu().numpy(),
            active=active[0, 0].cpu().numpy(),
            macs=step_macs(costs, made, state.exit),
            map_stride=engine.card.config.map_stride,
        )


def _made(logits: Tensor | None) -> Tensor:
    if logits is None:
        raise AssertionError("advance always makes logits")
    return logits


def _usable(name: str) -> torch.device:
    """The device of this name, once something has been put on it.

    Raises:
        ConfigError: torch does not have it here.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as e:
        why = str(e).partition("\n")[0]
        raise ConfigError(
            f"the device {name!r} cannot be used here ({why}); expected one that this PyTorch and "
            "this machine have, such as cpu."
        ) from e
    return device
