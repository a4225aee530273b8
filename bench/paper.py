"""The paper's tables and figures, ours beside them: builds docs/PAPER.md and docs/paper.png.

    make paper      # python bench/paper.py

Published figures and what was measured are in docs/paper.toml, what `bench/ablations.py` and
`bench/systems.py` measured in docs/ablations.json; multiply-adds are counted from the networks when
this runs, and qualities of shipped weights come from their cards. So nothing is trained or measured
here, and it takes some seconds. With `--check` nothing is written: it fails if what would be
written differs.
"""

import argparse
import json
import statistics
import sys
import textwrap
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
ABLATIONS = ROOT / "docs" / "ablations.json"
REPORT = ROOT / "docs" / "PAPER.md"
PICTURE = ROOT / "docs" / "paper.png"


INTRODUCTION = (
    "Built by `make paper` from `docs/paper.toml`, `docs/ablations.json`, the cards of `weights/` "
    "and counts of the networks; a test holds that it is up to date. The paper: Liu, Xu, Wang, "
    "Darrell, Shelhamer, *Anytime Dense Prediction with Confidence Adaptivity*, ICLR 2022. EE: "
    "early exiting; RH: redesigned heads; ADP-C: both with confidence adaptivity. GFLOPs are 2^30 "
    "multiply-adds, as in the paper. Published qualities are on data sets that were not at hand, "
    "so ours stand beside them on CamVid and LSPET, with small budgets on two CPU cores."
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


def curve_of(row, cards, ablations):
    """Per cent and GFLOPs after each exit: from a card, from the ablations, or as recorded."""
    if "ablation" in row:
        found = ablations[row["ablation"][0]][row["ablation"][1]]
        return found["quality"], found["gflops"]
    if "weights" in row:
        return [100 * value for value in cards[row["weights"]].quality.per_exit], row["gflops"]
    return row["quality"], row["gflops"]


def report(source, cards, ablations):
    """The text of the report."""
    lines = [
        "# The paper's tables and figures, here",
        "",
        *paragraph(INTRODUCTION),
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
    lines += systems_section(ablations)
    lines += ablation_tables(ablations)
    lines += curves(source, cards, ablations)
    lines += ["", "## Figures", "", "| figure | shows | here |", "|---|---|---|"]
    lines += [f"| {one['number']} | {one['what']} | {one['here']} |" for one in source["figure"]]
    return "\n".join(lines) + "\n"


def paragraph(text):
    """Lines of a text."""
    return textwrap.wrap(text, 95, break_long_words=False, break_on_hyphens=False)


def ablation_tables(ablations):
    """The section on the choices that the paper varies, each on CamVid."""
    plain = ablations["thresholds"]["none"]
    low, high = ablations["radius"]["lambda"]
    lines = [
        "",
        "## Ablations, CamVid test, 480x360",
        "",
        *paragraph(
            "All with the weights `camvid-w18` as they are shipped (trained with masks by the "
            "largest probability), one size, every second test image, the native engine, float32; "
            "thresholds chosen on 12 frames of the split `holdout`. GFLOPs as the paper counts "
            "them, a mask predictor's "
            f"included. Without masks: {numbers(plain['quality'], 2)} mIoU, "
            f"{numbers(plain['gflops'], 2)} GFLOPs."
        ),
        "",
        *paragraph(
            "Criterion (Figure 5 right; stochastic sampling of Figure 3): mIoU at exits 2, 3 "
            "and 4, "
            "where the last exit was to cost so much of its unmasked GFLOPs (and what it did cost):"
        ),
        "",
    ]
    levels = sorted({key.split(" at ")[1] for key in ablations["criteria"]}, reverse=True)
    lines.append("| criterion | " + " | ".join(f"{100 * float(x):.0f} %" for x in levels) + " |")
    lines.append("|---|" + "---|" * len(levels))
    for name in dict.fromkeys(key.split(" at ")[0] for key in ablations["criteria"]):
        cells = []
        for level in levels:
            found = ablations["criteria"].get(f"{name} at {level}")
            cells.append(
                f"{numbers(found['quality'][1:], 2)} ({found['gflops'][-1]:.2f} GFLOPs)"
                if found
                else "-"
            )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    trained = ablations["sampling"]["trained"]
    lines += [
        "",
        *paragraph(
            f"The mask predictor of sampling was trained alone, {trained['steps']} steps of "
            f"{trained['batch']} crops in {trained['minutes']:g} minutes; the network was not "
            "trained "
            "with it, where the paper trains both together. `sampling` adds seeded noise to its "
            "scores, as in training; `sampling, no noise` compares the scores alone."
        ),
        "",
        "Threshold of the largest probability (the card's is 0.99):",
        "",
        "| threshold | mIoU | GFLOPs | masked, % |",
        "|---|---|---|---|",
    ]
    for name, found in ablations["thresholds"].items():
        cells = numbers(found["quality"], 2), numbers(found["gflops"], 2)
        masked = numbers([100 * share for share in found["masked"]])
        lines.append(f"| {name} | {' | '.join(cells)} | {masked} |")
    lines += [
        "",
        *paragraph(
            "Filling (Table 3 and equation 6), at inference only: lambda as learnt, or one for all "
            "layers; `mean` is lambda 0, the plain mean of the 7x7 window. "
            f"At the learnt lambdas, {low} to {high}, the 3x3 nearest pixels hold all but "
            f"{ablations['radius']['beyond 3x3']:.0e} of the weight of a 9x9 window, so its size "
            "cannot matter."
        ),
        "",
        "| filling, threshold | mIoU | GFLOPs |",
        "|---|---|---|",
    ]
    for name, found in ablations["filling"].items():
        cells = numbers(found["quality"], 2), numbers(found["gflops"], 2)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [*heads_table(ablations), "", "Commands:", ""]
    lines += [
        f"    python bench/{command} --data CAMVID"
        for command in (
            *(f"ablations.py {part}" for part in ("sampling", "criteria", "thresholds", "filling")),
            "ablations.py heads --steps 300 --seed 0",
        )
    ]
    return lines


def systems_section(ablations):
    """The section on the systems that are trained with equal budgets."""
    rows = ablations.get("systems", {})
    lines = [
        "",
        "## The paper's systems with equal budgets, CamVid test, 480x360",
        "",
        *paragraph(
            "Each starts from the stages of `camvid-w18` and new heads at all exits, and sees the "
            "same crops in the same order; nothing is calibrated. Masks by the largest probability "
            "at the threshold 0.99, fixed beforehand. Those stages have learnt with redesigned "
            "exits and masks before, which favours systems that have them. Scored as under "
            "Ablations: mean over seeds (lowest to highest)."
        ),
        "",
    ]
    if rows:
        lines += [
            "| system | seeds | steps | mIoU at exits 1 to 4 | GFLOPs | masked, % |",
            "|---|---|---|---|---|---|",
        ]
    else:
        lines.append("Not measured yet: no system has been trained and scored in this way.")
    for name, found in by_seed(rows).items():
        cells = (
            str(len(found)),
            str(found[0]["steps"]),
            spread(found, "quality"),
            numbers(means(found, "gflops"), 2),
            numbers([100 * share for share in means(found, "masked")]),
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    command = 'python bench/systems.py "EE + RH" --seed 0 --data CAMVID    # and so on, see SYSTEMS'
    return [*lines, "", "Command:", "", f"    {command}"]


def by_seed(rows):
    """Results by the name of what was trained, one for each of its seeds."""
    found = {}
    for key, row in rows.items():
        found.setdefault(key.split(", seed ")[0], []).append(row)
    return found


def means(found, key):
    """Means over seeds, one for each exit; none where there are no values."""
    rows = [one.get(key, ()) for one in found]
    return [statistics.mean(values) for values in zip(*rows, strict=True)]


def spread(found, key):
    """Means over seeds with the lowest and the highest, one for each exit."""
    if len(found) == 1:
        return numbers(found[0][key])
    return " / ".join(
        f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"
        for values in zip(*(one[key] for one in found), strict=True)
    )


def heads_table(ablations):
    """Depths and widths of redesigned heads: mean over seeds, lowest and highest."""
    rows = ablations.get("heads", {})
    if not rows:
        return []
    found = by_seed(rows)
    lines = [
        "",
        *paragraph(
            "Heads (Figure 5 left): early heads trained anew on the frozen features of "
            f"`camvid-w18`, {next(iter(rows.values()))['steps']} steps of 4 crops each, scored at "
            "240x180: mean mIoU of exits 1, 2, 3 over seeds (lowest to highest). Pooled context: "
            "the mean of a head's input over the whole image, projected and added to its coarsest "
            "features."
        ),
        "",
        "| heads | seeds | mIoU | GFLOPs |",
        "|---|---|---|---|",
    ]
    for name, results in found.items():
        gflops = numbers(results[0]["gflops"], 2)
        cells = (str(len(results)), spread(results, "quality"), gflops)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def curves(source, cards, ablations):
    """The section on what was measured here."""
    measured = source["measured"]
    most = max(curve_of(row, cards, ablations)[1][-1] for row in measured)
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
        quality, gflops = curve_of(row, cards, ablations)
        share = area(gflops, quality, most)
        cells = (row["system"], numbers(quality), numbers(gflops, 2))
        lines.append(f"| {' | '.join(cells)} | {share:.1f} | {row['budget']} |")
    lines += ["", "Commands:", ""]
    lines += [f"    {command}" for command in dict.fromkeys(row["command"] for row in measured)]
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
    return lines


def draw(source, cards, ablations, path):
    """The curves of what was measured."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415  after the backend is chosen

    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    for row in source["measured"]:
        name = row["system"].replace("`", "")
        quality, gflops = curve_of(row, cards, ablations)
        axes.plot(gflops, quality, marker="o", label=name)
    axes.set_xlabel("GFLOPs (2^30 multiply-adds), CamVid 480x360")
    axes.set_ylabel("mIoU, test split")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with what is there")
    arguments = parser.parse_args()
    source = tomllib.loads(SOURCE.read_text("utf-8"))
    cards = read_manifest(ROOT / "weights" / "manifest.toml")
    ablations = json.loads(ABLATIONS.read_text("utf-8"))
    text = report(source, cards, ablations)
    if arguments.check:
        return None if text == REPORT.read_text("utf-8") else f"{REPORT} is old: run make paper"
    REPORT.write_text(text, "utf-8")
    draw(source, cards, ablations, PICTURE)
    return None


if __name__ == "__main__":
    sys.exit(main())
