"""The anytime MDEQ: it is the authors' published one, and may be stopped and gone on with."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from anytime_model.checkpoint.store import Checkpoint
from anytime_model.confidence import MaximumProbability
from anytime_model.engines.ladder import LadderEngine
from anytime_model.engines.select import make_network_engine
from anytime_model.engines.torch_engine import TorchEngine
from anytime_model.errors import FamilyError
from anytime_model.flops import GIGA, conv_costs, per_exit
from anytime_model.networks.base import build_network
from anytime_model.networks.mdeq import MdeqConfig, broyden
from anytime_model.networks.mdeq.broyden import Iterate
from model.factories import GOLDEN, random_image, tiny_card
from model.networks.mdeq.published import network_of

FILE = GOLDEN / "mdeq" / "mdeq_small.npz"
CONFIG = MdeqConfig("tiny", 5)


@pytest.fixture(scope="module")
def published():
    with np.load(FILE) as file:
        return dict(file)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network(CONFIG).eval().requires_grad_(False)


def never():
    pass


def maps(arrays, key):
    return [torch.from_numpy(arrays[f"{key}/b{i}"]) for i in range(4)]


def agrees(found, expected, within=1e-5):
    return float((found - expected).abs().max()) <= within * float(expected.abs().max())


def test_the_stem_and_one_evaluation_are_the_published_ones(published):
    network = network_of(published, (1, 2))
    injection = network.stem(torch.from_numpy(published["input"]))
    assert agrees(injection, torch.from_numpy(published["injection"]))
    found = network.function(maps(published, "given"), injection, never)
    for ours, theirs in zip(found, maps(published, "given_f"), strict=True):
        assert agrees(ours, theirs)


def test_the_iterates_of_the_solver_and_their_maps_are_the_published_ones(published):
    network = network_of(published, (2, 7))
    state = network.begin(torch.from_numpy(published["input"]))
    while not state.done:
        state = network.advance(state)
    injection, *memory = state.features
    theirs = torch.cat([x.flatten(1) for x in maps(published, "broyden7")], dim=1)
    assert agrees(Iterate(*memory).z, theirs)
    assert injection.shape == (1, 8, 16, 24)
    assert agrees(state.logits, torch.from_numpy(published["logits_broyden7"]))


def test_a_run_in_parts_makes_the_map_of_a_run_in_one(network):
    image = random_image(height=64, width=96)
    parts = network(image)[-1]
    once = build_network(MdeqConfig("tiny", 5, iterations=(1, 10))).eval()
    weights = network.state_dict()
    for name in list(weights):
        if name.startswith("exits.3."):
            weights[name.replace("exits.3.", "exits.1.")] = weights[name]
    once.load_state_dict({k: v for k, v in weights.items() if k in once.state_dict()})
    with torch.no_grad():
        assert agrees(once(image)[-1].logits, parts.logits)


def test_an_exit_that_is_made_at_once_has_the_same_map(network):
    image = random_image(height=64, width=64)
    direct = network.advance(network.begin(image), exit_=3)
    assert agrees(direct.logits, network(image)[2].logits)


def test_images_of_a_batch_have_their_own_fixed_points(network):
    images = random_image(batch=3, height=64, width=64)
    together = network(images)[-1].logits
    for i in range(3):
        alone = network(images[i : i + 1])[-1].logits[0]
        assert agrees(alone, together[i], within=1e-3)  # ten steps enlarge what rounding differs


def test_settled_positions_keep_their_maps(network):
    states = network(random_image(height=64, width=64), MaximumProbability(0.5))
    for before, after in pairwise(states):
        settled = ~before.active.expand_as(before.logits)
        assert torch.equal(before.logits[settled], after.logits[settled])


def test_the_smallest_image_has_maps(network):
    assert network(random_image(height=3, width=5))[-1].logits.shape == (1, 5, 8, 8)


def test_a_stage_that_is_abandoned_can_be_made_again(network):
    state = network.advance(network.begin(random_image(height=64, width=64)))
    expected = network.advance(state).logits
    with pytest.raises(InterruptedError):
        network.advance(state, pause=stop_after(7))
    assert torch.equal(network.advance(state).logits, expected)


def stop_after(count):
    left = iter(range(count))

    def pause():
        if next(left, None) is None:
            raise InterruptedError

    return pause


def test_broydens_method_finds_the_fixed_point_of_a_linear_map():
    torch.manual_seed(1)
    matrix, offset = 0.5 * torch.randn(6, 6).double() / 6**0.5, torch.randn(2, 6).double()
    wanted = torch.linalg.solve(torch.eye(6).double() - matrix, offset.T).T
    at = broyden.start(torch.zeros(2, 6).double())
    for _ in range(14):  # of n dimensions at most 2n steps (Gay 1979)
        at = broyden.advance(at, lambda z: z @ matrix.T + offset)
    assert torch.allclose(at.z, wanted, atol=1e-9)
    again = broyden.advance(at, lambda z: z @ matrix.T + offset)
    assert torch.isfinite(again.z).all()


def test_an_iterate_that_has_arrived_stays():
    at = broyden.start(torch.zeros(1, 3))
    for _ in range(4):
        at = broyden.advance(at, lambda z: 0.0 * z + 1.0)
    assert torch.equal(at.z, torch.ones(1, 3))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "published"),
    [("small", {1: 227.2, 4: 521.6, 10: 1110.5, 27: 2778.8}), ("xl", {1: 1983.0, 27: 24819.1})],
)
def test_the_papers_counts_are_those_of_twice_as_many_evaluations_and_one(preset, published):
    # Its table 6 is met to its last digit if iteration k is 2 (k + 1) evaluations.
    costs = conv_costs(MdeqConfig(preset, 19, iterations=(1, 2)), 1024, 2048)
    first, second = (total / GIGA for total in per_exit(costs))
    head = sum(cost.dense for cost in costs if cost.head and cost.stage == 1) / GIGA
    one = second - first - head
    for iteration, count in published.items():
        assert first - one + 2 * (iteration + 1) * one == pytest.approx(count, abs=0.06)


def test_it_runs_on_torch_and_other_engines_say_why_not(network):
    checkpoint = Checkpoint(network, replace(tiny_card(), config=CONFIG))
    assert isinstance(make_network_engine(checkpoint, "auto", precision="f32"), TorchEngine)
    with pytest.raises(FamilyError, match=r"'mdeq'.*torch"):
        make_network_engine(checkpoint, "native", precision="f32")
    climbing = LadderEngine(TorchEngine(checkpoint)).begin(np.zeros((40, 50, 3), np.uint8))
    assert [climbing.advance().exit for _ in range(4)] == [1, 2, 3, 4]
