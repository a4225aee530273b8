"""The compiler's call for the native kernels: `python -m anytime_model.kernels.build`.

The sources are plain C++20 for GCC or Clang and need no other library. Each instruction set's
kernels are one file, compiled for it alone; which one runs is decided at run time, so the library
loads on any CPU of its architecture. The result lies in a cache folder under a hash of sources,
compiler and flags: a change of any of them makes another library, and an old one is never loaded.
Nothing is compiled unless this is asked for.
"""

import argparse
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from anytime_model.errors import AnytimeModelError

SOURCES = Path(__file__).parent / "native"
LIBRARY = "libanytime_kernels.so"
COMMON_FLAGS = (
    "-std=c++20",
    "-O3",
    "-fno-trapping-math",  # lets loops with conditions become vector code
    "-fno-math-errno",
    "-g1",
    "-fPIC",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    # GCC 12's own AVX-512 header trips these two.
    "-Wno-uninitialized",
    "-Wno-maybe-uninitialized",
)
AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma")
X86_FLAGS = {
    "kernels_avx2_int8.cpp": ("-mavx2", "-mfma", "-mavxvnni"),
    "kernels_avx512_int8.cpp": (*AVX512, "-mavx512vnni"),
    "kernels_avx2.cpp": ("-mavx2", "-mfma"),
    "kernels_avx512.cpp": AVX512,
    "kernels_avx512_bf16.cpp": (*AVX512, "-mavx512bf16"),
    "kernels_amx_bf16.cpp": (*AVX512, "-mavx512bf16"),
    "kernels_amx_int8.cpp": (*AVX512, "-mavx512vnni"),
}
X86_DEFINES = (
    "-DANYTIME_AVX2",
    "-DANYTIME_AVX2_INT8",
    "-DANYTIME_AVX512",
    "-DANYTIME_AVX512_BF16",
    "-DANYTIME_AVX512_INT8",
    "-DANYTIME_AMX",
)
EXACT_FLAGS = ("-ffp-contract=off",)
"""Of kernels that agree bit for bit: multiply-adds are fused only where the source says so."""
SANITIZE_FLAGS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g")


class BuildError(AnytimeModelError):
    """The kernels could not be compiled.

    Attributes:
        output: what the compiler said.
    """

    def __init__(self, problem: str, cure: str, output: str = "") -> None:
        self.output = output
        super().__init__(f"{problem} {cure}" + (f"\n{output}" if output else ""))


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How the library is compiled: all that its hash depends on, besides the sources.

    Attributes:
        compiler: the C++ compiler's command.
        sanitize: with AddressSanitizer and UndefinedBehaviorSanitizer.
    """

    compiler: tuple[str, ...] = ("g++",)
    sanitize: bool = False

    @classmethod
    def from_environment(cls) -> "BuildOptions":
        """$CXX, or the first of g++, clang++, c++ that there is; ANYTIME_SANITIZE=1 sanitizes."""
        named = os.environ.get("CXX")
        if named:
            compiler = tuple(shlex.split(named))
        else:
            found = [name for name in ("g++", "clang++", "c++") if shutil.which(name)]
            compiler = (found[0] if found else "g++",)
        return cls(compiler, os.environ.get("ANYTIME_SANITIZE") == "1")

    def flags(self, source: str) -> tuple[str, ...]:
        """Compiler flags for one source file."""
        flags = list(COMMON_FLAGS)
        if _x86():
            flags += [*X86_DEFINES, *X86_FLAGS.get(source, ())]
        if source.endswith("_int8.cpp"):
            flags += EXACT_FLAGS
        if self.sanitize:
            flags += SANITIZE_FLAGS
        return tuple(flags)


def sources() -> list[Path]:
    """The files to compile on this machine."""
    skip = set() if _x86() else set(X86_FLAGS)
    return sorted(path for path in SOURCES.glob("*.cpp") if path.name not in skip)


def library_path(options: BuildOptions) -> Path:
    """Where the library of these sources and options lies, whether or not it does."""
    digest = hashlib.sha256()
    for path in sorted([*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h"), *SOURCES.glob("*.hpp")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(
        repr((platform.machine(), options, X86_FLAGS, COMMON_FLAGS, EXACT_FLAGS)).encode()
    )
    return cache_folder() / digest.hexdigest()[:16] / LIBRARY


def cache_folder() -> Path:
    """$ANYTIME_KERNEL_CACHE, or anytime-dense/kernels in the user's cache folder."""
    named = os.environ.get("ANYTIME_KERNEL_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "anytime-dense" / "kernels"


def build(options: BuildOptions, *, force: bool = False) -> Path:
    """Compile the library unless it is there already.

    Returns:
        Its path.

    Raises:
        BuildError: there is no compiler, it failed, or the cache folder cannot be written.
    """
    target = library_path(options)
    if target.exists() and not force:
        return target
    if shutil.which(options.compiler[0]) is None:
        raise BuildError(
            f"There is no C++ compiler ({options.compiler[0]}).",
            "Install g++ 11 or newer, or clang++ 14, or name one in CXX; without one, set "
            "ANYTIME_ENGINE=torch.",
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = _compile(options, Path(folder))
            made.replace(target)  # atomically: another process may be loading or building it
    except OSError as e:
        raise BuildError(
            f"The kernels cannot be written below {target.parent} ({e}).",
            "Name a writable folder in ANYTIME_KERNEL_CACHE.",
        ) from e
    return target


def _compile(options: BuildOptions, folder: Path) -> Path:
    def one(source: Path) -> str:
        made = str(folder / f"{source.stem}.o")
        _call([*options.compiler, *options.flags(source.name), "-c", str(source), "-o", made])
        return made

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        objects = list(threads.map(one, sources()))
    library = folder / LIBRARY
    sanitize = SANITIZE_FLAGS if options.sanitize else ()
    _call([*options.compiler, "-shared", "-pthread", *sanitize, *objects, "-o", str(library)])
    return library


def _call(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise BuildError(
            f"`{shlex.join(command)}` failed.",
            "g++ 11 or newer, or clang++ 14 or newer, is needed.",
            done.stdout + done.stderr,
        )


def _x86() -> bool:
    return platform.machine().lower() in {"x86_64", "amd64"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, and say where the library is."""
    parser = argparse.ArgumentParser(
        prog="python -m anytime_model.kernels.build", description=main.__doc__
    )
    parser.add_argument("--force", action="store_true", help="compile even if nothing changed")
    options = parser.parse_args(arguments)
    try:
        path = build(BuildOptions.from_environment(), force=options.force)
    except BuildError as e:
        sys.stderr.write(f"{e}\n")
        return 1
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
