"""What became of the requests of `overload.py`: figures, a table and a picture."""

import re
import statistics
from collections import Counter

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

REFUSED = {429, 503, 504, "overloaded", "deadline_exceeded", "busy"}
"""Answers that say that there will be no map in time."""


def percentile(values, share):
    """The value that `share` of the values do not exceed."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def summarise(outcomes, deadline_s, quality, exit_):
    """Figures of one load.

    Args:
        outcomes: of all requests.
        deadline_s: from the scheduled moment.
        quality: of each exit.
        exit_: that all maps have; 0 where each answer names its own.
    """
    maps = [o for o in outcomes if o.status == 200 and o.done_s is not None]
    good = [o for o in maps if o.done_s - o.due_s <= deadline_s]
    exits = Counter(exit_ or o.exit for o in good)
    served = sum(quality[k - 1] * count for k, count in exits.items())
    statuses = Counter(str(o.status) for o in outcomes if o.status != 200)
    slips = [o.sent_s - o.due_s for o in outcomes]
    count = len(outcomes)
    refused = sum(o.status in REFUSED for o in outcomes)
    return {
        "arrived": count,
        "in_time": round(len(good) / count, 4),
        "quality": round(served / count, 4),
        "refused": round(refused / count, 4),
        "late": round((len(maps) - len(good)) / count, 4),
        "failed": round((count - len(maps) - refused) / count, 4),
        "mean_exit": round(sum(k * n for k, n in exits.items()) / max(len(good), 1), 3),
        "exits": {str(k): exits[k] for k in sorted(exits)},
        "statuses": dict(statuses),
        "answer_ms": [
            round(1e3 * percentile([o.done_s - o.due_s for o in maps], p), 1) for p in (0.5, 0.99)
        ]
        if maps
        else None,
        "slip_ms": [
            round(1e3 * statistics.median(slips), 2),
            round(1e3 * percentile(slips, 0.99), 2),
        ],
    }


def table(results):
    """All cells, as text."""
    lines = [
        f"# {results['machine']}; {results['model']}, {results['engine']}, {results['size']}, "
        f"{results['deadline_ms']:g} ms; full depth takes {results['rate_hz']:.2f} a second",
        "| arrivals | load | contender | arrived | in time | quality | refused | late | failed "
        "| mean exit | answer p50, p99 ms | slip p50, p99 ms | generator |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for c in results["cells"]:
        shares = (f"{100 * c[k]:.1f}" for k in ("in_time", "quality", "refused", "late", "failed"))
        answer = ", ".join(f"{ms:.0f}" for ms in c["answer_ms"] or [])
        slip = ", ".join(f"{ms:.1f}" for ms in c["slip_ms"])
        lines.append(
            f"| {c['arrivals']} | {c['load']:g} | {c['contender']} | {c['arrived']} | "
            f"{' | '.join(shares)} | {c['mean_exit']:.2f} | {answer} | {slip} | "
            f"{100 * c['generator_cpu']:.0f} % |"
        )
    if "recovery" in results:
        lines.append(
            "back to the full exit after 8 times the rate, s: "
            + ", ".join(f"{r['seconds']:.2f} (exit {r['full_exit']})" for r in results["recovery"])
        )
    return "\n".join(lines)


def draw(results, path):
    """Share in time and mean quality over load, a row for each kind of arrivals."""
    kinds = list(dict.fromkeys(c["arrivals"] for c in results["cells"]))
    cells_of = {}
    for cell in results["cells"]:  # the best static exit may differ from run to run
        name = re.sub(r"exit \d+", "best static exit", cell["contender"])
        cells_of.setdefault((cell["arrivals"], name), []).append(cell)
    names = list(dict.fromkeys(name for _, name in cells_of))
    names.sort(key=lambda name: (name.startswith("litserve"), name))
    figure, rows = plt.subplots(
        len(kinds), 2, figsize=(9, 3.1 * len(kinds)), squeeze=False, sharex=True
    )
    for row, kind in zip(rows, kinds, strict=True):
        for axes, key, label in zip(
            row, ("in_time", "quality"), ("answered in time, %", "mean mIoU, a miss 0"), strict=True
        ):
            for number, name in enumerate(names):
                cells = sorted(cells_of.get((kind, name), []), key=lambda c: c["load"])
                dashed = "--" if name.startswith("litserve") else "-"
                axes.plot(
                    [c["load"] for c in cells],
                    [100 * c[key] for c in cells],
                    dashed,
                    marker="o",
                    markersize=4,
                    color=f"C{number}",
                    label=name,
                )
            axes.set_xscale("log", base=2)
            axes.set_xticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
            axes.set_ylim(bottom=0)
            axes.set_title(f"{kind}: {label}", fontsize=9)
            axes.grid(alpha=0.3)
    for axes in rows[-1]:
        axes.set_xlabel("arrivals, as a multiple of what full depth takes")
    rows[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
