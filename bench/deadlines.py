"""Whether maps come inside their deadlines, and whether better ones would have: for `server.py`.

A *way* is the rungs that an answer's map came by. The server does not tell it, but the
multiply-adds that it computed, which tell ways apart: they are compared with those of the bare
engine along each way that the card has measured. So an answer has the quality of its way, and where
exits are left out or a size is left early nobody takes the next number for the next better map.
"""

import math
import random
import statistics

from anytime_protocol.http.headers import ResultHeader

_RECENT = 7
"""Answers whose median says what a way takes now."""

_REPEATS = 15
"""Answers by each way before the first deadline."""


class Ways:
    """The ways through a model's exits for one image.

    Args:
        engine: computes it, as the server does.
        card: of the model; its measured paths are the ways, or else all rungs in order.
        pixels: the image.

    Attributes:
        gmacs: 1e9 multiply-adds until each exit, by the way to it.
        quality: there; without a measurement the number of the exit.
    """

    def __init__(self, engine, card, pixels):
        measured = () if card.quality is None else card.quality.paths
        every = tuple(range(1, len(card.rung_criteria()) + 1))
        paths = [(path.rungs, path.quality) for path in measured] or [(every, every)]
        self.gmacs, self.quality = {}, {}
        for rungs, quality in paths:
            done = 0.0
            steps = zip(rungs, run_along(engine, card, pixels, rungs), quality, strict=True)
            for made, (_, result, value) in enumerate(steps, start=1):
                done += result.macs / 1e9
                self.gmacs[rungs[:made]], self.quality[rungs[:made]] = done, value

    def of(self, headers):
        """The way of an answer."""
        result = ResultHeader.parse(headers["Anytime-Result"])
        to_it = (way for way in self.gmacs if way[-1] == result.exit)
        return min(to_it, key=lambda way: abs(self.gmacs[way] - result.gmacs))


def run_along(engine, card, pixels, rungs):
    """Runs the network along some rungs; their results."""
    run, criteria = engine.begin(pixels), card.rung_criteria()
    return [run.advance(criteria[rung - 1], rung=rung) for rung in rungs]


class DeadlineTrial:
    """Quality by deadline through one server; what each way takes is measured around each request.

    Args:
        ask: an `Asker`.
        ways: of the image that it asks with.
        exits: of the model.

    Attributes:
        caps: the ways that the server takes by itself, and the `max_exit` at which it takes them.
        times: milliseconds of their answers.
    """

    def __init__(self, ask, ways, exits):
        self.ask, self.ways = ask, ways
        self.caps, self.times, self.answers = {}, {}, []
        self.best = self.inside = self.late = self.unmeetable = self.none = 0
        self.lost = []
        for cap in range(1, exits + 1):
            for _ in range(_REPEATS):
                self.time(cap)

    def time(self, cap):
        """The milliseconds of an answer without a deadline, noted by its way."""
        _, headers, elapsed_ms = self.ask(max_exit=cap)
        way = self.ways.of(headers)
        self.caps.setdefault(way, cap)
        self.times.setdefault(way, []).append(elapsed_ms)
        return elapsed_ms

    def now_ms(self, way):
        """What a way takes now."""
        return statistics.median(self.times[way][-_RECENT:])

    def draw(self):
        """One request with a deadline drawn from what the first and the best way take now."""
        quality = self.ways.quality
        ends = (min(self.times, key=self.now_ms), max(self.times, key=quality.__getitem__))
        self.time(self.caps[ends[len(self.answers) % 2]])
        deadline_ms = random.uniform(self.now_ms(ends[0]), 2 * self.now_ms(ends[1]))
        status, headers, elapsed_ms = self.ask(deadline_ms)
        got = quality[self.ways.of(headers)] if status == 200 else -math.inf
        self.answers.append(elapsed_ms - deadline_ms)
        self.none += status != 200
        self.late += elapsed_ms > deadline_ms
        is_inside = status == 200 and elapsed_ms <= deadline_ms
        self.inside += is_inside
        fitting = [quality[way] for way in self.times if self.now_ms(way) <= deadline_ms]
        self.lost.append(max(max(fitting, default=0.0) - (got if is_inside else 0.0), 0.0))
        better = [way for way in self.times if quality[way] > got]
        next_ms = math.inf
        if better:
            next_ms = self.time(self.caps[min(better, key=self.now_ms)])
        self.unmeetable += status != 200 and next_ms > deadline_ms
        self.best += next_ms > deadline_ms

    def report(self):
        """Shares of all draws."""
        count = len(self.answers)
        names = ("inside", "best", "late", "unmeetable", "none")
        ways = sorted(self.times, key=self.now_ms)
        return {
            "answers": count,
            **{name: getattr(self, name) / count for name in names},
            "quality_lost": statistics.fmean(self.lost),
            "latest_by_ms": max(self.answers),
            "problems": self.ask.problems[:3],
            "ways_ms": {"-".join(map(str, way)): round(self.now_ms(way), 1) for way in ways},
        }


def sizes_to_try():
    """Heights and widths, px, that all differ in what a network computes, at a stride of 32."""
    shapes = [(480, 32 * k) for k in range(4, 15)]
    return [(h, w) for pair in shapes for h, w in (pair, pair[::-1])]


def measure_first_use(ask, jpeg):
    """Asks for images of sizes that are new to a server, each twice with one deadline.

    Args:
        ask: an `Asker` of a server that has just started.
        jpeg: makes an image of a height and a width.

    Returns:
        For each size how late the map came at first and again, ms; infinity where none came.
    """
    ends = [statistics.median(ask(max_exit=cap)[2] for _ in range(_REPEATS)) for cap in (1, None)]
    found, sizes = [], sizes_to_try()
    random.shuffle(sizes)
    for height, width in sizes:
        image, share = jpeg(height, width), max(min(height, width) / 360, 0.5)
        deadline_ms = share * random.uniform(ends[0], 2 * ends[1])
        both = []
        for _ in range(2):
            status, _, elapsed_ms = ask(deadline_ms, image=image)
            both.append(elapsed_ms - deadline_ms if status == 200 else math.inf)
        found.append(tuple(both))
    return found


def first_use_report(found):
    """Shares of the sizes; see `measure_first_use`."""
    report = {"sizes": len(found)}
    for name, column in zip(("first", "again"), zip(*found, strict=True), strict=True):
        report[f"{name}_late"] = sum(late > 0 for late in column) / len(column)
        report[f"{name}_none"] = sum(late == math.inf for late in column) / len(column)
    return report
