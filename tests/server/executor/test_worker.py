"""The executor's process from inside: how the control block steers a run."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from anytime_model.engines.ladder import RungResult
from anytime_model.engines.native.memory import MemoryBudget
from anytime_model.engines.select import make_engine
from anytime_model.errors import NoRoomError
from anytime_protocol.enums import ErrorCode
from anytime_protocol.messages import ReuseOptions
from anytime_server.core.decisions import CHECK, STOP, RunLimits
from anytime_server.executor.base import (
    FinishedFrame,
    RenderedExit,
    RenderOptions,
    RunEnd,
    StreamMemory,
)
from anytime_server.executor.control import SharedMemory
from anytime_server.executor.loading import LoadedModel
from anytime_server.executor.messages import (
    Checked,
    CheckFrame,
    ExitMade,
    Fault,
    FinishFrame,
    Forget,
    ForgetStream,
    Prepare,
    Render,
    StartRun,
)
from anytime_server.executor.stream_memories import StreamMemories, frame_memory
from anytime_server.executor.worker import Worker, torch_threads
from model.comparing import native_isas
from model.factories import random_pixels, tiny_checkpoint

IMAGE = np.zeros((8, 8, 3), np.uint8)
OPTIONS = RenderOptions(0.25)


@dataclass
class FakeTask:
    """Segmentation, as far as the worker needs it."""

    def mean_confidence(self, result):
        return 0.5

    def labels_on_map(self, result):
        return np.full((2, 2), result.exit, np.uint8)


@dataclass
class FakeModel:
    """A model whose stages only note that they ran, and check twice whether to stop.

    Attributes:
        on_stage: called in the middle of each stage with its number.
        room: runs that memory holds at a time.
        held: those that it holds.
    """

    computed: list[int] = field(default_factory=list)
    begun: int = 0
    is_broken: bool = False
    on_stage: object = None
    num_exits: int = 4
    map_stride: int = 4
    task: FakeTask = field(default_factory=FakeTask)
    used_bytes: int = 123
    worse: tuple = ()
    prepared: list = field(default_factory=list)
    risks: list = field(default_factory=list)
    monotone: list = field(default_factory=list)
    room: int = 99
    held: list = field(default_factory=list)
    memories: list = field(default_factory=list)

    @property
    def engine(self):
        return self

    @property
    def card(self):
        return self

    def criterion(self, stage, risk):
        self.risks.append(risk)

    def improves(self, made):
        return made[-1] not in self.worse

    def prepare(self, size, sides):
        self.prepared.append((size, sides))

    def begin(self, image, *, size, monotone):
        self.begun += 1
        self.monotone.append(monotone)
        return FakeRun(self, size)


@dataclass(eq=False)
class FakeRun:
    model: FakeModel
    size: tuple
    exit: int = 0

    def advance(self, criterion, pause, *, rung):
        pause()
        if self not in self.model.held:
            if len(self.model.held) >= self.model.room:
                raise NoRoomError("no room")
            self.model.held.append(self)
        if self.model.on_stage is not None:
            self.model.on_stage(rung)
        pause()
        if self.model.is_broken:
            raise MemoryError("no memory")
        self.exit = rung
        self.model.computed.append(self.exit)
        ones = np.ones((2, 2), np.float32)
        return RungResult(
            self.exit, (8, 8), ones[None], ones, ones > 0, 1000, source_size=self.size
        )

    def release(self):
        if self in self.model.held:
            self.model.held.remove(self)


class FakeMemory:
    """A stream's memory that computes each frame alone, and says how many it has seen."""

    def __init__(self, model, reuse):
        self.model = model
        self.reuse = reuse
        self.frames = 0
        self.results = []
        self.wants_check = False
        model.memories.append(self)

    @property
    def bytes(self):
        return 400

    def begin(self, image, *, size, monotone):
        self.frames += 1
        self.wants_check = False
        return self.model.begin(image, size=size, monotone=monotone)

    def finish(self, result):
        self.results.append(result and result.exit)
        self.wants_check = result is not None
        return FinishedFrame(0.1 * self.frames, self.frames, None, 0)

    def begin_check(self):
        return FakeRun(self.model, IMAGE.shape[:2])

    def finish_check(self, result):
        self.results.append(("checked", result.exit))
        self.wants_check = False


class FakePipe:
    """A pipe whose other end sends commands, and writes the control block before each run."""

    def __init__(self, memory, commands):
        self.memory = memory
        self.commands = list(commands)
        self.replies = []

    def recv(self):
        if not self.commands:
            raise EOFError
        command = self.commands.pop(0)
        if isinstance(command, tuple) and isinstance(command[0], StartRun | CheckFrame):
            command, limits = command
            self.memory.control.begin(command.run, limits)
        return command

    def send(self, reply):
        self.replies.append(reply)


def serve(*commands, model=None, memory=None):
    """Has a worker answer commands; the model, the replies and the exits noted."""
    model = model or FakeModel()
    memory = memory or SharedMemory.allocate(1000)
    memory.write_image(IMAGE)
    pipe = FakePipe(memory, commands)
    streams = StreamMemories(FakeMemory, 1000)
    Worker({"street": model}, memory, pipe, model, streams).serve()
    return model, pipe.replies, [report.exit for report in memory.control.exits_after(0)]


def run(
    number,
    stage,
    last,
    job="a",
    *,
    first=True,
    render=None,
    each=False,
    risk=None,
    stream=None,
    **limits,
):
    shape = IMAGE.shape if first else None
    size = IMAGE.shape[:2]
    kept = None if stream is None else StreamMemory(stream, ReuseOptions())
    start = StartRun(
        number, job, "street", stage, shape, size, render, last, each, risk, job == "m", kept
    )
    return start, RunLimits(tuple(range(stage, last + 1)), **limits)


def test_a_run_computes_up_to_its_last_stage_and_notes_every_exit():
    memory = SharedMemory.allocate(1000)
    model, replies, exits = serve(run(1, 1, 3), memory=memory)
    assert model.computed == exits == [1, 2, 3]
    assert replies == [RunEnd(0.0, None)]
    first, *_ = memory.control.exits_after(0)
    assert (first.confidence, first.active_share, first.gmacs) == (0.5, 1.0, 1e-6)
    assert first.ended_s > 0.0
    assert memory.control.engine_bytes[0] == 123


def test_a_run_makes_the_exits_of_its_path_and_no_others():
    start, _ = run(1, 1, 1)
    assert serve((start, RunLimits((1, 3, 4))))[2] == [1, 3, 4]


def test_a_job_begins_with_monotone_maps_where_its_client_wants_them():
    assert serve(run(1, 1, 1), run(2, 1, 1, job="m"))[0].monotone == [False, True]


def test_a_job_keeps_the_risk_that_it_began_with():
    model, _, _ = serve(run(1, 1, 1, risk=0.1), run(2, 1, 1, job="b"), run(3, 2, 3, first=False))
    assert model.risks == [0.1, None, 0.1, 0.1]


def test_an_exit_that_is_no_better_is_reported_and_the_one_before_is_rendered():
    model = FakeModel(worse=(3,))
    _, replies, exits = serve(run(1, 1, 3, render=OPTIONS, each=True), model=model)
    assert exits == [1, 2, 3]
    shown = [reply.rendered and reply.rendered.exit for reply in replies[:-1]]
    assert shown == [1, 2]
    assert replies[-1].rendered.exit == 2


def test_the_executor_gets_ready_for_a_size_without_an_answer():
    model, replies, _ = serve(Prepare("street", (12, 16), 1))
    assert model.prepared == [((12, 16), 1)]  # a run gets ready for the rest
    assert replies == []


def test_only_the_last_exit_of_a_run_is_rendered():
    _, replies, _ = serve(run(1, 1, 2, render=OPTIONS))
    (end,) = replies
    assert end.rendered.exit == 2


def test_every_exit_is_reported_and_rendered_where_the_client_wants_each():
    _, replies, _ = serve(run(1, 1, 3, render=OPTIONS, each=True))
    assert [type(reply) for reply in replies] == [ExitMade, ExitMade, RunEnd]
    assert [reply.rendered.exit for reply in replies] == [1, 2, 3]


def test_a_run_goes_on_without_rendering_where_nobody_reads_the_renderings():
    each = {"render": OPTIONS, "each": True}
    _, replies, _ = serve(run(1, 1, 4, **each), run(2, 1, 2, job="b", **each))
    assert [reply.rendered and reply.rendered.exit for reply in replies[4:]] == [None, None]


def test_an_exit_is_reported_unrendered_where_the_scheduler_wants_to_know():
    _, replies, _ = serve(run(1, 1, 2, render=OPTIONS, notify=True))
    assert replies[0] == ExitMade(None)
    assert replies[1].rendered.exit == 2


def changing(memory, at_stage, limits):
    """A model in the middle of one of whose stages the server changes the limits."""

    def change(stage):
        if stage == at_stage:
            memory.control.set_limits(limits)

    return FakeModel(on_stage=change)


def test_lowering_the_last_stage_to_the_one_that_runs_ends_the_run_with_it():
    memory = SharedMemory.allocate(1000)
    model = changing(memory, 2, RunLimits((1, 2)))
    _, (end,), exits = serve(run(1, 1, 4, render=OPTIONS), model=model, memory=memory)
    assert exits == [1, 2]
    assert end == RunEnd(0.0, None)  # it was to be rendered at exit 4


def test_lowering_it_further_stops_the_stage_at_once():
    memory = SharedMemory.allocate(1000)
    model = changing(memory, 2, RunLimits(()))
    _, (end,), exits = serve(run(1, 1, 4, render=OPTIONS), model=model, memory=memory)
    assert (exits, model.computed) == ([1], [1])
    assert end.wasted_s > 0.0
    assert end.rendered is None


def test_raising_it_lets_the_run_go_on():
    memory = SharedMemory.allocate(1000)
    model = changing(memory, 1, RunLimits((1, 2, 3)))
    assert serve(run(1, 1, 1), model=model, memory=memory)[2] == [1, 2, 3]


def test_a_run_stops_by_itself_when_its_time_is_up_and_renders_the_map_before():
    memory = SharedMemory.allocate(1000)
    model = changing(memory, 3, RunLimits((1, 2, 3, 4), stop_at_s=0.0))
    _, (end,), exits = serve(run(1, 1, 4, render=OPTIONS), model=model, memory=memory)
    assert exits == [1, 2]
    assert end.rendered.exit == 2


def test_a_stopped_stage_can_be_computed_again():
    memory = SharedMemory.allocate(1000)
    model = changing(memory, 2, RunLimits(()))
    again = run(2, 2, 2, first=False)
    model, replies, exits = serve(run(1, 1, 4), again, model=model, memory=memory)
    # The server's words for the second run are the first thing that it sees of it.
    assert [reply.wasted_s > 0.0 for reply in replies] == [True, True]
    model.on_stage = None
    memory.control.begin(1, RunLimits((1, 2, 3, 4)))
    model, replies, exits = serve(run(1, 1, 1), run(2, 2, 2, first=False), model=model)
    assert exits == [2]


def test_words_about_another_run_stop_this_one():
    memory = SharedMemory.allocate(1000)

    def other(stage):
        memory.control.run[0] = 99

    _, (end,), exits = serve(run(1, 1, 2), model=FakeModel(on_stage=other), memory=memory)
    assert exits == []
    assert end.wasted_s > 0.0


def test_a_fault_ends_one_command_and_names_it():
    broken = FakeModel(is_broken=True)
    _, replies, _ = serve(run(1, 1, 1), Render("nobody", OPTIONS), model=broken)
    assert all(isinstance(reply, Fault) for reply in replies)
    assert "no memory" in replies[0].detail
    assert "KeyError" in replies[1].detail


def test_jobs_that_do_not_fit_into_memory_together_give_way_to_the_one_that_runs():
    def rest(number, job):
        return run(number, 2, 4, job=job, first=False)

    begun = [run(k, 1, 1, job=job) for k, job in enumerate("abc")]
    model = FakeModel(room=2)
    _, replies, _ = serve(*begun, *map(rest, (4, 5, 6), "abc"), model=model)
    assert replies == [RunEnd(0.0, None)] * 6
    assert len(model.held) == 2


def test_a_job_that_does_not_fit_by_itself_is_too_large():
    _, (first, second), _ = serve(run(1, 1, 1), run(2, 1, 1, job="b"), model=FakeModel(room=0))
    assert first.code is second.code is ErrorCode.TOO_MANY_PIXELS


@pytest.mark.skipif(not native_isas(), reason="the native kernels are not built")
def test_a_small_memory_changes_no_map_of_images_that_are_computed_in_turn():
    checkpoint = tiny_checkpoint()
    image = random_pixels(64, 96)

    def labels(jobs, limit_bytes):
        budget = MemoryBudget(limit_bytes)
        engine = make_engine(checkpoint, "native", precision="f32", memory=budget)
        memory = SharedMemory.allocate(64 * 96)
        memory.write_image(image)
        starts = [
            (
                StartRun(
                    10 * stage + job,
                    str(job),
                    "street",
                    stage,
                    image.shape if stage == 1 else None,
                    image.shape[:2],
                    RenderOptions(),
                    4,
                    False,
                    None,
                    False,
                ),
                RunLimits((stage,)),
            )
            for stage in range(1, 5)
            for job in range(jobs)
        ]
        pipe = FakePipe(
            memory, [*starts, *(Render(str(job), RenderOptions()) for job in range(jobs))]
        )
        model = LoadedModel(engine, checkpoint.card)
        streams = StreamMemories(frame_memory, 1000)
        Worker({"street": model}, memory, pipe, budget, streams).serve()
        assert 0 < budget.used_bytes <= limit_bytes
        memory.control.taken[0] = 0
        return [memory.read_rendered(reply).labels for reply in pipe.replies[-jobs:]]

    (alone,) = labels(1, 64 << 20)
    assert all(np.array_equal(alone, crowded) for crowded in labels(4, 1 << 20))


def test_a_job_is_rendered_on_demand_until_it_is_forgotten():
    render = Render("a", OPTIONS)
    _, replies, _ = serve(run(1, 1, 1), render, Forget("a"), render)
    assert [type(reply) for reply in replies] == [RunEnd, RenderedExit, Fault]


@pytest.mark.parametrize("pixels", [1000, 1])
def test_a_rendering_is_read_as_it_was_written_whether_it_fits_or_not(pixels):
    memory = SharedMemory.allocate(pixels)
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    rendered = RenderedExit(1, 3, 4, labels, None, labels + 1, None, None, 0.0)
    for written in range(3):
        assert memory.has_place(written)
        read = memory.read_rendered(memory.write_rendered(rendered, written))
        assert np.array_equal(read.labels, labels)
        assert np.array_equal(read.confidence, labels + 1)


@pytest.mark.parametrize("side", [10, 11], ids=["fits", "does not fit"])
def test_an_image_arrives_as_it_is_whether_or_not_it_fits_into_the_shared_memory(side):
    memory = SharedMemory.allocate(100)
    image = np.arange(3 * side * side).astype(np.uint8).reshape(side, side, 3)
    assert np.array_equal(memory.read_image(memory.write_image(image)), image)


@dataclass
class NamedEngine:
    """A model and its engine, of which only the name counts."""

    name: str

    @property
    def engine(self):
        return self


@pytest.mark.parametrize(
    ("names", "threads"),
    [
        (["native-avx512-f32"], 1),
        (["native-avx512-f32", "openvino-f32"], 1),
        (["native-avx512-f32", "torch-cpu-f32"], 3),
    ],
    ids=str,
)
def test_torch_has_threads_of_its_own_only_where_it_computes(names, threads):
    models = {name: NamedEngine(name) for name in names}
    assert torch_threads(models, 3) == threads
    assert torch_threads({"a": NamedEngine("torch-cpu-f32")}, 0) >= 1


def check(number, stream, limits=CHECK):
    return CheckFrame(number, stream), limits


def test_frames_of_a_stream_are_begun_from_what_is_kept_of_it():
    model, replies, _ = serve(
        run(1, 1, 2, job="a", stream="s"),
        FinishFrame("a"),
        Forget("a"),
        run(2, 1, 3, job="b", stream="s"),
        FinishFrame("b"),
        run(3, 1, 1, job="c", stream="t"),
        FinishFrame("c"),
        run(4, 1, 1, job="alone"),
    )
    finished = [reply for reply in replies if isinstance(reply, FinishedFrame)]
    assert [(reuse.oldest, reuse.wants_check) for reuse in finished] == [
        (1, True),
        (2, True),
        (1, True),
    ]
    assert [memory.results for memory in model.memories] == [[2, 3], [1]]


def test_a_frame_that_nobody_asks_about_is_kept_when_it_is_forgotten():
    model, replies, _ = serve(run(1, 1, 2, stream="s"), Forget("a"), run(2, 1, 1, job="b"))
    assert [memory.results for memory in model.memories] == [[2]]
    assert [type(reply) for reply in replies] == [RunEnd, RunEnd]


def test_a_frame_that_was_stopped_before_its_first_exit_leaves_the_memory_as_it_was():
    start, _ = run(1, 1, 1, stream="s")
    model, replies, _ = serve((start, STOP), FinishFrame("a"))
    assert model.memories[0].results == [None]
    assert not replies[-1].wants_check


def test_a_check_computes_the_last_frame_along_its_path():
    start, _ = run(1, 1, 1, stream="s")
    model, replies, _ = serve(
        (start, RunLimits((1, 3, 4))), FinishFrame("a"), check(2, "s"), check(3, "unknown")
    )
    assert model.computed == [1, 3, 4, 1, 3, 4]
    assert model.memories[0].results == [4, ("checked", 4)]
    assert replies[-2:] == [Checked(is_done=True)] * 2


def test_a_check_that_is_stopped_goes_on_where_it_was():
    memory, seen = SharedMemory.allocate(1000), []

    def stop_in_the_second_check(stage):
        seen.append(stage)
        if len(seen) == 6:
            memory.control.set_limits(STOP)

    model = FakeModel(on_stage=stop_in_the_second_check)
    _, replies, _ = serve(
        run(1, 1, 3, stream="s"),
        FinishFrame("a"),
        check(2, "s", RunLimits((1,))),
        check(3, "s"),
        check(4, "s"),
        model=model,
        memory=memory,
    )
    assert [reply.is_done for reply in replies[-3:]] == [False, False, True]
    assert model.computed == [1, 2, 3, 1, 2, 3]
    assert model.memories[0].results == [3, ("checked", 3)]


def test_the_next_frame_ends_the_chance_of_a_check():
    model, replies, _ = serve(
        run(1, 1, 2, stream="s"),
        FinishFrame("a"),
        check(2, "s", RunLimits((1,))),
        run(3, 1, 1, job="b", stream="s"),
        check(4, "s"),
    )
    assert model.computed == [1, 2, 1, 1]
    assert replies[-1] == Checked(is_done=True)


def test_memories_that_take_too_much_are_dropped_the_one_longest_unused_first():
    commands = []
    for number, stream in enumerate("abcab", start=1):
        job = f"{stream}{number}"
        commands += [run(number, 1, 1, job=job, stream=stream), FinishFrame(job)]
    model, replies, _ = serve(*commands)  # two of 400 bytes fit into 1000
    ages = [reply.oldest for reply in replies if isinstance(reply, FinishedFrame)]
    assert ages == [1, 1, 1, 1, 1]
    assert len(model.memories) == 5


def test_a_stream_that_is_over_is_forgotten():
    commands = []
    for number in (1, 2):
        job = str(number)
        commands += [run(number, 1, 1, job=job, stream="s"), FinishFrame(job), ForgetStream("s")]
    model, _, _ = serve(*commands)
    assert len(model.memories) == 2
