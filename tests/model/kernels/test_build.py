"""Building the native kernels: failures say what to do, and PyTorch is not needed for it."""

import os
import shutil
import subprocess
import sys

import pytest

from anytime_model.errors import AnytimeModelError
from anytime_model.kernels import build, library
from anytime_model.kernels.library import KernelError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty folder for the library."""
    monkeypatch.setenv("ANYTIME_KERNEL_CACHE", str(tmp_path))
    return tmp_path


def test_without_a_compiler_it_says_what_to_install(cache):
    with pytest.raises(build.BuildError, match="no-such-compiler"):
        build.build(build.BuildOptions(("no-such-compiler",)))


def test_the_compilers_output_is_passed_on(cache):
    with pytest.raises(build.BuildError) as caught:
        build.build(build.BuildOptions((sys.executable, "-c", "raise SystemExit('so it says')")))
    assert "so it says" in caught.value.output
    assert not list(cache.rglob("*.so"))


def test_other_options_makes_another_library():
    paths = {
        build.library_path(build.BuildOptions(sanitize=sanitize)) for sanitize in (True, False)
    }
    assert len(paths) == 2


@pytest.fixture
def built(tmp_path, monkeypatch):
    """A copy of the library in a folder of its own."""
    found = build.library_path(build.BuildOptions.from_environment())
    if not found.exists():
        pytest.skip("the native kernels are not built")
    monkeypatch.setenv("ANYTIME_KERNEL_CACHE", str(tmp_path))
    path = build.library_path(build.BuildOptions.from_environment())
    path.parent.mkdir()
    shutil.copy(found, path)
    return path


def test_a_library_that_is_whole_and_ones_own_is_loaded(built):
    assert library.load.__wrapped__().path == built


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_library_is_an_error_and_no_signal(built, share):
    os.truncate(built, int(built.stat().st_size * share))
    with pytest.raises(KernelError, match="lost a part"):
        library.load.__wrapped__()


@pytest.mark.parametrize("up", [0, 1, 2], ids=["file", "folder", "cache"])
def test_a_library_that_others_may_have_written_is_not_loaded(built, up):
    place = [built, *built.parents][up]
    place.chmod(place.stat().st_mode | 0o002)
    with pytest.raises(KernelError, match="nobody else"):
        library.load.__wrapped__()


def test_a_library_of_another_user_is_not_loaded(built):
    if os.geteuid():
        pytest.skip("needs root, to make one")
    os.chown(built, 65534, 65534)
    with pytest.raises(KernelError, match="user 65534"):
        library.load.__wrapped__()


def test_the_builder_imports_no_tensors():
    code = (
        "import sys, anytime_model.kernels.build\n"
        "heavy = {'torch', 'numpy'} & sys.modules.keys()\n"
        "raise SystemExit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_wrong_number_of_threads_is_refused(monkeypatch):
    monkeypatch.setenv("ANYTIME_THREADS", "many")
    with pytest.raises(KernelError, match="many"):
        library._default_threads()


def test_errors_of_the_kernels_have_the_root_of_the_package():
    assert issubclass(KernelError, AnytimeModelError)
