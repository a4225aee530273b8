"""The authors' names of an MDEQ's tensors, and ours."""

import re

import torch

from anytime_model.networks.mdeq import MdeqConfig, MdeqNetwork

_BLOCK = r"fullstage\.branches\.(\d)\.blocks\.0\."
_FUSE = r"fullstage\.fuse_layers\.(\d)\.(\d)\.net\."
_POST = r"fullstage\.post_fuse_layers\.(\d)\."
_NORMED = r".parametrizations.weight.original_\2"
RULES = {
    r"downsample\.0\.(.*)": r"stem.convs.0.\1",
    r"downsample\.1\.(.*)": r"stem.norms.0.\1",
    r"downsample\.3\.(.*)": r"stem.convs.1.\1",
    r"downsample\.4\.(.*)": r"stem.norms.1.\1",
    r"stage0\.0\.(.*)": r"stem.convs.2.\1",
    r"stage0\.1\.(.*)": r"stem.norms.2.\1",
    _BLOCK + r"conv1\.weight_(.)": r"function.blocks.\1.widen" + _NORMED,
    _BLOCK + r"conv2\.weight_(.)": r"function.blocks.\1.narrow" + _NORMED,
    _BLOCK + r"gn1\.(.*)": r"function.blocks.\1.widen_norm.\2",
    _BLOCK + r"gn2\.(.*)": r"function.blocks.\1.narrow_norm.\2",
    _BLOCK + r"gn3\.(.*)": r"function.blocks.\1.norm.\2",
    _FUSE + r"conv\.(.*)": r"function.mixes.\1.sources.\2.conv.\3",
    _FUSE + r"gnorm\.(.*)": r"function.mixes.\1.sources.\2.norm.\3",
    _FUSE + r"(\d)\.conv\.(.*)": r"function.mixes.\1.sources.\2.convs.\3.\4",
    _FUSE + r"(\d)\.gnorm\.(.*)": r"function.mixes.\1.sources.\2.norms.\3.\4",
    _POST + r"conv\.weight_(.)": r"function.mixes.\1.conv" + _NORMED,
    _POST + r"gnorm\.(.*)": r"function.mixes.\1.norm.\2",
    r"last_layer\.0\.(.*)": r"exits.*.join.\1",
    r"last_layer\.1\.(.*)": r"exits.*.norm.\1",
    r"last_layer\.3\.(.*)": r"exits.*.predict.\1",
}


def our_name(name):
    """Ours for one of theirs; `*` stands for every exit."""
    for theirs, ours in RULES.items():
        if re.fullmatch(theirs, name):
            named = re.sub(theirs, ours, name)
            return named.replace("original_g", "original0").replace("original_v", "original1")
    raise KeyError(name)


def network_of(arrays, iterations):
    """A network with the weights of a reference file, all exits with the one head that it has."""
    outputs = len(arrays["w/last_layer.3.bias"])
    network = MdeqNetwork(MdeqConfig("tiny", outputs, iterations=iterations)).eval()
    weights = {}
    for key in (key for key in arrays if key.startswith("w/")):
        name, value = our_name(key.removeprefix("w/")), torch.from_numpy(arrays[key])
        for exit_ in range(len(iterations)) if "*" in name else (0,):
            weights[name.replace("*", str(exit_))] = value
    network.load_state_dict(weights)
    return network.requires_grad_(False)
