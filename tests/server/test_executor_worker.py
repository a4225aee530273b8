"""The executor's process from inside: which stages it begins before they are asked for."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from anytime_server.executor.commands import Begin, Fault, Forget, RunStage
from anytime_server.executor.control import Shared
from anytime_server.executor.worker import Worker

from anytime_model.engines.base import ExitResult
from anytime_server.executor.base import StageDone, StageStopped, View

IMAGE = np.zeros((8, 8, 3), np.uint8)
EXITS = 4


@dataclass
class FakeCard:
    """A street of which nothing but the task is known."""

    task: str = "segmentation"

    @property
    def config(self):
        return self


@dataclass
class FakeLoaded:
    """A model whose stages do nothing but note that they ran, and look up twice."""

    advanced: list[int] = field(default_factory=list)
    begun: int = 0
    broken: bool = False
    card: FakeCard = field(default_factory=FakeCard)
    exits: int = EXITS
    between: object = None

    @property
    def engine(self):
        return self

    def criterion(self, stage):
        return None

    def begin(self, image):
        self.begun += 1
        return FakeRun(self)


@dataclass
class FakeRun:
    loaded: FakeLoaded
    exit: int = 0

    def advance(self, criterion, pause):
        pause()
        if self.loaded.between is not None:
            self.loaded.between(self.exit + 1)
        pause()
        if self.loaded.broken:
            raise MemoryError("no memory")
        self.exit += 1
        self.loaded.advanced.append(self.exit)
        ones = np.ones((2, 2), np.float32)
        return ExitResult(self.exit, (8, 8), ones[None], ones, ones > 0, 1000)


@dataclass
class Later:
    exits: int
    command: object


class Script:
    """A pipe whose other end says one thing after another, each `when` its turn has come.

    Args:
        lines: commands; a `Later` is heard only when so many stages have run.
    """

    def __init__(self, loaded, *lines):
        self.loaded = loaded
        self.lines = list(lines)
        self.said = []
        self.advanced_when_said = []

    def poll(self):
        return bool(self.lines) and (
            not isinstance(self.lines[0], Later) or len(self.loaded.advanced) >= self.lines[0].exits
        )

    def recv(self):
        if not self.lines:
            raise EOFError
        line = self.lines.pop(0)
        return line.command if isinstance(line, Later) else line

    def send(self, reply):
        self.said.append(reply)
        self.advanced_when_said.append(list(self.loaded.advanced))


def play(*lines, loaded=None, shared=None):
    loaded = loaded or FakeLoaded()
    shared = shared or Shared.allocate(1000)
    shared.write_image(IMAGE)
    pipe = Script(loaded, *lines)
    Worker({"street": loaded}, shared).serve(pipe)
    return loaded, pipe


def begin(job="a"):
    return Begin(job, "street", IMAGE.shape)


def run(stage, number, job="a", through=None, **more):
    return RunStage(job, stage, through or stage, number, None, **more)


def test_the_next_stage_has_been_made_when_it_is_asked_for():
    # Each command is heard only after its stage has been computed.
    loaded, pipe = play(begin(), Later(1, run(1, 1, go_ahead=True)), Later(2, run(2, 2)))
    assert [type(reply) for reply in pipe.said] == [StageDone, StageDone]
    assert pipe.advanced_when_said == [[1], [1, 2]]
    assert loaded.begun == 1


def test_a_stage_is_begun_only_where_the_server_said_so():
    loaded, _ = play(begin(), run(1, 1), Forget("nobody"))
    assert loaded.advanced == [1]


def test_a_server_that_takes_its_word_back_is_heard():
    shared = Shared.allocate(1000)
    shared.hold_word[0] = 1
    loaded, _ = play(begin(), run(1, 1, go_ahead=True), Forget("nobody"), shared=shared)
    assert loaded.advanced == [1]


def test_nothing_is_begun_after_the_last_exit():
    lines = [run(stage, stage, go_ahead=True) for stage in range(1, EXITS + 1)]
    loaded, pipe = play(begin(), *lines)
    assert loaded.advanced == [1, 2, 3, 4]
    assert len(pipe.said) == EXITS


@pytest.mark.parametrize("heard_after", [1, 2], ids=["amid the stage", "after the stage"])
def test_a_wrong_guess_is_dropped_and_the_stages_can_be_made_again(heard_after):
    loaded, pipe = play(
        begin(),
        run(1, 1, go_ahead=True),
        Later(heard_after, begin("b")),
        run(1, 2, job="b"),
        run(2, 3),
    )
    assert [type(reply) for reply in pipe.said] == [StageDone] * 3
    assert loaded.begun == 3  # a, b, and a once more
    assert loaded.advanced[-2:] == [1, 2]


def test_a_stage_begun_early_obeys_the_stop_of_the_one_that_asked_for_it():
    shared = Shared.allocate(1000)
    loaded = FakeLoaded()

    def stop(stage):
        if stage == 2:
            shared.stop_word[0] = 2

    loaded.between = stop
    _, pipe = play(begin(), run(1, 1, go_ahead=True), run(2, 2), loaded=loaded, shared=shared)
    assert [type(reply) for reply in pipe.said] == [StageDone, StageStopped]
    assert loaded.advanced == [1]


def test_several_stages_are_one_command_and_all_but_the_last_are_noted():
    shared = Shared.allocate(1000)
    loaded, pipe = play(begin(), run(1, 1, through=3), Forget("nobody"), shared=shared)
    assert loaded.advanced == [1, 2, 3]
    assert [type(reply) for reply in pipe.said] == [StageDone]
    noted = shared.read_exits(0)
    assert [done.result for done in noted] == [pipe.said[0].result] * 2
    assert all(done.elapsed_s > 0 for done in noted)
    assert shared.read_exits(1) == noted[1:]
    shared.clear_exits()
    assert shared.read_exits(0) == ()


def test_only_the_last_of_several_becomes_a_picture():
    shared, loaded = Shared.allocate(1000), FakeLoaded()
    command = RunStage("a", 1, 2, 1, View(0.25))
    _, pipe = play(begin(), command, loaded=loaded, shared=shared)
    assert pipe.said[0].picture.exit == 2


@pytest.mark.parametrize("word", ["stop_word", "hold_word"])
def test_a_word_of_the_server_ends_several_stages(word):
    shared, loaded = Shared.allocate(1000), FakeLoaded()

    def say(stage):
        if stage == 2:
            getattr(shared, word)[0] = 1

    loaded.between = say
    command = RunStage("a", 1, 4, 1, View(0.25))
    _, pipe = play(begin(), command, loaded=loaded, shared=shared)
    (reply,) = pipe.said
    held = word == "hold_word"
    assert isinstance(reply, StageDone if held else StageStopped)
    assert loaded.advanced == ([1, 2] if held else [1])
    assert len(shared.read_exits(0)) == 1
    assert not held or reply.picture is None


def test_a_stage_that_fails_early_tells_when_it_is_asked_for():
    _, pipe = play(begin(), Later(0, run(1, 1)), loaded=FakeLoaded(broken=True))
    (reply,) = pipe.said
    assert isinstance(reply, Fault)
    assert "no memory" in reply.detail


def test_a_server_that_goes_away_ends_the_process_amid_a_stage():
    loaded, pipe = play(begin())
    assert pipe.said == []
    assert loaded.advanced == [1]
