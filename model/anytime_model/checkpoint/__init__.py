"""Weights files: the card of a model, saving and loading, and import of published checkpoints."""

from anytime_model.checkpoint.card import Card, Certificate, Masking, Quality
from anytime_model.checkpoint.manifest import MANIFEST, read_manifest, write_card
from anytime_model.checkpoint.store import (
    Checkpoint,
    load_checkpoint,
    load_model,
    save_checkpoint,
)
from anytime_model.labels import Label

__all__ = [
    "MANIFEST",
    "Card",
    "Certificate",
    "Checkpoint",
    "Label",
    "Masking",
    "Quality",
    "load_checkpoint",
    "load_model",
    "read_manifest",
    "save_checkpoint",
    "write_card",
]
