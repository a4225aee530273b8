"""Live video: what is as it was keeps its answer, within a bound on the error.

memory = VideoMemory(engine, ReuseSettings())
for image in frames:
    run = memory.begin(image)
    ...                                  # advance the run as far as there is time
    reuse = memory.finish(result)
    if memory.wants_check and idle():
        run = memory.begin_check()
        ...                              # the same rungs
        memory.finish_check(result)
"""

from anytime_model.video.memory import FrameReuse, ReuseSettings, VideoMemory

__all__ = ["FrameReuse", "ReuseSettings", "VideoMemory"]
