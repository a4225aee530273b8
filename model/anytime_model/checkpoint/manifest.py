"""The manifest: a TOML file beside the weights that holds the cards of the models.

One table a model: network, labels with colours, normalisation, masking, measured quality, licence
and the file's SHA-256. It is kept apart from the tensors so that people can read and edit it (a
threshold, say), and edits of ours keep their comments.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from math import isfinite
from pathlib import Path
from typing import Any

import tomlkit

from anytime_model.checkpoint.card import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Card,
    Certificate,
    Masking,
    Quality,
    Quantisation,
    RungPath,
    is_path,
)
from anytime_model.errors import AnytimeModelError, CheckpointError
from anytime_model.labels import Label
from anytime_model.networks.base import DEFAULT_FAMILY, FamilyConfig, family

MANIFEST = "manifest.toml"
SIDES = range(32, 4097)
"""What the sides of a `ladder` may be, px."""
MOST_SIDES = 8
"""Sizes of a ladder."""
MOST_LABELS = 256
"""Classes that a map of bytes can tell apart, and joints."""
MOST_LETTERS = 128
"""Of a label's name."""
MOST_SCALE = 16
"""By which factor images may be enlarged."""


def read_manifest(path: Path) -> dict[str, Card]:
    """All models of a manifest by name.

    Args:
        path: the TOML file, or the folder that holds `manifest.toml`.

    Raises:
        CheckpointError: missing, not TOML, or a table lacks or misspells an entry.
    """
    path = path / MANIFEST if path.is_dir() else path
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        where = "Name a folder with manifest.toml: weights/ of a checkout, or one of your own."
        raise CheckpointError(path, "there is no such manifest.", where) from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise CheckpointError(path, f"is not TOML ({e}).", "Mend it at that place.") from e
    return {name: _card(path, name, table) for name, table in document.items()}


def write_card(folder: Path, card: Card) -> None:
    """Add or replace a model's table in `folder/manifest.toml`; other tables and comments stay."""
    path = folder / MANIFEST
    document = (
        tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
    )
    document[card.name] = _table(card)
    path.write_text(tomlkit.dumps(document), encoding="utf-8")


def _card(path: Path, name: str, table: object) -> Card:
    cure = "See weights/README.md for the entries of a model."
    if not isinstance(table, Mapping):
        raise CheckpointError(path, f"{name!r} is not a table.", cure, (name,))
    try:
        labels = _labels(table["labels"])
        config = family(table.get("family", DEFAULT_FAMILY)).read(table, len(labels))
        sides = _sides(table)
        card = Card(
            name=name,
            file=_plain_name(table["file"]),
            sha256=str(table["sha256"]),
            config=config,
            labels=labels,
            mean=_exactly("mean", 3, table.get("mean", IMAGENET_MEAN)),
            std=_deviations(table.get("std", IMAGENET_STD)),
            sides=sides,
            joining=_joining(table.get("joining"), config.num_exits),
            masking=_masking(table.get("masking"), config.num_exits),
            quality=_quality(table.get("quality"), config, sides),
            skeleton=tuple(_bone(bone, len(labels)) for bone in table.get("skeleton", ())),
            licence=str(table.get("licence", "unknown")),
            description=str(table.get("description", "")),
        )
        card.criteria()
        card = replace(
            card,
            int8=_quantisation(card, table.get("int8")),
            certificates=_certificates(card, table.get("certificates", ())),
        )
    except KeyError as e:
        key = str(e.args[0])
        raise CheckpointError(path, f"[{name}] has no {key!r}.", cure, (f"{name}.{key}",)) from e
    except (AnytimeModelError, TypeError, ValueError) as e:
        raise CheckpointError(path, f"[{name}] is wrong: {e}", cure, (name,)) from e
    return card


def _sides(table: Mapping[str, Any]) -> tuple[int, ...]:
    if "input_side" in table:
        raise ValueError(f"input_side has become a ladder: write ladder = [{table['input_side']}].")
    return check_sides(table.get("ladder", ()))


def check_sides(found: object) -> tuple[int, ...]:
    """The sizes of a ladder, px.

    Raises:
        ValueError: they do not rise, or there are too many or too large ones.
    """
    sides = tuple(found) if isinstance(found, list | tuple) else (found,)
    if (
        len(sides) > MOST_SIDES
        or not all(type(side) is int and side in SIDES for side in sides)
        or list(sides) != sorted(set(sides))
    ):
        raise ValueError(
            f"ladder is {found!r}; expected at most {MOST_SIDES} rising sides of {SIDES[0]} to "
            f"{SIDES[-1]} px."
        )
    return sides


def _joining(found: Any, num_exits: int) -> tuple[float, ...]:
    if found is None:
        return ()
    return _shares("joining", num_exits, found)


def _masking(table: Mapping[str, Any] | None, num_exits: int) -> Masking | None:
    if table is None:
        return None
    thresholds = _exactly("thresholds", num_exits - 1, table["thresholds"])
    return Masking(table["criterion"], thresholds)


def _quantisation(card: Card, table: Mapping[str, Any] | None) -> Quantisation | None:
    """Ranges for int8 of this very model.

    Raises:
        ValueError: they are of other weights, or a range is none.
    """
    if table is None:
        return None
    if table["sha256"] != card.sha256:
        raise ValueError(
            f"its int8 ranges are of the weights {table['sha256'][:12]}; expected "
            f"{card.sha256[:12]}. Measure them again with `anytime-model quantise`, or remove them"
        )
    ranges: list[tuple[float, float]] = [_exactly("a range", 2, one) for one in table["ranges"]]
    if not all(isfinite(low) and isfinite(high) and low <= 0 <= high for low, high in ranges):
        raise ValueError("a range for int8 does not reach from at most 0 to at least 0")
    quality = _quality(table.get("quality"), card.config, card.sides)
    return Quantisation(
        tuple(ranges),
        str(table["method"]),
        int(table["images"]),
        str(table["sha256"]),
        quality,
        tuple(str(part) for part in table.get("floats", ())),
    )


def _certificates(card: Card, tables: Iterable[Mapping[str, Any]]) -> tuple[Certificate, ...]:
    found = tuple(_certificate(card, table) for table in tables)
    risks = [certificate.risk for certificate in found]
    if risks != sorted(set(risks)):
        raise ValueError(f"certificates have the risks {risks}; expected rising ones")
    for certificate in found:
        card.task.criterion(certificate.criterion, certificate.thresholds[0])
    return found


def _certificate(card: Card, table: Mapping[str, Any]) -> Certificate:
    """A certificate of this very model.

    Raises:
        ValueError: it is of another one, or a number is out of its range.
    """
    certificate = Certificate(
        risk=_share("risk", table["risk"]),
        confidence=_share("confidence", table["confidence"]),
        criterion=table["criterion"],
        thresholds=_exactly("thresholds", card.config.num_exits - 1, table["thresholds"]),
        images=int(table["images"]),
        measured=_shares("measured", 1, [table["measured"]])[0],
        largest_loss=_share("largest_loss", table["largest_loss"]),
        dataset=str(table["dataset"]),
        precision=str(table["precision"]),
        sides=tuple(table.get("ladder", ())),
        joining=_exactly("joining", card.config.num_exits, table["joining"]),
        paths=tuple(tuple(path) for path in table["paths"]),
        sha256=str(table["sha256"]),
    )
    for name, found, expected in (
        ("weights", certificate.sha256[:12], card.sha256[:12]),
        ("ladder", list(certificate.sides), list(card.sides)),
        ("joining", list(certificate.joining), list(card.joining)),
    ):
        if found != expected:
            raise ValueError(
                f"the certificate for a risk of {certificate.risk:g} is of other {name}: it says "
                f"{found}, the model has {expected}. Make it again with `anytime-model calibrate "
                "--record`, or remove it"
            )
    for path in () if card.quality is None else card.quality.paths:
        if not any(calibrated[: len(path.rungs)] == path.rungs for calibrated in certificate.paths):
            raise ValueError(
                f"the path {list(path.rungs)} was not calibrated for the certificate for a risk of "
                f"{certificate.risk:g}. Make it again with `anytime-model calibrate --record`, or "
                "remove it"
            )
    return certificate


def _share(name: str, found: Any) -> float:
    if not isinstance(found, int | float) or not 0 < found <= 1:
        raise ValueError(f"{name} is {found!r}; expected a number above 0, at most 1")
    return float(found)


def _quality(
    table: Mapping[str, Any] | None, config: FamilyConfig, sides: tuple[int, ...]
) -> Quality | None:
    if table is None:
        return None
    return Quality(
        table["metric"],
        _shares("per_exit", config.num_exits * max(len(sides), 1), table["per_exit"]),
        table["dataset"],
        _scale(table.get("scale", 1.0)),
        str(table.get("precision", "f32")),
        tuple(_path(path, config, len(sides)) for path in table.get("paths", ())),
    )


def _path(table: Mapping[str, Any], config: FamilyConfig, num_sides: int) -> RungPath:
    rungs = tuple(table["rungs"])
    if not all(type(rung) is int for rung in rungs) or not is_path(rungs, config, num_sides):
        later = (
            "a later one" if config.may_skip_exits else "the next one or the first of a larger size"
        )
        raise ValueError(
            f"a path has the rungs {list(rungs)}; expected whole numbers from 1 to "
            f"{config.num_exits * num_sides}, each {later}"
        )
    return RungPath(rungs, _shares("quality", len(rungs), table["quality"]))


def _exactly(name: str, count: int, values: Any) -> Any:
    """A tuple of `count` finite numbers, or a ValueError."""
    found = tuple(values)
    if len(found) != count or not all(type(v) in {int, float} and isfinite(v) for v in found):
        raise ValueError(f"{name} is {list(found)}, expected {count} finite numbers")
    return found


def _shares(name: str, count: int, values: Any) -> tuple[float, ...]:
    found: tuple[float, ...] = _exactly(name, count, values)
    if not all(0 <= share <= 1 for share in found):
        raise ValueError(f"{name} is {list(found)}; expected numbers from 0 to 1")
    return found


def _deviations(values: Any) -> Any:
    found = _exactly("std", 3, values)
    if min(found) <= 0:
        raise ValueError(f"std is {list(found)}; expected numbers above 0")
    return found


def _scale(found: Any) -> float:
    (scale,) = _exactly("scale", 1, [found])
    if not 0 < scale <= MOST_SCALE:
        raise ValueError(f"scale is {scale}; expected a number above 0, at most {MOST_SCALE}")
    return float(scale)


def _labels(items: Any) -> tuple[Label, ...]:
    labels = tuple(Label(_text(item["name"]), _color(item["color"])) for item in items)
    if not 1 <= len(labels) <= MOST_LABELS:
        raise ValueError(f"there are {len(labels)} labels; expected 1 to {MOST_LABELS}")
    return labels


def _bone(found: Any, joints: int) -> Any:
    bone = tuple(found)
    if len(bone) != 2 or not all(type(joint) is int and 0 <= joint < joints for joint in bone):
        raise ValueError(f"skeleton has {list(bone)}; expected two joints below {joints}")
    return bone


def _text(found: Any) -> str:
    if not isinstance(found, str) or not 1 <= len(found) <= MOST_LETTERS:
        raise ValueError(f"a label is called {found!r}; expected 1 to {MOST_LETTERS} letters")
    return found


def _color(text: Any) -> str:
    if not isinstance(text, str) or not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        raise ValueError(f"the colour {text!r} is not of the form #rrggbb")
    return text


def _plain_name(text: str) -> str:
    """A file beside the manifest, never one elsewhere."""
    if Path(text).name != text or not text.endswith(".safetensors"):
        raise ValueError(f"file is {text!r}, expected the name of a .safetensors file beside it")
    return text


def _table(card: Card) -> tomlkit.items.Table:
    table = tomlkit.table()
    if card.description:
        table["description"] = card.description
    table["file"] = card.file
    table["sha256"] = card.sha256
    table["licence"] = card.licence
    table["family"] = card.config.family
    table.update(card.config.entries())
    table["mean"] = list(card.mean)
    table["std"] = list(card.std)
    if card.sides:
        table["ladder"] = list(card.sides)
        table["joining"] = list(card.joining)
    labels = tomlkit.array().multiline(multiline=True)
    for label in card.labels:
        item = tomlkit.inline_table()
        item.update({"name": label.name, "color": label.color})
        labels.append(item)
    table["labels"] = labels
    if card.skeleton:
        table["skeleton"] = [list(bone) for bone in card.skeleton]
    if card.masking:
        table["masking"] = {
            "criterion": card.masking.criterion,
            "thresholds": list(card.masking.thresholds),
        }
    if card.quality:
        table["quality"] = _quality_table(card.quality)
    if card.int8:
        table["int8"] = _quantisation_table(card.int8)
    if card.certificates:
        certificates = tomlkit.aot()
        for certificate in card.certificates:
            certificates.append(_certificate_table(certificate))
        table["certificates"] = certificates
    return table


def _certificate_table(certificate: Certificate) -> tomlkit.items.Table:
    table = tomlkit.table()
    for item in fields(certificate):
        name = "ladder" if item.name == "sides" else item.name
        table[name] = _lists(getattr(certificate, item.name))
    return table


def _quantisation_table(int8: Quantisation) -> tomlkit.items.Table:
    table = tomlkit.table()
    table.update({"method": int8.method, "images": int8.images, "sha256": int8.sha256})
    ranges = tomlkit.array()
    for low, high in int8.ranges:
        ranges.append([low, high])
    table["ranges"] = ranges
    if int8.floats:
        table["floats"] = list(int8.floats)
    if int8.quality:
        table["quality"] = _quality_table(int8.quality)
    return table


def _lists(value: Any) -> Any:
    return [_lists(part) for part in value] if isinstance(value, tuple) else value


def _quality_table(quality: Quality) -> tomlkit.items.Table:
    table = tomlkit.table()
    table["metric"] = quality.metric
    table["per_exit"] = list(quality.per_exit)
    table["dataset"] = quality.dataset
    if not quality.paths:
        table["scale"] = quality.scale
    table["precision"] = quality.precision
    if quality.paths:
        paths = tomlkit.array().multiline(multiline=True)
        for path in quality.paths:
            item = tomlkit.inline_table()
            item.update({"rungs": list(path.rungs), "quality": list(path.quality)})
            paths.append(item)
        table["paths"] = paths
    return table
