"""The Python blocks of the README run as they stand."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("block", [b for b in BLOCKS if "anytime_model" in b])
def test_a_block_on_the_network_runs(block):
    names = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["logits"].shape == (1, 19, 360, 480)
