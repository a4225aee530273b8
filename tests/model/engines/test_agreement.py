"""Every engine against the definition: the same maps and masks, whatever is masked."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anytime_model.confidence import (
    Entropy,
    HeatmapMaximum,
    Margin,
    MaximumProbability,
    RandomShare,
    TopShare,
)
from anytime_model.engines.openvino_engine import OpenVinoEngine
from anytime_model.engines.torch_engine import TorchEngine
from anytime_model.networks.base import Prior
from anytime_model.tasks import decode_labels
from model.comparing import assert_agrees, native, native_isas, run, sampled
from model.factories import masks, random_pixels, smooth_pixels, tiny_checkpoint
from model.fakes import Painted

ISAS = native_isas()
built = pytest.mark.skipif(not ISAS, reason="the native kernels are not built")

STRUCTURES = {
    "redesigned": {},
    "original": {"exits": "original"},
    "shallow": {"depths": (1, 1, 1)},
    "deep": {"depths": (3, 3, 3)},
    "one class": {"outputs": 1},
    "many classes": {"outputs": 59},
}
MASKS = masks(16, 24)


@pytest.fixture(scope="module", params=ISAS)
def isa(request):
    return request.param


@pytest.fixture(scope="module")
def checkpoint():
    return tiny_checkpoint()


@pytest.mark.slow
@built
@pytest.mark.parametrize(
    ("isa", "task", "structure"), sampled(ISAS, ["segmentation", "pose"], STRUCTURES)
)
def test_a_dense_run_agrees_at_every_exit(isa, task, structure):
    checkpoint = tiny_checkpoint(task, **STRUCTURES[structure])
    image = random_pixels(64, 96)
    assert_agrees(run(native(checkpoint, isa), image), run(TorchEngine(checkpoint), image))


@built
@pytest.mark.parametrize(
    ("isa", "task", "structure", "name"),
    sampled(ISAS, ["segmentation", "pose"], ["redesigned", "original", "deep"], MASKS),
)
def test_a_masked_run_agrees_whatever_the_mask(isa, task, structure, name):
    checkpoint = tiny_checkpoint(task, **STRUCTURES[structure])
    image = random_pixels(64, 96)
    criteria = [Painted(MASKS[name]), None, Painted(MASKS["dense"])]
    assert_agrees(
        run(native(checkpoint, isa), image, criteria), run(TorchEngine(checkpoint), image, criteria)
    )


def a_prior(name, outputs=5):
    logits = np.random.default_rng(8).standard_normal((outputs, 16, 24), np.float32)
    return Prior.from_arrays(3 * logits, MASKS[name])


@built
@pytest.mark.parametrize(("isa", "task", "name"), sampled(ISAS, ["segmentation", "pose"], MASKS))
def test_a_run_from_a_prior_agrees(isa, task, name):
    checkpoint = tiny_checkpoint(task)
    image, prior = smooth_pixels(60, 90), a_prior(name)
    criterion = HeatmapMaximum(2.0) if task == "pose" else MaximumProbability(0.6)
    for criteria in ([None] * 3, [criterion] * 3, [None, Painted(MASKS["dense"]), None]):
        ours = run(native(checkpoint, isa), image, criteria, prior=prior)
        assert_agrees(ours, run(TorchEngine(checkpoint), image, criteria, prior=prior))
        settled = ~MASKS[name]
        for result in ours:
            kept = prior.logits[0].numpy()[:, settled]
            np.testing.assert_array_equal(result.logits[:, settled], kept)
            assert not result.active[settled].any()


@built
def test_a_prior_is_forgotten_with_its_image(checkpoint):
    engine, image = native(checkpoint), random_pixels(64, 96)
    expected = run(engine, image)
    run(engine, image, prior=a_prior("scattered"))
    assert_agrees(run(engine, image), expected, tolerance=0)


@pytest.mark.slow
def test_openvino_takes_a_prior_as_it_takes_masks(checkpoint):
    pytest.importorskip("openvino")
    image, prior = smooth_pixels(60, 90), a_prior("scattered")
    first, *others = run(OpenVinoEngine(checkpoint), image, prior=prior)
    assert_agrees([first], run(TorchEngine(checkpoint), image, prior=prior)[:1])
    settled = ~MASKS["scattered"]
    for result in others:
        np.testing.assert_array_equal(result.logits[:, settled], first.logits[:, settled])
        np.testing.assert_array_equal(result.active, MASKS["scattered"])


@pytest.mark.parametrize(
    "criterion",
    [MaximumProbability(0.6), Entropy(0.8), Margin(0.4), TopShare(0.4), RandomShare(0.5, seed=3)],
    ids=lambda c: type(c).__name__,
)
@built
def test_every_criterion_settles_the_same_positions(checkpoint, criterion):
    image = smooth_pixels(100, 150)
    criteria = [criterion] * 3
    expected = run(TorchEngine(checkpoint), image, criteria)
    assert 0 < expected[0].active_share < 1
    assert_agrees(run(native(checkpoint), image, criteria), expected)


@built
def test_heatmaps_settle_the_same_positions():
    checkpoint = tiny_checkpoint("pose")
    image, criteria = smooth_pixels(64, 96), [HeatmapMaximum(2.0)] * 3
    expected = run(TorchEngine(checkpoint), image, criteria)
    assert 0 < expected[0].active_share < 1
    assert_agrees(run(native(checkpoint), image, criteria), expected)


@built
@pytest.mark.parametrize("size", [(1, 1), (31, 33), (32, 32), (33, 97), (5, 200), (130, 66)])
def test_odd_sizes_agree(checkpoint, size):
    image, criteria = smooth_pixels(*size), [MaximumProbability(0.7)] * 3
    assert_agrees(
        run(native(checkpoint), image, criteria), run(TorchEngine(checkpoint), image, criteria)
    )


@built
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), share=st.floats(0, 1), smooth=st.booleans())
def test_any_mask_agrees(checkpoint, seed, share, smooth):
    rng = np.random.default_rng(seed)
    noise = rng.random((4, 6) if smooth else (16, 24))
    mask = (np.kron(noise, np.ones((4, 4))) if smooth else noise) < share
    image, criteria = random_pixels(64, 96, seed % 7), [Painted(mask)] * 3
    assert_agrees(
        run(native(checkpoint), image, criteria), run(TorchEngine(checkpoint), image, criteria)
    )


@built
@pytest.mark.parametrize("lam", [0.2, 0.8, 3.0, 5.0])
def test_any_lambda_agrees(lam):
    checkpoint = tiny_checkpoint()
    for name, parameter in checkpoint.network.named_parameters():
        if name.endswith(".lam"):
            parameter.fill_(lam)
    image, criteria = random_pixels(64, 96), [Painted(MASKS["scattered"])] * 3
    assert_agrees(
        run(native(checkpoint), image, criteria), run(TorchEngine(checkpoint), image, criteria)
    )


@built
def test_images_under_way_at_once_do_not_touch_each_other(checkpoint):
    engine = native(checkpoint)
    images = [smooth_pixels(64, 96, seed) for seed in range(3)]
    criteria = [[MaximumProbability(0.5 + 0.1 * i)] * 3 + [None] for i in range(3)]
    runs = [engine.begin(image) for image in images]
    made = [[] for _ in runs]
    for exit_ in range(4):
        for i in np.random.default_rng(exit_).permutation(3):
            made[i].append(runs[i].advance(criteria[i][exit_]))
    for image, results, used in zip(images, made, criteria, strict=True):
        assert_agrees(results, run(TorchEngine(checkpoint), image, used[:3]))


@built
def test_a_run_does_not_see_what_the_last_image_left_behind(isa, checkpoint):
    engine, image = native(checkpoint, isa), random_pixels(64, 96, 1)
    criteria = [Painted(MASKS["scattered"])] * 3
    first = run(engine, image, criteria)
    run(engine, 255 - image)
    assert_agrees(run(engine, image, criteria), first, tolerance=0)


@built
def test_labels_agree_at_the_size_of_the_image(isa, checkpoint):
    engine = native(checkpoint, isa)
    for size in [(64, 96), (1, 1), (61, 93), (300, 280)]:
        result = run(engine, random_pixels(*size))[-1]
        logits = torch.from_numpy(np.ascontiguousarray(result.logits))[None]
        expected = decode_labels(logits, size, 4)[0].numpy()
        differing = engine.decode(result).labels != expected
        assert differing.mean() < 1e-3  # ties within rounding


@built
@settings(max_examples=60, deadline=None)
@given(before=st.tuples(*[st.integers(1, 90)] * 2), after=st.tuples(*[st.integers(1, 60)] * 2))
def test_an_image_is_resized_to_the_same_bytes(checkpoint, before, after):
    image = random_pixels(*before)
    expected = TorchEngine(checkpoint).resized(image, after)
    np.testing.assert_array_equal(native(checkpoint).resized(image, after), expected)


@built
def test_keypoints_agree():
    checkpoint = tiny_checkpoint("pose")
    image = random_pixels(70, 90)
    ours, theirs = native(checkpoint), TorchEngine(checkpoint)
    np.testing.assert_allclose(
        ours.decode(run(ours, image)[-1]).points,
        theirs.decode(run(theirs, image)[-1]).points,
        atol=1e-4,
    )


@built
def test_masks_save_multiply_adds(checkpoint):
    engine, image = native(checkpoint), random_pixels(64, 96)
    dense = run(engine, image)
    criteria = [Painted(MASKS["borders"])] * 3
    masked = run(engine, image, criteria)
    assert masked[0].macs == dense[0].macs
    assert all(m.macs < 0.8 * d.macs for m, d in zip(masked[1:], dense[1:], strict=True))
    nothing = run(engine, image, [Painted(MASKS["nothing"])] * 3)
    assert [r.macs for r in nothing[1:]] == [0, 0, 0]


@pytest.mark.parametrize("isa", native_isas("bf16"))
def test_bfloat16_stays_near_the_definition(checkpoint, isa):
    engine, image = native(checkpoint, isa), random_pixels(64, 96)
    criteria = [Painted(MASKS["scattered"])] * 3
    for prior in (None, a_prior("a line")):
        ours = run(engine, image, criteria, prior=prior)
        expected = run(TorchEngine(checkpoint), image, criteria, prior=prior)
        assert_agrees(ours, expected, tolerance=0.05)
