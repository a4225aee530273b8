"""Models as the executor's process loads them: their masks, and what clients are told of those."""

from dataclasses import replace

import pytest
import torch

from anytime_model.checkpoint import Card, Certificate, Label, read_manifest, write_card
from anytime_model.checkpoint.store import save_checkpoint
from anytime_model.confidence import MaximumProbability
from anytime_model.engines.native.memory import MemoryBudget
from anytime_model.flops import conv_costs
from anytime_model.networks.lite import LiteConfig, LiteNetwork
from anytime_server.executor.loading import load, profile
from anytime_server.executor.messages import WorkerSettings
from server.weights import make_weights


@pytest.fixture(name="street", scope="module")
def _street(tmp_path_factory):
    """A model in float32 with a certificate in float32 for a risk of 0.1, and one in bf16."""
    folder = make_weights(tmp_path_factory.mktemp("weights"))
    card = read_manifest(folder)["street"]
    certificate = Certificate(
        risk=0.1,
        confidence=0.95,
        criterion="max_probability",
        thresholds=(0.9, 0.8, 0.7),
        images=400,
        measured=0.05,
        largest_loss=0.25,
        dataset="made up",
        precision="f32",
        sides=(),
        joining=card.joining,
        paths=((1, 2, 3, 4),),
        sha256=card.sha256,
    )
    other = replace(certificate, risk=0.2, precision="bf16")
    write_card(folder, replace(card, certificates=(certificate, other)))
    settings = WorkerSettings(folder, ("street",), "torch", "cpu", 1, (32, 32), precision="f32")
    return load(settings, MemoryBudget(2**30))["street"]


def test_a_certificate_brings_its_masks_and_a_risk_of_0_none(street):
    def masks(risk):
        return [street.criterion(stage, risk) for stage in (1, 2, 3, 4)]

    assert masks(0.1) == [MaximumProbability(t) for t in (0.9, 0.8, 0.7, 0.7)]
    assert masks(0.0) == [None] * 4
    assert masks(None) == [MaximumProbability(0.6)] * 4


def test_clients_are_told_of_certificates_in_the_precision_that_is_served(street):
    (told,) = profile(street, (32, 32)).info.certificates
    assert (told.risk, told.confidence, told.images, told.measured) == (0.1, 0.95, 400, 0.05)
    assert (told.largest_loss, told.dataset) == (0.25, "made up")


def test_clients_are_told_what_a_model_was_made_for(street):
    card = replace(street.card, description="Streets, seen from a car.")
    told = profile(replace(street, card=card), (32, 32)).info
    assert told.description == "Streets, seen from a car."


def test_what_an_exit_takes_by_itself_is_measured_where_it_may_be_left_out(tmp_path):
    torch.manual_seed(0)
    network = LiteNetwork(LiteConfig("tiny", 3))
    labels = tuple(Label(f"label {k}", "#4080ff") for k in range(3))
    card = Card("lite", "lite.safetensors", "", network.config, labels, sides=(64, 96))
    save_checkpoint(network, card, tmp_path)
    settings = WorkerSettings(tmp_path, (), "torch", "cpu", 1, (64, 96), precision="f32")
    found = profile(load(settings, MemoryBudget(2**30))["lite"], (64, 96)).profile
    for size in found.sizes:
        costs = conv_costs(network.config, size.height, size.width)
        heads = [sum(c.dense for c in costs if c.head and c.stage == k) for k in range(1, 5)]
        expected = [head / 1e9 for head in heads[:3]] + [0.0]
        assert [stage.exit_gmacs for stage in size.stages] == pytest.approx(expected)
        assert size.stages[3].exit_s == 0.0
        assert all(stage.exit_s >= 0.0 for stage in size.stages)


def test_no_exit_of_an_hrnet_is_measured_by_itself(street):
    for size in profile(street, (32, 32)).profile.sizes:
        assert all(stage.exit_s == stage.exit_gmacs == 0.0 for stage in size.stages)
