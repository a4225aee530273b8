"""Published checkpoints: what loads, what stays untrained, and what is refused with which words."""

import pickle

import pytest
import torch

from anytime_model.checkpoint.importer import from_tensors, import_checkpoint, read_tensors
from anytime_model.checkpoint.key_map import Names, Source
from anytime_model.errors import CheckpointError
from anytime_model.networks.hrnet.anytime import AnytimeNetwork
from anytime_model.networks.hrnet.config import NetworkConfig
from model.factories import published, tiny_network

CONFIG = NetworkConfig("tiny", 5)


def backbone_only(tensors):
    heads = ("exit", "last_layer", "final_layer")
    return {
        k: v for k, v in tensors.items() if not k.startswith(heads) and not k.endswith("Lambda")
    }


def same(one, other):
    a, b = one.state_dict(), other.state_dict()
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("exits", ["original", "redesigned"])
@pytest.mark.parametrize("prefix", ["", "model.", "module.model."])
def test_the_authors_files_load_whole(tmp_path, exits, prefix):
    network = tiny_network(exits=exits)
    content = {prefix + k: v for k, v in published(network).items()}
    content[prefix + "conv1.num_batches_tracked"] = torch.tensor(1)
    content[prefix + "transition1.0.0.square_dis"] = torch.zeros(7, 7)
    torch.save({"state_dict": content, "epoch": 3}, tmp_path / "adpc.pth")
    imported = import_checkpoint(tmp_path / "adpc.pth", network.config)
    assert imported.source is Source.ADPC
    assert imported.untrained == ()
    assert same(imported.network, network)


def test_a_network_trained_without_masks_keeps_the_initial_lambda(tmp_path):
    imported = from_tensors(published(tiny_network(), lambdas=False), CONFIG, tmp_path)
    assert imported.untrained_parts == ("lambda of the masked convolutions",)
    lambdas = [p for n, p in imported.network.named_parameters() if n.endswith(".lam")]
    assert all(p.item() == 3.0 for p in lambdas)


def test_an_imagenet_file_brings_the_backbone_and_says_what_stays_untrained(tmp_path):
    network = tiny_network()
    tensors = backbone_only(published(network))
    tensors |= {
        "classifier.weight": torch.zeros(3),
        "incre_modules.0.0.conv1.weight": torch.zeros(3),
    }
    imported = from_tensors(tensors, CONFIG, tmp_path)
    assert imported.source is Source.IMAGENET
    assert {"exit 1", "exit 2", "exit 3", "exit 4"} <= set(imported.untrained_parts)
    assert torch.equal(
        imported.network.state_dict()["stages.2.transition.grow.conv.weight"],
        network.state_dict()["stages.2.transition.grow.conv.weight"],
    )


def test_a_segmentation_file_brings_the_last_exit_too(tmp_path):
    network = tiny_network()
    tensors = backbone_only(published(network))
    tensors |= {k: v for k, v in published(network).items() if k.startswith("last_layer")}
    tensors = {k: v for k, v in tensors.items() if not k.endswith("Lambda")}
    imported = from_tensors(tensors, CONFIG, tmp_path)
    assert imported.source is Source.SEGMENTATION
    assert "exits.3.predict.weight" not in imported.untrained
    assert "exits.0.predict.weight" in imported.untrained


def test_a_last_exit_of_other_classes_stays_untrained(tmp_path):
    tensors = {
        k: v
        for k, v in published(tiny_network(outputs=7)).items()
        if not k.startswith("exit") and not k.endswith("Lambda")
    }
    imported = from_tensors(tensors, CONFIG, tmp_path)
    assert "exits.3.predict.weight" in imported.untrained


def test_a_pose_file_ends_in_its_final_layer(tmp_path):
    network = tiny_network(task="pose", exits="original")
    tensors = {
        k: v
        for k, v in published(network, last="final_layer").items()
        if not k.startswith("exit") and not k.endswith("Lambda")
    }
    tensors["final_layer.weight"] = tensors.pop(
        "final_layer.3.weight", tensors.get("final_layer.weight")
    )
    imported = from_tensors(tensors, network.config, tmp_path)
    assert imported.source is Source.POSE
    assert "exits.3.predict.weight" not in imported.untrained
    assert torch.equal(imported.network.exits[3].predict.weight, network.exits[3].predict.weight)


def test_an_imagenet_file_loads_into_a_pose_network(tmp_path):
    tensors = backbone_only(published(tiny_network()))
    tensors["classifier.weight"] = torch.zeros(3)
    config = NetworkConfig("tiny", 5, task="pose")
    assert from_tensors(tensors, config, tmp_path).source is Source.IMAGENET


def test_missing_entries_are_named(tmp_path):
    tensors = published(tiny_network())
    del tensors["stage3.0.branches.1.0.conv1.weight"]
    with pytest.raises(CheckpointError, match=r"no entry.*stage3\.0\.branches\.1\.0\.conv1") as e:
        from_tensors(tensors, CONFIG, tmp_path / "x.pth")
    assert e.value.path.name == "x.pth"
    assert e.value.keys == ("stage3.0.branches.1.0.conv1.weight",)


def test_unknown_entries_are_named(tmp_path):
    tensors = published(tiny_network()) | {"stage9.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"unknown entries: stage9\.weight"):
        from_tensors(tensors, CONFIG, tmp_path)


def test_entries_of_another_shape_are_named_with_both_shapes(tmp_path):
    tensors = published(tiny_network(outputs=7))
    with pytest.raises(CheckpointError, match=r"\(7, 8, 1, 1\) instead of \(5, 8, 1, 1\)"):
        from_tensors(tensors, CONFIG, tmp_path)


def test_the_wrong_exits_are_refused_with_the_option_to_change(tmp_path):
    tensors = published(tiny_network(exits="original"))
    with pytest.raises(CheckpointError, match="--exits"):
        from_tensors(tensors, CONFIG, tmp_path)


def test_a_network_that_is_no_hrnet_is_refused(tmp_path):
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "resnet.pth")
    with pytest.raises(CheckpointError, match=r"fc\.weight.*not those of an HRNet"):
        import_checkpoint(tmp_path / "resnet.pth", CONFIG)


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 truncated"])
def test_what_is_no_checkpoint_is_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="truncated, no checkpoint"):
        read_tensors(path)


def test_a_truncated_checkpoint_is_refused(tmp_path):
    path = tmp_path / "x.pth"
    torch.save(published(tiny_network()), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="truncated"):
        read_tensors(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        read_tensors(tmp_path / "none.pth")


def test_a_file_without_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read_tensors(tmp_path / "x.pth")


class Bomb:
    armed = False

    def __reduce__(self):
        return (setattr, (Bomb, "armed", True))


def test_pickled_code_is_never_run(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"weight": Bomb()}, path)
    with pytest.raises(CheckpointError, match="pickled code"):
        read_tensors(path)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError):
        read_tensors(path)
    assert not Bomb.armed


@pytest.mark.slow
def test_every_entry_has_a_published_name_of_its_own():
    for exits in ("original", "redesigned"):
        for preset in ("tiny", "w18", "w48"):
            config = NetworkConfig(preset, 5, exits=exits)
            with torch.device("meta"):
                network = AnytimeNetwork(config)
            names = [Names(config, frozenset()).of(ours) for ours in network.state_dict()]
            assert len(set(names)) == len(names)
