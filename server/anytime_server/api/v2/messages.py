"""The JSON of the Open Inference Protocol and of three extensions of Triton.

The extensions are binary tensor data (`binary_data_size`, `binary_data`, `binary_data_output`),
schedule policy (`timeout`, `priority`) and statistics. Parameters are the protocol's way of saying
what it has no field for; ours are the limits of a budget.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeAlias

from pydantic import Field, WithJsonSchema

from anytime_protocol.budget import Limits
from anytime_protocol.enums import Reason
from anytime_protocol.fields import Exit
from anytime_protocol.validation import (
    Absent,
    Amount,
    Flag,
    JsonValue,
    Name,
    Share,
    omit,
    text,
    whole,
)

MAX_PRIORITY: Final = 8
"""The least urgent `priority`; 1 is the most urgent."""

_MAX_TENSORS: Final = 16
_MAX_DIMENSIONS: Final = 8

_Bytes: TypeAlias = Annotated[int, whole()]
_Count: TypeAlias = Annotated[int, whole()]
_Word: TypeAlias = Annotated[str, text(64)]
_Id: TypeAlias = Annotated[str, text(256)]
_Shape: TypeAlias = Annotated[
    tuple[Annotated[int, whole()], ...], Field(max_length=_MAX_DIMENSIONS)
]
_Data: TypeAlias = Annotated[Any, WithJsonSchema({"type": "array", "items": {}})]


# Requests.


@dataclass(frozen=True, slots=True)
class InputParameters(JsonValue):
    """Parameters of an input.

    Attributes:
        binary_data_size: bytes of its data behind the JSON; None if the JSON has them.
    """

    binary_data_size: Absent[_Bytes] = None


@dataclass(frozen=True, slots=True)
class InputTensor(JsonValue):
    """An input of a request.

    Attributes:
        name: as in the model's metadata.
        shape: its dimensions.
        datatype: `UINT8` or `BYTES`.
        parameters: see there.
        data: its elements in the JSON, row by row; None if they are behind it.
    """

    name: _Word
    shape: _Shape
    datatype: _Word
    parameters: InputParameters = field(default_factory=InputParameters)
    data: _Data = None


@dataclass(frozen=True, slots=True)
class OutputParameters(JsonValue):
    """Parameters of an output that is asked for.

    Attributes:
        binary_data: whether it is wanted behind the JSON; None leaves it to `binary_data_output`.
    """

    binary_data: Absent[Flag] = None


@dataclass(frozen=True, slots=True)
class RequestedOutput(JsonValue):
    """An output that is asked for.

    Attributes:
        name: as in the model's metadata.
        parameters: see there.
    """

    name: _Word
    parameters: OutputParameters = field(default_factory=OutputParameters)


@dataclass(frozen=True, slots=True)
class RequestParameters(Limits):
    """Parameters of a request: the limits of a budget, as numbers, and those of the extensions.

    Attributes:
        timeout: microseconds from arrival, another form of `deadline_ms`; 0 is none.
        priority: 1 (most urgent) to `MAX_PRIORITY`; 0 is the default.
        binary_data_output: whether outputs are wanted behind the JSON.
    """

    timeout: Absent[_Count] = None
    priority: Absent[Annotated[int, whole(0, MAX_PRIORITY)]] = None
    binary_data_output: Absent[Flag] = None


@dataclass(frozen=True, slots=True)
class InferenceRequest(JsonValue):
    """The JSON of a request.

    Attributes:
        inputs: the image, in one of its two forms.
        outputs: what to send back; all that the model has where it is empty.
        parameters: see there.
        id: comes back in the response.
        model_name: that of the URL, if it is there at all.
    """

    inputs: Annotated[tuple[InputTensor, ...], Field(max_length=_MAX_TENSORS)]
    outputs: Annotated[tuple[RequestedOutput, ...], Field(max_length=_MAX_TENSORS)] = ()
    parameters: RequestParameters = field(default_factory=RequestParameters)
    id: Absent[_Id] = None
    model_name: Absent[Name] = None


# Responses.


@dataclass(frozen=True, slots=True)
class ResponseParameters(JsonValue):
    """What was served and where the time went; times are ms from arrival.

    Attributes:
        exit: that the outputs are of.
        exits: that the model has.
        reason: why the network stopped.
        confidence: mean over the map.
        confident_share: of pixels that are settled.
        gmacs: really computed, in 1e9 multiply-adds.
        total_ms: until the outputs were encoded.
        queue_ms: of it, waiting.
        decode_ms: of it, decoding the image.
        compute_ms: of it, in the network.
        encode_ms: of it, rendering and encoding.
        risk: see `Finished`.
    """

    exit: Exit
    exits: Exit
    reason: Reason
    confidence: Share
    confident_share: Share
    gmacs: Amount
    total_ms: Amount
    queue_ms: Amount
    decode_ms: Amount
    compute_ms: Amount
    encode_ms: Amount
    risk: Absent[Share] = None


@dataclass(frozen=True, slots=True)
class OutputTensor(JsonValue):
    """An output of a response.

    Attributes:
        name: as in the model's metadata.
        shape: its dimensions.
        datatype: `UINT8` or `FP32`.
        parameters: with `binary_data_size`, if its data are behind the JSON.
        data: its elements otherwise.
    """

    name: str
    shape: _Shape
    datatype: str
    parameters: Annotated[InputParameters, omit(InputParameters())] = field(
        default_factory=InputParameters
    )
    data: Absent[_Data] = None


@dataclass(frozen=True, slots=True)
class InferenceResponse(JsonValue):
    """The JSON of a response; `tensors.write_response` writes it, this class describes it."""

    model_name: str
    model_version: str
    parameters: ResponseParameters
    outputs: tuple[OutputTensor, ...]
    id: Absent[str] = None


@dataclass(frozen=True, slots=True)
class ErrorBody(JsonValue):
    """What every answer with a status of 400 or more holds."""

    error: str


# Health and metadata.


@dataclass(frozen=True, slots=True)
class ServerLive(JsonValue):
    """The process works."""

    live: bool


@dataclass(frozen=True, slots=True)
class ServerReady(JsonValue):
    """Requests are admitted."""

    ready: bool


@dataclass(frozen=True, slots=True)
class ModelReady(JsonValue):
    """Requests for a model are admitted."""

    name: str
    ready: bool


@dataclass(frozen=True, slots=True)
class ServerMetadata(JsonValue):
    """What the server is and which extensions it has."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TensorMetadata(JsonValue):
    """A tensor that a model takes or makes; -1 in `shape` is any number."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata(JsonValue):
    """A model's tensors. Of the inputs a request has one."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


# Statistics.


@dataclass(frozen=True, slots=True)
class DurationStatistic(JsonValue):
    """How often something happened, and how long it took in all, in nanoseconds."""

    count: _Count = 0
    ns: _Count = 0


@dataclass(frozen=True, slots=True)
class InferenceStatistics(JsonValue):
    """What `metrics.ModelTotals` has, under Triton's names; there is no cache."""

    success: DurationStatistic
    fail: DurationStatistic
    queue: DurationStatistic
    compute_input: DurationStatistic
    compute_infer: DurationStatistic
    compute_output: DurationStatistic
    cache_hit: DurationStatistic = field(default_factory=DurationStatistic)
    cache_miss: DurationStatistic = field(default_factory=DurationStatistic)


@dataclass(frozen=True, slots=True)
class BatchStatistics(JsonValue):
    """The same by size of a batch, which is 1 here."""

    batch_size: int
    compute_input: DurationStatistic
    compute_infer: DurationStatistic
    compute_output: DurationStatistic


@dataclass(frozen=True, slots=True)
class ModelStatistics(JsonValue):
    """Statistics of a model since the server started; `last_inference` is Unix time in ms."""

    name: str
    version: str
    last_inference: _Count
    inference_count: _Count
    execution_count: _Count
    inference_stats: InferenceStatistics
    batch_stats: tuple[BatchStatistics, ...]


@dataclass(frozen=True, slots=True)
class StatisticsResponse(JsonValue):
    """Statistics of one model or of all."""

    model_stats: tuple[ModelStatistics, ...]
