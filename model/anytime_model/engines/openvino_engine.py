"""The OpenVINO engine: the network cut at its exits, each part compiled as a dense graph.

For CPUs where the native kernels have no fast path. Inside a stage every position is computed, and
where a mask is off, the map keeps its earlier value. So it is the network of the definition as long
as nothing is masked; where something is, active positions see true features around them and not
interpolated ones.

The network is traced once. A graph is compiled for one image size; the sizes used last are kept.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anytime_model.checkpoint.store import Checkpoint
from anytime_model.confidence import Criterion
from anytime_model.engines.base import Dtype, Pause, check_image, check_normalised, resized_image
from anytime_model.errors import ConfigError, FamilyError, FinishedError
from anytime_model.flops import conv_costs, step_macs
from anytime_model.networks.base import Prior, State, next_exit, padded_size
from anytime_model.results import Decoded, ExitResult

POLL_MS = 2
"""How often `pause` is called while a graph runs."""

MOST_SIZES = 4

Maps = NDArray[np.float32]


class OpenVinoEngine:
    """Runs a checkpoint with OpenVINO on the CPU.

    Args:
        checkpoint: network and card.
        dtype: "f32", or "bf16" where the CPU has it.
        threads: None leaves it to OpenVINO.

    Raises:
        ConfigError: the openvino package is not installed.
        FamilyError: the network is no chain of stages of its own.
    """

    sparse = False

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        dtype: Dtype = "f32",
        threads: int | None = None,
    ) -> None:
        try:
            import openvino  # noqa: PLC0415  an optional extra
        except ImportError as e:
            raise ConfigError(
                "the openvino engine needs the openvino package. "
                "Install anytime-dense[openvino], or choose another engine."
            ) from e
        self.card = checkpoint.card
        self.network = checkpoint.network
        if len(self.network.stages) != len(self.network.exits):
            raise FamilyError(
                f"the openvino engine has no graphs for the family {self.card.config.family!r}, "
                "whose stages share their layers. Choose the engine torch, or auto."
            )
        self._openvino: Any = openvino
        self.dtype = dtype
        self._options = {"INFERENCE_PRECISION_HINT": dtype, "NUM_STREAMS": "1"}
        if threads is not None:
            self._options["INFERENCE_NUM_THREADS"] = str(threads)
        self._core = _core()
        self._converted = self._convert()
        self._graphs: OrderedDict[tuple[int, int], _Graphs] = OrderedDict()
        self._mean = torch.tensor(self.card.mean).view(1, 3, 1, 1)
        self._std = torch.tensor(self.card.std).view(1, 3, 1, 1)

    @property
    def name(self) -> str:
        """What computes."""
        return f"openvino-{self.dtype}"

    def begin(self, image: NDArray[np.uint8], prior: Prior | None = None) -> OpenVinoRun:
        """See `Engine.begin`. The first image of a size waits for its graphs to be compiled."""
        check_image(image)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).unsqueeze(0)
        return self._begin((pixels.float() / 255 - self._mean) / self._std, prior)

    def begin_normalised(
        self, image: NDArray[np.float32], prior: Prior | None = None
    ) -> OpenVinoRun:
        """See `NetworkEngine.begin_normalised`."""
        check_normalised(image)
        return self._begin(torch.from_numpy(image.copy())[None], prior)

    def _begin(self, image: Tensor, prior: Prior | None) -> OpenVinoRun:
        with torch.inference_mode():
            state = self.network.begin(image, prior)
        padded = state.features[0]
        return OpenVinoRun(self, self._compiled((padded.shape[2], padded.shape[3])), state)

    def prepare(self, size: tuple[int, int]) -> None:
        """See `Engine.prepare`: compiles the graphs."""
        self._compiled(padded_size(size, self.card.config.stride))

    def resized(self, image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
        """See `Engine.resized`."""
        return resized_image(image, size)

    def decode(self, result: ExitResult) -> Decoded:
        """See `Engine.decode`."""
        return self.card.task.decode(result)

    def _compiled(self, size: tuple[int, int]) -> _Graphs:
        graphs = self._graphs.pop(size, None)
        if graphs is None:
            graphs = self._compile(size)
            while len(self._graphs) >= MOST_SIZES:
                self._graphs.popitem(last=False)
        self._graphs[size] = graphs
        return graphs

    def _compile(self, size: tuple[int, int]) -> _Graphs:
        graphs = _Graphs([], [])
        shapes = [[1, 3, *size]]
        for stage, converted in enumerate(self._converted.exits):
            model = converted.clone()
            model.reshape(dict(enumerate(shapes)))
            graphs.exits.append(self._core.compile_model(model, "CPU", self._options))
            if stage < len(self._converted.features):
                alone = self._converted.features[stage].clone()
                alone.reshape(dict(enumerate(shapes)))
                graphs.features.append(self._core.compile_model(alone, "CPU", self._options))
            shapes = [list(output.shape) for output in model.outputs[:-1]]
        return graphs

    def _convert(self) -> _Graphs:
        """The parts of the network for any size: tracing takes far longer than compiling."""
        graphs = _Graphs([], [])
        config = self.card.config
        features: tuple[Tensor, ...] = (torch.zeros(1, 3, config.stride, config.stride),)
        for stage, exit_ in zip(self.network.stages, self.network.exits, strict=True):
            part = _Part(stage, exit_).eval()
            with torch.inference_mode():
                made = part(*features)
            graphs.exits.append(self._traced(part, features))
            if config.may_skip_exits and len(graphs.exits) < config.num_exits:
                graphs.features.append(self._traced(_Part(stage, None).eval(), features))
            features = tuple(torch.zeros(x.shape) for x in made[:-1])
        return graphs

    def _traced(self, part: nn.Module, features: tuple[Tensor, ...]) -> Any:
        with warnings.catch_warnings():
            # The converter traces with torch.jit, which torch deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module="torch.*")
            return self._openvino.convert_model(part, example_input=features)


@cache
def _core() -> Any:
    """One for the process: its CPU plugin replaces the thread's alternate signal stack.

    Plugins that end in another order than they began leave a stack that has been freed, and the
    next signal ends the process.
    """
    import openvino  # noqa: PLC0415  an optional extra

    return openvino.Core()


class _Graphs(NamedTuple):
    """The parts of a network.

    Attributes:
        exits: each stage with its exit: features to features and a map.
        features: where exits may be left out, each stage but the last without: features to
            features.
    """

    exits: list[Any]
    features: list[Any]


class _Part(nn.Module):
    """One stage, and its exit if it is to be made, as a function of tensors only, for tracing."""

    def __init__(self, stage: nn.Module, exit_: nn.Module | None) -> None:
        super().__init__()
        self.stage = stage
        self.exit = exit_

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        branches: tuple[Tensor, ...] = tuple(self.stage(features, None, _never))
        return branches if self.exit is None else (*branches, self.exit(branches, None))


def _never() -> None:
    pass


class OpenVinoRun:
    """One image on its way through an OpenVINO engine."""

    def __init__(
        self,
        engine: OpenVinoEngine,
        graphs: _Graphs,
        state: State,
    ) -> None:
        padded = np.ascontiguousarray(state.features[0].numpy())
        self._engine = engine
        self._graphs = graphs
        self._features: list[Maps] | None = [padded]
        self._padded = padded.shape[2:]
        self._image_size = state.image_size
        self._exit = 0
        self._logits = state.logits
        self._active = state.active

    @property
    def exit(self) -> int:
        """Exits made so far."""
        return self._exit

    def advance(
        self,
        criterion: Criterion | None = None,
        pause: Pause | None = None,
        *,
        exit_: int | None = None,
    ) -> ExitResult:
        """See `Run.advance`."""
        features, config = self._features, self._engine.card.config
        if features is None:
            raise FinishedError(
                f"this run is over after exit {self._exit}; begin again with another image."
            )
        before, wanted = self._exit, next_exit(exit_, self._exit, config)
        self._features = None
        for stage in range(before, wanted - 1):
            features = _infer(self._graphs.features[stage], features, pause)
        *made, new = _infer(self._graphs.exits[wanted - 1], features, pause)
        logits = torch.from_numpy(new)
        if self._active is not None and self._logits is not None:
            logits = torch.where(self._active, logits, self._logits)
        if criterion is not None:
            unsettled = criterion(logits)
            self._active = unsettled if self._active is None else self._active & unsettled
        self._logits = logits
        self._exit = wanted
        if wanted < config.num_exits:
            self._features = made
        confidence = self._engine.card.task.confidence(logits)[0, 0]
        active = torch.ones_like(confidence, dtype=torch.bool)
        if self._active is not None:
            active = self._active[0, 0]
        costs = conv_costs(config, int(self._padded[0]), int(self._padded[1]))
        return ExitResult(
            exit=self._exit,
            image_size=self._image_size,
            logits=logits[0].numpy(),
            confidence=confidence.numpy(),
            active=(active if self._active is None else self._active[0, 0]).numpy(),
            macs=step_macs(costs, before, wanted),
            map_stride=config.map_stride,
        )


def _infer(graph: Any, inputs: Sequence[Maps], pause: Pause | None) -> list[Maps]:
    """Run a graph; its outputs are copies. `pause` is called at least once and may cancel it."""
    if pause is not None:
        pause()
    request = graph.create_infer_request()
    request.start_async(dict(enumerate(inputs)))
    try:
        while not request.wait_for(POLL_MS):
            if pause is not None:
                pause()
    except BaseException:
        request.cancel()
        raise
    return [np.array(tensor.data, np.float32) for tensor in request.output_tensors]
