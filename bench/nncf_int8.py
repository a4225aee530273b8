"""The one-exit network in int8 as a user of OpenVINO would make it, for `engine.py`.

    FOLDER/bin/python bench/nncf_int8.py ONE_EXIT.onnx FRAMES.npy OUT.xml

It runs in an environment of its own (`make bench-nncf`), as NNCF wants other packages than ours.
Post-training quantisation with NNCF's preset for speed: weights a step for each output channel,
activations one a tensor, ranges from the frames, biases corrected.
"""

import sys

import nncf
import numpy as np
import openvino


def main() -> None:
    """Quantise and save."""
    source, frames, target = sys.argv[1:]
    batches = np.load(frames)
    model = openvino.Core().read_model(source)
    quantised = nncf.quantize(
        model,
        nncf.Dataset([batch[None] for batch in batches]),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=len(batches),
    )
    openvino.save_model(quantised, target, compress_to_fp16=False)


if __name__ == "__main__":
    main()
