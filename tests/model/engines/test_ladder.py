"""A ladder joins a model's maps at several sizes; images and results keep their own frame."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from anytime_model.confidence import HeatmapMaximum, MaximumProbability, TopShare
from anytime_model.engines import ladder
from anytime_model.engines.ladder import LadderEngine, RungResult
from anytime_model.engines.openvino_engine import OpenVinoEngine
from anytime_model.engines.torch_engine import TorchEngine
from anytime_model.errors import ConfigError, FinishedError, InputError
from anytime_model.kernels.library import load
from anytime_model.networks.base import Prior, resized_size
from anytime_model.ops import upsample
from anytime_model.results import ExitResult, Keypoints, SegmentationMap
from model.comparing import assert_agrees, native, native_isas, run
from model.factories import random_pixels, smooth_pixels, tiny_checkpoint, with_ladder
from model.fakes import Painted

built = pytest.mark.skipif(not native_isas(), reason="the native kernels are not built")

KINDS = ["torch", pytest.param("native", marks=built)]
ENGINES = {"torch": TorchEngine, "native": native}
SURE = TopShare(0.5)
IMAGE = smooth_pixels(64, 96)


class StopError(Exception):
    """What a caller raises to stop."""


def after(calls):
    """A pause that stops after so many calls."""
    left = iter(range(calls))

    def pause():
        if next(left, None) is None:
            raise StopError

    return pause


class Spy(TorchEngine):
    """Remembers what it was asked for."""

    def __init__(self, checkpoint):
        super().__init__(checkpoint)
        self.shown, self.priors, self.prepared, self.criteria = [], [], [], []

    def begin(self, image, prior=None):
        self.shown.append(image)
        self.priors.append(prior)
        begun = super().begin(image, prior)
        advance = begun.advance

        def remembering(criterion=None, pause=None, *, exit_=None):
            self.criteria.append((len(self.shown), criterion))
            return advance(criterion, pause, exit_=exit_)

        begun.advance = remembering
        return begun

    def prepare(self, size):
        self.prepared.append(size)


class OneJoint(Spy):
    """Runs a network, and then says that a joint is at a share of the width and height."""

    def __init__(self, *sides, at=(0.5, 0.5)):
        super().__init__(with_ladder(tiny_checkpoint("pose"), *sides))
        self.at = np.array(at)

    def decode(self, result):
        xy = self.at * result.image_size[::-1] - 0.5
        return Keypoints(np.array([[*xy, 0.5]], np.float32))


def torch_ladder(*sides, task="segmentation", **changes):
    return LadderEngine(TorchEngine(with_ladder(tiny_checkpoint(task), *sides, **changes)))


def climb(engine, image, rungs, criterion=None, prior=None):
    """The results of a path, with one criterion for all rungs."""
    begun = engine.begin(image, prior)
    return [begun.advance(criterion, rung=rung) for rung in rungs]


def halving(checkpoint, image):
    """A criterion that settles about half of exit 1, with a threshold that no value is near."""
    result = LadderEngine(TorchEngine(checkpoint)).begin(image).advance()
    values = np.sort(result.confidence[result.inside].ravel())
    middle = values[len(values) // 4 : -len(values) // 4]
    gap = np.diff(middle).argmax()
    threshold = float(middle[gap : gap + 2].mean())
    pose = checkpoint.card.config.task == "pose"
    return HeatmapMaximum(threshold) if pose else MaximumProbability(threshold)


def assert_same(results, expected):
    for ours, theirs in zip(results, expected, strict=True):
        assert ours.exit == theirs.exit
        for name in ("logits", "confidence", "active"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((160, 160), 128, (128, 128)),
        ((300, 100), 128, (128, 43)),
        ((10, 20), 128, (64, 128)),
        ((4000, 1), 128, (128, 1)),
        ((37, 50), None, (37, 50)),
    ],
)
def test_the_longer_side_is_fitted_and_the_other_follows(size, side, expected):
    assert resized_size(size, side) == expected


# One size.


@pytest.mark.parametrize("sides", [(), (96,)])
@pytest.mark.parametrize("task", ["segmentation", "pose"])
def test_an_image_of_the_right_size_gives_what_the_engine_gives(sides, task):
    inner = TorchEngine(with_ladder(tiny_checkpoint(task), *sides))
    ours, theirs = run(LadderEngine(inner), IMAGE), run(inner, IMAGE)
    assert_same(ours, theirs)
    assert [r.macs for r in ours] == [r.macs for r in theirs]


def test_a_card_without_a_ladder_runs_images_as_they_come():
    inner = Spy(tiny_checkpoint())
    run(LadderEngine(inner), random_pixels(37, 50))
    assert [image.shape for image in inner.shown] == [(37, 50, 3)]


def test_it_speaks_for_the_engine_that_computes():
    inner = TorchEngine(with_ladder(tiny_checkpoint(), 64), bf16=True)
    engine = LadderEngine(inner)
    assert (engine.name, engine.dtype, engine.sparse) == ("torch-cpu-bf16", "bf16", False)
    assert engine.card is inner.card


# The order of rungs.


def test_rungs_are_counted_through_the_sizes_and_end_after_the_last():
    begun = torch_ladder(64, 96).begin(IMAGE)
    assert begun.exit == 0
    for rung in range(1, 9):
        result = begun.advance()
        assert isinstance(result, RungResult)
        assert result.exit == begun.exit == rung
        assert max(result.image_size) == (64 if rung <= 4 else 96)
        assert result.source_size == (64, 96)
    with pytest.raises(FinishedError, match="all 8 rungs"):
        begun.advance()


@pytest.mark.parametrize("rungs", [(1, 5), (1, 2, 9), (1, 5, 9, 10), (1, 9), (1, 2, 3, 4, 5, 6, 9)])
def test_a_run_may_jump_to_the_first_rung_of_any_larger_size(rungs):
    results = climb(torch_ladder(32, 64, 96), IMAGE, rungs)
    assert tuple(r.exit for r in results) == rungs
    assert [max(r.image_size) for r in results] == [(32, 64, 96)[(r - 1) // 4] for r in rungs]


@pytest.mark.parametrize(
    ("made", "wanted"), [(0, 2), (1, 3), (1, 1), (2, 1), (1, 6), (5, 7), (1, 9), (1, 0), (1, -3)]
)
def test_a_run_leads_nowhere_else_and_goes_on_after_the_refusal(made, wanted):
    begun = torch_ladder(64, 96).begin(IMAGE)
    for _ in range(made):
        begun.advance()
    with pytest.raises(ConfigError, match=f"rung {wanted} does not follow rung {made}"):
        begun.advance(rung=wanted)
    assert begun.advance().exit == made + 1


def test_a_size_that_is_passed_over_is_not_computed():
    inner = Spy(with_ladder(tiny_checkpoint(), 32, 64, 96))
    climb(LadderEngine(inner), random_pixels(128, 192), (1, 9))
    assert [image.shape[:2] for image in inner.shown] == [(21, 32), (64, 96)]


# Joining and seeds.


@pytest.mark.parametrize("task", ["segmentation", "pose"])
def test_a_larger_map_is_joined_with_what_the_smaller_size_ended_with(task):
    shares = (0.5, 0.4, 0.25, 0.0)
    engine = torch_ladder(64, 96, task=task, joining=shares)
    *_, small = climb(engine, IMAGE, (1, 2))
    large = run(TorchEngine(tiny_checkpoint(task)), IMAGE)
    joined = climb(engine, IMAGE, (1, 2, 5, 6, 7, 8))[2:]

    def normalised(logits):
        return F.log_softmax(logits, dim=1) if task == "segmentation" else logits

    rows, columns = small.inside
    mine = normalised(torch.from_numpy(small.logits[:, rows, columns])[None])
    mine = upsample(mine, (16, 24))
    for share, ours, alone in zip(shares, joined, large, strict=True):
        other = normalised(torch.from_numpy(alone.logits)[None])
        expected = share * mine + (1 - share) * other
        torch.testing.assert_close(torch.from_numpy(ours.logits)[None], expected)
        confidence = engine.card.task.confidence(expected)[0, 0]
        torch.testing.assert_close(torch.from_numpy(ours.confidence), confidence)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_settled_and_so_all_around_it_starts_settled_at_the_next_size(kind):
    inner = ENGINES[kind](with_ladder(tiny_checkpoint(), 64, 128))
    engine = LadderEngine(inner)
    active = np.ones((16, 16), bool)
    active[4:12, 4:12] = False
    begun = engine.begin(random_pixels(128, 128))
    small = begun.advance(Painted(active))
    results = [begun.advance(rung=rung) for rung in (5, 6, 7, 8)]
    settled = ~torch.from_numpy(results[0].active)
    # Cells 5 to 10 have settled ones all around; enlarged by two their middle is settled entirely,
    # and a blend with an active neighbour is active.
    assert settled[12:20, 12:20].all()
    assert not settled[:10].any()
    assert not settled[22:].any()
    assert not settled[:, :10].any()
    assert not settled[:, 22:].any()
    smaller = upsample(torch.from_numpy(small.logits)[None].log_softmax(1), (32, 32))
    for result in results:
        np.testing.assert_array_equal(result.active, results[0].active)
        found = torch.from_numpy(result.logits)[None].softmax(1)
        torch.testing.assert_close(
            found[..., settled], smaller.softmax(1)[..., settled], rtol=0, atol=1e-5
        )
    apart = np.abs(results[-1].logits - smaller[0].numpy())[:, :10]
    assert apart.max() > 0.1


def test_a_single_settled_cell_seeds_nothing():
    active = np.ones((16, 16), bool)
    active[7, 7] = False
    begun = torch_ladder(64, 128).begin(random_pixels(128, 128))
    begun.advance(Painted(active))
    assert begun.advance(rung=5).active.all()


def test_a_size_that_settled_everything_leaves_nothing_to_do():
    begun = torch_ladder(64, 96).begin(IMAGE)
    small = begun.advance(MaximumProbability(0.0))
    assert not small.active.any()
    large = begun.advance(rung=5)
    assert not large.active.any()


@built
def test_seeds_save_multiply_adds():
    engine = LadderEngine(native(with_ladder(tiny_checkpoint(), 64, 96)))
    seeded = engine.begin(IMAGE)
    seeded.advance(MaximumProbability(0.0))
    plain = engine.begin(IMAGE)
    plain.advance()
    for rung in (5, 6, 7, 8):
        a, b = seeded.advance(rung=rung), plain.advance(rung=rung)
        assert a.macs < b.macs or rung == 5  # stage 1 is computed everywhere


# Stops.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stopped_at", [1, 3, 5, 6, 8])
def test_a_stop_loses_no_rung_and_changes_no_map(kind, stopped_at, monkeypatch):
    monkeypatch.setattr("anytime_model.engines.native.engine.SLICE_US", 1)
    engine = LadderEngine(ENGINES[kind](with_ladder(tiny_checkpoint(), 64, 96)))
    expected = climb(engine, IMAGE, range(1, 9), SURE)
    assert 0 < expected[3].active_share < 1
    begun = engine.begin(IMAGE)
    results = [begun.advance(SURE) for _ in range(stopped_at - 1)]
    for calls in (0, 1):
        with pytest.raises(StopError):
            begun.advance(SURE, after(calls))
        assert begun.exit == stopped_at - 1
    results += [begun.advance(SURE) for _ in range(stopped_at, 9)]
    assert_same(results, expected)
    assert [r.macs for r in results] == [r.macs for r in expected]


def test_exits_made_before_a_stop_are_made_again_with_their_own_criteria():
    inner = Spy(with_ladder(tiny_checkpoint(), 64, 96))
    criteria = [MaximumProbability(0.5 + 0.05 * k) for k in range(8)]
    begun = LadderEngine(inner).begin(IMAGE)
    for criterion in criteria[:6]:
        begun.advance(criterion)
    with pytest.raises(StopError):
        begun.advance(MaximumProbability(0.1), after(0))
    inner.criteria.clear()
    begun.advance(criteria[6])
    assert inner.criteria == [(3, criteria[4]), (3, criteria[5]), (3, criteria[6])]


def test_after_a_stop_at_a_larger_size_the_smaller_one_can_go_on():
    engine = torch_ladder(64, 96)
    expected = climb(engine, IMAGE, range(1, 9), SURE)
    begun = engine.begin(IMAGE)
    results = [begun.advance(SURE) for _ in range(2)]
    with pytest.raises(StopError):
        begun.advance(SURE, after(3), rung=5)
    results += [begun.advance(SURE) for _ in range(6)]
    assert_same(results, expected)


def test_after_a_stop_at_a_middle_size_the_run_may_pass_it_over():
    engine = torch_ladder(32, 64, 96)
    expected = climb(engine, IMAGE, (1, 9), SURE)
    begun = engine.begin(IMAGE)
    results = [begun.advance(SURE)]
    with pytest.raises(StopError):
        begun.advance(SURE, after(3), rung=5)
    results.append(begun.advance(SURE, rung=9))
    assert_same(results, expected)


def test_runs_of_one_engine_do_not_disturb_each_other():
    engine = torch_ladder(64, 96)
    images = [smooth_pixels(64, 96, seed) for seed in (1, 2)]
    alone = [climb(engine, image, range(1, 9), SURE) for image in images]
    runs = [engine.begin(image) for image in images]
    made = [[], []]
    for _ in range(8):
        for k in (0, 1):
            made[k].append(runs[k].advance(SURE))
    for ours, expected in zip(made, alone, strict=True):
        assert_same(ours, expected)


# A prior of the caller's own.


def left_half(height, width, padded, value=9.0):
    """A prior that is sure that the left of an image of (H, W) px is of class 3."""
    logits = np.zeros((5, *padded), np.float32)
    logits[3] = value
    active = np.zeros(padded, bool)
    active[:, width // 8 :] = True
    assert padded[0] * 4 >= height
    return Prior.from_arrays(logits, active)


@pytest.mark.parametrize("sides", [(64,), (64, 128), (32, 64, 256)])
def test_a_prior_is_resized_with_its_image_for_every_size(sides):
    engine = torch_ladder(*sides)
    begun = engine.begin(smooth_pixels(101, 203), left_half(101, 203, (32, 56)))
    for _ in range(4 * len(sides)):
        labels = engine.decode(begun.advance()).labels
        assert (labels[:, :85] == 3).all()
    assert (labels[:, 115:] != 3).any()


def test_a_prior_comes_before_what_a_smaller_size_has_found():
    inner = Spy(with_ladder(tiny_checkpoint(), 64, 96))
    prior = left_half(64, 96, (16, 24), value=2.0)
    begun = LadderEngine(inner).begin(IMAGE, prior)
    begun.advance(MaximumProbability(0.0))
    begun.advance(rung=5)
    used = inner.priors[-1]
    settled = ~prior.active[0, 0]
    assert not used.active.any()
    torch.testing.assert_close(used.logits[..., settled], prior.logits[..., settled])
    found = used.logits[..., 14:].exp().sum(1)
    torch.testing.assert_close(found, torch.ones_like(found), rtol=0, atol=0.2)


def test_a_prior_of_another_size_is_refused():
    prior = Prior.from_arrays(np.zeros((5, 16, 16), np.float32), np.zeros((16, 16), bool))
    with pytest.raises(InputError, match="padded size"):
        torch_ladder(64, 96).begin(smooth_pixels(101, 203), prior)


# Back to the frame of the image.


@pytest.mark.parametrize(("height", "width"), [(192, 288), (61, 96), (40, 60), (500, 96)])
@pytest.mark.parametrize("sides", [(96,), (64, 96)])
def test_joints_come_back_to_where_they_are_in_the_image(height, width, sides):
    inner = OneJoint(*sides)
    engine = LadderEngine(inner)
    for result in climb(engine, smooth_pixels(height, width), range(1, 4 * len(sides) + 1)):
        found = engine.decode(result)
        assert isinstance(found, Keypoints)
        assert result.source_size == (height, width)
        # The fake's joint is the middle of the picture, whatever the picture's size.
        middle = [[(width - 1) / 2, (height - 1) / 2, 0.5]]
        np.testing.assert_allclose(found.points, middle, atol=1e-3)
    assert [max(image.shape) for image in inner.shown] == list(sides)


def test_joints_are_never_outside_the_image():
    engine = LadderEngine(OneJoint(32, at=(1.0, 1.0)))
    found = engine.decode(run(engine, smooth_pixels(33, 500))[-1])
    assert isinstance(found, Keypoints)
    assert found.points[0, :2].tolist() == [499, 32]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width"), [(101, 203), (31, 40), (64, 96), (700, 500)])
def test_maps_cover_the_image_as_it_came(kind, height, width):
    engine = LadderEngine(ENGINES[kind](with_ladder(tiny_checkpoint(), 48, 64)))
    for result in climb(engine, smooth_pixels(height, width), (1, 2, 5, 6)):
        assert result.logits.shape[1:] == result.confidence.shape == result.active.shape
        assert 0 <= result.mean_confidence <= 1
        decoded = engine.decode(result)
        assert isinstance(decoded, SegmentationMap)
        assert decoded.labels.shape == (height, width)
        assert decoded.labels.dtype == np.uint8


def test_a_map_is_enlarged_before_its_classes_are_chosen():
    engine = torch_ladder(32)
    result = climb(engine, smooth_pixels(64, 96), (1,))[0]
    rows, columns = result.inside
    logits = torch.from_numpy(result.logits[:, rows, columns])[None]
    expected = upsample(upsample(logits, (16, 24)), (64, 96)).argmax(1)[0].numpy()
    np.testing.assert_array_equal(engine.decode(result).labels, expected)


def test_an_image_that_was_reduced_before_gets_results_at_its_first_size():
    engine = torch_ladder(64, 96)
    begun = engine.begin(smooth_pixels(101, 150), size=(808, 1200))
    result = begun.advance()
    assert result.image_size == (43, 64)
    assert engine.decode(result).labels.shape == (808, 1200)


@pytest.mark.parametrize("size", [(300, 200), (299, 201), (7, 3001), (1, 9000), (9000, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_map_beyond_the_bound_is_enlarged_from_a_whole_fraction(kind, size, monkeypatch):
    engine = LadderEngine(ENGINES[kind](with_ladder(tiny_checkpoint(), 64)))
    result = climb(engine, smooth_pixels(*size), (1,))[0]
    exact = engine.decode(result).labels
    monkeypatch.setattr(ladder, "_MOST_DECODED", 4000)
    decoded = []
    decode = engine._engine.decode
    monkeypatch.setattr(engine._engine, "decode", lambda r: decoded.append(r) or decode(r))
    labels = engine.decode(result).labels
    assert labels.shape == size
    assert np.prod(decoded[0].image_size) <= 4000
    assert (labels == exact).mean() > 0.8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", ["segmentation", "pose"])
@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1), (2, 3)])
def test_extreme_shapes_climb_the_ladder(kind, task, size):
    engine = LadderEngine(ENGINES[kind](with_ladder(tiny_checkpoint(task), 40, 96)))
    criterion = HeatmapMaximum(0.0) if task == "pose" else SURE
    for result in climb(engine, random_pixels(*size), range(1, 9), criterion):
        assert np.isfinite(result.logits).all()
        found = engine.decode(result)
        if isinstance(found, SegmentationMap):
            assert found.labels.shape == size
        else:
            assert (found.points[:, :2] >= 0).all()
            assert (found.points[:, :2] <= np.array(size[::-1]) - 1).all()


def test_a_result_of_no_ladder_is_decoded_as_the_engine_does():
    engine = torch_ladder(64, 96)
    result = run(TorchEngine(tiny_checkpoint()), IMAGE)[0]
    assert type(result) is ExitResult
    assert engine.decode(result).labels.shape == (64, 96)


@pytest.mark.parametrize("image", [np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)])
def test_what_is_no_image_is_refused_before_it_is_resized(image):
    with pytest.raises(InputError):
        torch_ladder(64, 96).begin(image)


# Engines.


@built
@pytest.mark.parametrize("task", ["segmentation", "pose"])
@pytest.mark.parametrize("rungs", [(1, 2, 3, 4, 5, 6, 7, 8), (1, 5, 6), (1, 2, 5)])
def test_engines_agree_along_a_ladder(task, rungs):
    checkpoint = with_ladder(tiny_checkpoint(task), 64, 128)
    image = random_pixels(96, 140)
    criterion = halving(checkpoint, image)
    expected = climb(LadderEngine(TorchEngine(checkpoint)), image, rungs, criterion)
    results = climb(LadderEngine(native(checkpoint)), image, rungs, criterion)
    assert 0 < expected[0].active_share < 1
    assert_agrees(results, expected)


@built
def test_bfloat16_climbs_near_the_definition():
    if not any(isa.endswith("bf16") for isa in load().isas):
        pytest.skip("this CPU has no AVX-512 BF16")
    checkpoint = with_ladder(tiny_checkpoint(), 64, 96)
    expected = climb(LadderEngine(TorchEngine(checkpoint)), IMAGE, range(1, 9))
    results = climb(LadderEngine(native(checkpoint, dtype="bf16")), IMAGE, range(1, 9))
    assert_agrees(results, expected, tolerance=0.05)


@pytest.mark.slow
def test_openvino_agrees_along_a_ladder():
    pytest.importorskip("openvino")
    checkpoint, rungs = with_ladder(tiny_checkpoint(), 64, 96), (1, 2, 5, 6, 7, 8)
    ours = climb(LadderEngine(OpenVinoEngine(checkpoint)), IMAGE, rungs)
    assert_agrees(ours, climb(LadderEngine(TorchEngine(checkpoint)), IMAGE, rungs))


@pytest.mark.slow
def test_openvino_keeps_what_a_smaller_size_has_settled():
    pytest.importorskip("openvino")
    engine = LadderEngine(OpenVinoEngine(with_ladder(tiny_checkpoint(), 64, 128)))
    begun = engine.begin(random_pixels(128, 128))
    begun.advance()
    prior = begun.advance(rung=5)
    assert prior.active.all()


def test_every_size_is_prepared_for():
    inner = Spy(with_ladder(tiny_checkpoint(), 32, 64, 96))
    LadderEngine(inner).prepare((480, 360))
    assert inner.prepared == [(32, 24), (64, 48), (96, 72)]
    LadderEngine(inner).prepare((480, 360), sides=1)
    assert inner.prepared[3:] == [(32, 24)]
    inner = Spy(tiny_checkpoint())
    LadderEngine(inner).prepare((480, 360))
    assert inner.prepared == [(480, 360)]


@built
def test_what_is_prepared_changes_no_map():
    checkpoint = with_ladder(tiny_checkpoint(), 64, 96)
    prepared, other = (LadderEngine(native(checkpoint)) for _ in range(2))
    prepared.prepare((64, 96))
    assert_same(climb(prepared, IMAGE, range(1, 9)), climb(other, IMAGE, range(1, 9)))


def test_the_ladder_is_that_of_the_card():
    checkpoint = with_ladder(tiny_checkpoint(), 64, 96)
    assert LadderEngine(TorchEngine(checkpoint)).sides == (64, 96)
    plain = replace(checkpoint, card=replace(checkpoint.card, sides=()))
    assert LadderEngine(TorchEngine(plain)).sides == (None,)


# Monotone maps.


def monotone(engine, rungs=range(1, 9), criterion=None, prior=None):
    begun = engine.begin(IMAGE, prior, monotone=True)
    return [begun.advance(criterion, rung=rung) for rung in rungs]


@pytest.mark.parametrize("task", ["segmentation", "pose"])
def test_a_monotone_map_is_the_mean_of_the_normalised_maps_of_its_size(task):
    engine = torch_ladder(task=task)
    normalised = [
        engine.card.task.normalised(torch.from_numpy(r.logits)[None])[0].numpy()
        for r in climb(engine, IMAGE, range(1, 5))
    ]
    for k, result in enumerate(monotone(engine, range(1, 5)), 1):
        np.testing.assert_allclose(result.logits, np.mean(normalised[:k], axis=0), atol=1e-5)


def test_monotone_maps_are_joined_with_the_smaller_size_as_others_are():
    engine = torch_ladder(64, 96)
    plain, product = climb(engine, IMAGE, range(1, 6)), monotone(engine, range(1, 6))
    np.testing.assert_allclose(  # exit 1 of a size is its own mean
        product[0].confidence, plain[0].confidence, atol=1e-6
    )
    assert not np.allclose(product[4].logits, plain[4].logits, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_settled_pixel_keeps_its_monotone_map(kind):
    engine = LadderEngine(ENGINES[kind](with_ladder(tiny_checkpoint(), 96)))
    results = monotone(engine, range(1, 5), SURE)
    for earlier, later in pairwise(results):
        settled = ~earlier.active
        assert settled.any()
        np.testing.assert_array_equal(earlier.logits[:, settled], later.logits[:, settled])


def test_criteria_judge_the_monotone_map():
    judged = []

    def judge(logits):
        judged.append(logits[0].numpy().copy())
        return torch.ones_like(logits[:, :1], dtype=torch.bool)

    for result, seen in zip(monotone(torch_ladder(64, 96), criterion=judge), judged, strict=True):
        np.testing.assert_array_equal(result.logits, seen)


@pytest.mark.parametrize("stopped_at", [2, 4, 6, 8])
def test_a_stop_changes_no_monotone_map(stopped_at):
    engine = torch_ladder(64, 96)
    expected = monotone(engine, criterion=SURE)
    begun = engine.begin(IMAGE, monotone=True)
    results = [begun.advance(SURE) for _ in range(stopped_at - 1)]
    with pytest.raises(StopError):
        begun.advance(SURE, after(1))
    results += [begun.advance(SURE) for _ in range(stopped_at, 9)]
    assert_same(results, expected)
