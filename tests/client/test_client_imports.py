"""The client needs no torch: not to be imported, not to be used, not for its command line."""

import subprocess
import sys

CODE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        blocked = {"torch", "anytime_model", "anytime_server", "fastapi", "cv2", "av"}
        if name.split(".")[0] in blocked:
            raise ImportError(f"{name} must not be needed")

sys.meta_path.insert(0, Refuse())
import anytime_client
import anytime_client.cli
print(anytime_client.Client("http://127.0.0.1:1").__class__.__name__)
"""


def test_the_client_and_its_commands_import_with_torch_and_server_blocked():
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("Client\n", "", 0)
