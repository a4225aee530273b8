"""Options that several subcommands have, each with one name, one meaning and one help."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from anytime_model.engines.select import Precision

WeightsOption: TypeAlias = Annotated[Path, typer.Option(help="One of our .safetensors files.")]
DataOption: TypeAlias = Annotated[
    Path, typer.Option(help="Folder of a data set; its layout is recognised.")
]
EngineOption: TypeAlias = Annotated[
    str | None,
    typer.Option(help="auto, torch, native or openvino.", show_default="as ANYTIME_ENGINE says"),
]
PrecisionOption: TypeAlias = Annotated[
    Precision, typer.Option(help="auto: the fastest here that keeps the quality on the card.")
]
DeviceOption: TypeAlias = Annotated[str, typer.Option(help="Of the torch engine: cpu or cuda.")]
LimitOption: TypeAlias = Annotated[int | None, typer.Option(help="Only so many images.", min=1)]
ThreadsOption: TypeAlias = Annotated[
    int | None, typer.Option(help="CPU threads; all cores by default.")
]
