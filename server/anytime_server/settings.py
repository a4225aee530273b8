"""Everything an operator may choose, in one frozen object.

Every default is a safe one (loopback, bounded sizes). Values that are not given are read from the
environment (prefix `ANYTIME_`), which nothing else in the server reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from anytime_protocol.messages import ConnectionLimits
from anytime_server.core.settings import SchedulerSettings
from anytime_server.tokens import clean_token, read_tokens

LogLevel = Literal["critical", "error", "warning", "info", "debug"]
EngineName = Literal["auto", "torch", "native", "openvino"]
PrecisionName = Literal["auto", "f32", "bf16", "int8"]
ExecutorCount = Annotated[int, Field(ge=1, le=256)]


_MOST_PROFILED: Final = 2**24
"""Px of the largest image that costs are measured with."""


class Settings(BaseSettings):
    """The server's settings; sizes are bytes or px, times seconds, as each name says."""

    model_config = SettingsConfigDict(env_prefix="ANYTIME_", frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on; loopback unless set.")
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 takes a free one.")
    weights: Path = Field(
        Path("weights"), description="Folder with manifest.toml, or a manifest file."
    )
    models: str = Field(
        "", description="Names of the models to serve, separated by commas; empty for all."
    )
    engine: EngineName = Field(
        "auto", description="What computes: auto, torch, native or openvino."
    )
    device: str = Field("cpu", description="Device of the torch engine, such as cpu or cuda.")
    engine_memory_mb: int = Field(
        2048,
        ge=64,
        le=1_048_576,
        description="Memory of all models and executors together for images under way, in MiB.",
    )
    precision: PrecisionName = Field(
        "auto",
        description="Convolutions compute in f32, bf16 or int8; auto: the fastest that is as good.",
    )
    threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="Compute threads of all executors; 0 takes all cores that affinity and cgroup "
        "quota leave.",
    )
    executors: Literal["auto"] | ExecutorCount = Field(
        1,
        description="Computing processes, each with cores and a queue of its own, a number or "
        "auto.",
    )
    profile_size: str = Field(
        "360x480",
        pattern=r"^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$",
        description="Size HEIGHTxWIDTH in px at which stage costs are measured at start.",
    )

    token: SecretStr | None = Field(
        None,
        description="Bearer token that every /v1 and /v2 request needs; none is needed if empty.",
    )
    operator_token: SecretStr | None = Field(
        None, description="Bearer token for PUT /v1/budget; the general token if empty."
    )
    tokens: Path | None = Field(
        None, description="TOML file of further tokens, each with a quota of its own."
    )
    origins: str = Field(
        "",
        description="Origins, separated by commas, whose pages may ask, over HTTP (CORS) and "
        "websockets; the server's own always may.",
    )

    max_body_bytes: int = Field(
        32 * 1024 * 1024, ge=1024, description="Largest image file or upload, in bytes."
    )
    max_upload_bytes: int = Field(
        256 * 1024 * 1024,
        ge=1024,
        description="Uploads under way over all connections together, in bytes; bounds memory.",
    )
    max_json_bytes: int = Field(
        256 * 1024, ge=1024, description="Largest JSON body or message header, in bytes."
    )
    max_pixels: int = Field(
        26_214_400, ge=1, le=65_535**2, description="Largest image that is decoded, in px."
    )
    max_computed_pixels: int = Field(
        4_194_304,
        ge=1,
        le=65_535**2,
        description="Largest size at which a network computes an image, in px (2048x2048 by "
        "default). A model with a ladder brings images of any size to its own.",
    )
    max_pixels_in_flight: int = Field(
        16_777_216,
        ge=1,
        description="Px that are computed for all active requests together; bounds memory (100 "
        "bytes each).",
    )
    max_requests: int = Field(64, ge=1, description="Active requests at a time.")
    max_in_flight: int = Field(8, ge=1, description="Requests at a time of one websocket.")
    max_sockets: int = Field(64, ge=1, description="Websockets at a time.")
    max_connections: int = Field(512, ge=1, description="TCP connections at a time.")

    header_timeout_s: float = Field(
        10.0, gt=0, description="Longest wait for the headers of a request, in seconds."
    )
    upload_timeout_s: float = Field(30.0, gt=0, description="Longest wait for a body, in seconds.")
    send_timeout_s: float = Field(
        10.0, gt=0, description="Longest wait for a client to take a message, in seconds."
    )
    ping_interval_s: float = Field(20.0, gt=0, description="Between websocket pings, in seconds.")
    drain_timeout_s: float = Field(
        30.0, gt=0, description="Longest wait for running requests on SIGTERM, in seconds."
    )
    patience_s: float = Field(
        1.0,
        gt=0,
        description="Wait of a request without deadline until its stage is mandatory, in s.",
    )
    sigmas: float = Field(
        2.0, ge=0, le=10, description="Safety margin of mandatory stages, in standard deviations."
    )
    depth_sigmas: float = Field(
        1.0, ge=0, le=10, description="Safety margin of a stage beyond exit 1, in deviations."
    )
    reserve_sigmas: float = Field(
        3.0, ge=0, le=10, description="Safety margin of encoding an answer, in deviations."
    )
    reserve_s: float = Field(
        0.0015,
        ge=0,
        le=10,
        description="Kept for sending an answer, which is not measured, in seconds.",
    )
    reaction_s: float = Field(
        0.001, ge=0, le=10, description="What a stop takes beside the network, in seconds."
    )
    hang_s: float = Field(
        10.0,
        gt=0,
        description="A computing process without a sign of life for so long is killed, in seconds.",
    )

    page: Path | None = Field(
        None,
        description="Folder of the browser page; by default the server's own.",
    )
    log_level: LogLevel = Field("info", description="Least severe message that is logged.")
    log_json: bool = Field(False, description="Log one JSON object a line instead of text.")

    @field_validator("token", "operator_token")
    @classmethod
    def _check_token(cls, token: SecretStr | None) -> SecretStr | None:
        """Takes off what surrounds a token, such as the end of a file's last line."""
        if token is None or not token.get_secret_value():
            return None
        return clean_token(token)

    @field_validator("tokens")
    @classmethod
    def _check_tokens(cls, path: Path | None) -> Path | None:
        if path is not None:
            read_tokens(path)
        return path

    @model_validator(mode="after")
    def _check_profile_size(self) -> Self:
        height, width = self.profile_height_width
        if height * width > _MOST_PROFILED:
            raise ValueError(
                f"profile_size is {self.profile_size}, {height * width} px; expected at most "
                f"{_MOST_PROFILED} px"
            )
        return self

    @model_validator(mode="after")
    def _check_executors(self) -> Self:
        if self.executors != "auto" and self.executors > self.max_requests:
            raise ValueError(
                f"executors is {self.executors} and max_requests {self.max_requests}; expected at "
                "least one request for each executor"
            )
        return self

    @property
    def model_names(self) -> tuple[str, ...]:
        """Models to serve; empty for all."""
        return tuple(name.strip() for name in self.models.split(",") if name.strip())

    @property
    def allowed_origins(self) -> frozenset[str]:
        """Foreign origins whose pages may ask."""
        return frozenset(origin.strip() for origin in self.origins.split(",") if origin.strip())

    @property
    def profile_height_width(self) -> tuple[int, int]:
        """Size at which stage costs are measured, px."""
        height, width = self.profile_size.split("x")
        return int(height), int(width)

    @property
    def limits(self) -> ConnectionLimits:
        """What a websocket client is told."""
        return ConnectionLimits(
            max_in_flight=self.max_in_flight,
            max_payload_bytes=self.max_body_bytes,
            max_json_bytes=self.max_json_bytes,
            max_pixels=self.max_pixels,
        )

    @property
    def scheduling(self) -> SchedulerSettings:
        """What the scheduler is told."""
        return SchedulerSettings(
            max_jobs=self.max_requests,
            sigmas=self.sigmas,
            depth_sigmas=self.depth_sigmas,
            reserve_sigmas=self.reserve_sigmas,
            reserve_s=self.reserve_s,
            reaction_s=self.reaction_s,
            patience_s=self.patience_s,
        )
