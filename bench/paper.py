"""The paper's tables and figures, ours beside them: builds docs/PAPER.md and docs/paper.png.

    make paper      # python bench/paper.py

Published figures and what was measured are in docs/paper.toml; multiply-adds are counted from the
networks when this runs, and qualities of shipped weights come from their cards. So nothing is
trained or measured here, and it takes some seconds. With `--check` nothing is written: it fails if
what would be written differs.
"""

import argparse
import sys
import tomllib
from functools import partial
from pathlib import Path

import matplotlib as mpl

from anytime_model import flops
from anytime_model.checkpoint.manifest import read_manifest
from anytime_model.flops import GIGA, ConvCost
from anytime_model.networks import base
from anytime_model.tasks import TASKS

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "docs" / "paper.toml"
REPORT = ROOT / "docs" / "PAPER.md"
PICTURE = ROOT / "docs" / "paper.png"


INTRODUCTION = (
    "Built by `make paper` from `docs/paper.toml`, the cards of `weights/` and counts of the",
    "networks; a test holds that it is up to date. The paper: Liu, Xu, Wang, Darrell, Shelhamer,",
    "*Anytime Dense Prediction with Confidence Adaptivity*, ICLR 2022. EE: early exiting; RH:",
    "redesigned heads; ADP-C: both with confidence adaptivity. GFLOPs are 2^30 multiply-adds, as",
    "in the paper. Published qualities are on data sets that were not at hand, so ours stand",
    "beside them on CamVid and LSPET, with small budgets on two CPU cores.",
)


def count(
    preset,
    *,
    family=base.DEFAULT_FAMILY,
    exits="redesigned",
    task="segmentation",
    size=(1024, 2048),
    outputs=None,
    head_width=0,
    masked=None,
    spread=0.0,
    one_exit=False,
    last=False,
):
    """2^30 multiply-adds up to each exit, as the paper counts them.

    Args:
        preset: size of the network.
        family: of networks.
        exits: "original" or "redesigned".
        task: its name.
        size: (H, W) of the image, px.
        outputs: classes or joints; None for the paper's.
        head_width: channels in redesigned exits; 0 for the paper's.
        masked: per cent of positions masked after each exit but the last.
        spread: standard deviation of these between images.
        one_exit: of the network without early exits.
        last: of the last exit alone.
    """
    entries = {
        "preset": preset,
        "task": task,
        "exits": exits,
        "depths": [3, 2, 1],
        "head_width": head_width,
    }
    config = base.family(family).read(entries, outputs or TASKS[task].default_outputs)
    costs = flops.conv_costs(config, *size)
    if one_exit:
        return [flops.one_exit(costs) / GIGA]
    shares = None if masked is None else [1 - share / 100 for share in masked]
    convention = partial(ConvCost.paper, spread=spread / 100)
    found = [macs / GIGA for macs in flops.per_exit(costs, shares, convention)]
    return found[-1:] if last else found


def counted(row):
    """The count of a row of `paper.toml`; nothing where it cannot be made."""
    return count(**row["count"]) if "count" in row else []


def area(costs, quality, most):
    """Mean quality over all budgets from 0 to `most`, that of the best map that each affords."""
    total, best = 0.0, 0.0
    for at, (cost, value) in enumerate(zip(costs, quality, strict=True)):
        if cost >= most:
            break
        best = max(best, value)
        until = costs[at + 1] if at + 1 < len(costs) else most
        total += best * (min(until, most) - cost)
    return total / most


def numbers(values, digits=1):
    """Numbers with slashes between them; a dash for none."""
    return " / ".join(f"{value:.{digits}f}" for value in values) or "-"


def quality_of(row, cards):
    """Per cent after each exit: from the card of shipped weights, or as recorded."""
    if "weights" not in row:
        return row["quality"]
    return [100 * value for value in cards[row["weights"]].quality.per_exit]


def report(source, cards):
    """The text of the report."""
    lines = [
        "# The paper's tables and figures, here",
        "",
        *INTRODUCTION,
        "",
        "![Quality over multiply-adds, CamVid](paper.png)",
        "",
        "## Does it hold?",
        "",
        "| claim | paper | here | |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {one['claim']} | {one['paper']} | {one['here']} | **{one['verdict']}** |"
        for one in source["claim"]
    ]
    for table in source["table"]:
        lines += ["", f"## {table['title']}", ""]
        lines += [
            f"| system | published {table['metric']} | published GFLOPs | our count |",
            "|---|---|---|---|",
        ]
        for row in table["rows"]:
            cells = (numbers(row.get("quality", ()), 2), numbers(row["gflops"], 2))
            lines.append(f"| {row['system']} | {' | '.join(cells)} | {numbers(counted(row), 2)} |")
        lines += ["", table["note"]]
    lines += curves(source, cards)
    lines += ["", "## Figures", "", "| figure | shows | here |", "|---|---|---|"]
    lines += [f"| {one['number']} | {one['what']} | {one['here']} |" for one in source["figure"]]
    return "\n".join(lines) + "\n"


def curves(source, cards):
    """The section on what was measured here."""
    measured = source["measured"]
    most = max(row["gflops"][-1] for row in measured)
    lines = [
        "",
        "## CamVid test, 480x360: quality over computation",
        "",
        f"Area: mean mIoU over all budgets from 0 to {most:.2f} GFLOPs, each with the best map",
        "that it affords, 0 before the first.",
        "",
        "| system | mIoU | GFLOPs | area | trained for |",
        "|---|---|---|---|---|",
    ]
    for row in measured:
        quality = quality_of(row, cards)
        share = area(row["gflops"], quality, most)
        cells = (row["system"], numbers(quality), numbers(row["gflops"], 2))
        lines.append(f"| {' | '.join(cells)} | {share:.1f} | {row['budget']} |")
    lines += ["", "Commands:", ""]
    lines += [f"    {row['command']}" for row in measured]
    timed = source["timed"]
    latest = max(row["ms"][-1] for row in timed)
    lines += [
        "",
        f"And over time: mean mIoU over all moments from 0 to {latest:.0f} ms after a JPEG was",
        "sent (`bench/ladder.py`, two cores).",
        "",
        "| system | ms | mIoU | area |",
        "|---|---|---|---|",
    ]
    for row in timed:
        note = f" ({row['note']})" if "note" in row else ""
        share = area(row["ms"], row["quality"], latest)
        cells = (row["system"] + note, numbers(row["ms"]), numbers(row["quality"]))
        lines.append(f"| {' | '.join(cells)} | {share:.1f} |")
    lines += [
        "",
        "Missing in both: ADP-C and a network without exits with the budget of the first two rows,",
        "stochastic sampling, and a trained MDEQ.",
    ]
    return lines


def draw(source, cards, path):
    """The curves of what was measured."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415  after the backend is chosen

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for row in source["measured"]:
        name = row["system"].replace("`", "")
        axes.plot(row["gflops"], quality_of(row, cards), marker="o", label=name)
    axes.set_xlabel("GFLOPs (2^30 multiply-adds), CamVid 480x360")
    axes.set_ylabel("mIoU, test split")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with what is there")
    arguments = parser.parse_args()
    source = tomllib.loads(SOURCE.read_text("utf-8"))
    cards = read_manifest(ROOT / "weights" / "manifest.toml")
    text = report(source, cards)
    if arguments.check:
        return None if text == REPORT.read_text("utf-8") else f"{REPORT} is old: run make paper"
    REPORT.write_text(text, "utf-8")
    draw(source, cards, PICTURE)
    return None


if __name__ == "__main__":
    sys.exit(main())
