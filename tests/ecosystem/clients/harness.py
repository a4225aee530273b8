"""What scripts share that run in environments of their own: those beside it, with nothing of ours,
and those of the integrations.

A script has functions named `check_...` that take a case, and are coroutines or not.
"""

import asyncio
import inspect
import json
import sys
import traceback
from pathlib import Path


class Case:
    """What a server was asked over `/v1`, to be asked again.

    Attributes:
        address: host and port of the server.
        url: the same with its scheme.
        file: an image file.
        pixels: its pixels as bytes, red, green, blue, row by row.
        shape: [1, height, width, 3] of them.
        labels: class ids, row by row, at `max_exit`.
        keypoints: x, y and score of each joint, at `max_exit`.
        max_exit: of the requests.
    """

    def __init__(self, url, folder):
        expected = json.loads((folder / "expected.json").read_text())
        self.url = url
        self.address = url.removeprefix("http://")
        self.file = (folder / "image.png").read_bytes()
        self.pixels = (folder / "pixels.bin").read_bytes()
        self.shape = expected["shape"]
        self.labels = expected["labels"]
        self.keypoints = expected["keypoints"]
        self.max_exit = expected["max_exit"]


def main(names, make_case=Case):
    """Runs all checks among `names`, and exits with the number of those that failed.

    The arguments of the script are a server's URL and a folder, from which its case is made.
    """
    case = make_case(sys.argv[1], Path(sys.argv[2]))
    checks = {name: check for name, check in names.items() if name.startswith("check_")}
    failed = 0
    for name, check in checks.items():
        try:
            result = check(case)
            if inspect.iscoroutine(result):
                asyncio.run(result)
        except Exception:
            failed += 1
            print(f"FAILED {name}")
            traceback.print_exc(file=sys.stdout)
        else:
            print(f"passed {name}")
    sys.exit(min(failed, 99) if checks else 100)


def expect_error(kind, call, *words):
    """Has `call` raise an error of a kind, with some words in it; returns it."""
    try:
        call()
    except kind as error:
        text = str(error)
        assert all(word in text for word in words), text
        return error
    raise AssertionError(f"no {kind.__name__} was raised")
