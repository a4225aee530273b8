"""The ablations train what they say: one start for all systems, and results that are kept."""

import json
import sys
from pathlib import Path

import pytest
import torch

from anytime_model.data.augment import SegmentationAugmentation
from anytime_model.networks.base import build_network
from anytime_model.networks.hrnet.config import NetworkConfig
from anytime_model.networks.hrnet.exits import RedesignedExit
from anytime_model.networks.hrnet.masking import MaskedConv2d, Masks
from anytime_model.training.train_step import build_optimisers
from model.data_factories import camvid_tree
from model.factories import random_image

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def ablations(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    import ablations  # noqa: PLC0415  found in bench only

    return ablations


@pytest.fixture
def systems(ablations):
    import systems  # noqa: PLC0415  found in bench only

    return systems


@pytest.fixture
def paper(ablations):
    import paper  # noqa: PLC0415  found in bench only

    return paper


@pytest.fixture
def backbone():
    torch.manual_seed(7)
    return build_network(NetworkConfig("tiny", outputs=3))


def lambdas(network):
    return {float(m.lam.detach()) for m in network.modules() if isinstance(m, MaskedConv2d)}


def test_all_systems_start_from_the_same_stages(systems, backbone):
    wanted = {n: t for n, t in backbone.stages.state_dict().items() if not n.endswith(".lam")}
    for system in systems.SYSTEMS.values():
        found = systems.Model(system, backbone).network.stages.state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_all_systems_start_from_new_heads_which_are_alike_where_their_shapes_are(systems, backbone):
    starts = {}
    for name in ("EE + RH", "ADP-C", "one exit"):
        torch.manual_seed(0)
        starts[name] = systems.Model(systems.SYSTEMS[name], backbone).network.exits.state_dict()
    first = starts["EE + RH"]
    for start in starts.values():
        assert all(torch.equal(start[name], tensor) for name, tensor in first.items())
    old = backbone.exits.state_dict()
    assert not any(torch.equal(first[name], old[name]) for name in old if "predict.weight" in name)


def one_step(systems, name, backbone):
    """A model after one step on noise, and the gradients of its exits before it."""
    torch.manual_seed(0)
    model = systems.Model(systems.SYSTEMS[name], backbone).train()
    optimisers = build_optimisers(model, systems.OPTIMISER)
    maps, penalty = model(random_image())
    terms = torch.stack([logits.square().mean() for logits in maps])
    (terms @ terms.new_tensor(model.system.exit_weights) + penalty).backward()
    for optimiser in optimisers:
        optimiser.step()
    return model


@pytest.mark.parametrize("name", ["ADP-C, filled with zeros", "ADP-C, filled with means"])
def test_a_given_filling_is_not_learnt(systems, backbone, name):
    model = one_step(systems, name, backbone)
    assert lambdas(model.network) == {systems.SYSTEMS[name].lam}


def test_one_exit_trains_no_early_head(systems, backbone):
    exits = one_step(systems, "one exit", backbone).network.exits
    assert not any(p.grad.any() for head in exits[:-1] for p in head.parameters() if p.ndim > 1)
    assert exits[-1].predict.weight.grad.any()


def test_sampling_trains_network_and_predictor_together(systems, backbone):
    model = one_step(systems, "stochastic sampling", backbone)
    assert all(conv.weight.grad.any() for conv in model.predictor.scorers)
    assert model.network.stages[0].stem[0].conv.weight.grad.any()


def heads_alike(ablations):
    """A pooled exit whose context is zero, and an ordinary one of the same weights."""
    pooled = ablations.PooledExit([4, 8], 3, width=8, depth=2, maskable=False).eval()
    plain = RedesignedExit([4, 8], 3, width=8, depth=2, maskable=False).eval()
    plain.load_state_dict(pooled.state_dict(), strict=False)
    torch.nn.init.zeros_(pooled.context.weight)
    torch.nn.init.zeros_(pooled.context.bias)
    return pooled, plain


def test_a_pooled_exit_without_context_is_a_redesigned_one(ablations):
    pooled, plain = heads_alike(ablations)
    branches = [torch.rand(2, 4, 16, 24), torch.rand(2, 8, 8, 12)]
    assert torch.equal(pooled(branches, None), plain(branches, None))


def test_a_pooled_exit_sees_the_whole_image_from_every_position(ablations):
    pooled, _ = heads_alike(ablations)
    torch.nn.init.constant_(pooled.context.weight, 1.0)
    branches = [torch.rand(1, 4, 64, 64), torch.rand(1, 8, 32, 32)]
    before = pooled(branches, None)
    branches[0][..., -4:, -4:] += 5.0
    assert (pooled(branches, None) - before)[..., 0, 0].abs().max() > 0


def test_a_pooled_exit_refuses_masks(ablations):
    pooled, _ = heads_alike(ablations)
    with pytest.raises(ablations.ConfigError, match="no masks"):
        pooled([torch.rand(1, 4, 16, 16)], Masks({}))


def test_a_result_is_made_once(ablations, tmp_path):
    path, made = tmp_path / "results.json", []

    def make():
        made.append(1)
        return {"quality": [1.0]}

    for _ in range(2):
        results = ablations.Results(path, seconds=60)
        assert results.get("part", "row", make) == {"quality": [1.0]}
    assert (len(made), results.has("part", "row"), results.has("part", "other")) == (1, True, False)


def test_the_report_gives_mean_lowest_and_highest_seed_of_each_system(paper):
    rows = {
        f"A, seed {seed}": {"steps": 9, "quality": [value], "gflops": [2.0]}
        for seed, value in ((0, 40.0), (1, 44.0))
    }
    lines = paper.systems_section({"systems": rows})
    assert "| A | 2 | 9 | 42.0 (40.0 to 44.0) | 2.00 | - |" in lines


def test_the_report_says_that_no_system_was_trained(paper):
    assert any(line.startswith("Not measured yet") for line in paper.systems_section({}))


@pytest.mark.slow
def test_a_system_is_trained_scored_and_kept(systems, ablations, tmp_path, monkeypatch):
    results, data = tmp_path / "results.json", camvid_tree(tmp_path / "camvid", (64, 96))
    monkeypatch.setattr(systems, "RESULTS", results)
    monkeypatch.setattr(systems, "FRAMES", 2)
    monkeypatch.setattr(systems, "STATISTICS_STEPS", 1)
    crops = SegmentationAugmentation((64, 64), (0.8, 1.2))
    monkeypatch.setattr(systems, "AUGMENTATION", crops)
    call = ["systems.py", "EE + RH", "--data", str(data), "--steps", "2", "--seed", "3"]
    monkeypatch.setattr(sys, "argv", call)
    systems.main()
    kept = results.read_text("utf-8")
    rows = json.loads(kept)["systems"]
    plain, masked = rows["EE + RH, seed 3"], rows["EE + RH, masks at inference only, seed 3"]
    assert len(plain["quality"]) == len(masked["quality"]) == 4
    assert plain["masked"] == [0, 0, 0]
    assert masked["gflops"][-1] <= plain["gflops"][-1]
    assert masked["quality"][0] == plain["quality"][0]
    monkeypatch.setattr(systems, "trained", lambda *_: pytest.fail("trained again"))
    systems.main()
    assert results.read_text("utf-8") == kept
