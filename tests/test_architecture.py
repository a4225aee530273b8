"""Rules of the structure that import-linter cannot state."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "anytime_protocol": ROOT / "client/anytime_protocol",
    "anytime_client": ROOT / "client/anytime_client",
    "anytime_model": ROOT / "model/anytime_model",
    "anytime_server": ROOT / "server/anytime_server",
}
SOURCES = sorted(file for folder in PACKAGES.values() for file in folder.rglob("*.py"))
MAX_LINES = 550
MAX_CHAIN = 8
"""Modules in the longest chain of imports inside the server."""

REPLACED_WORDS = {
    *("house", "ticket", "door", "outlook", "owed", "bought", "spare"),
    *("go_ahead", "through", "hold", "catch_up", "go_on", "inbox"),
    *("happening", "told", "sink", "picture", "pictures", "asked", "question", "want_of"),
    *("exchange", "link", "following", "conversation", "canvas", "painting", "painter"),
    *("vocabulary", "knows", "welcomes", "judge", "soften", "stepper", "rhythm", "watcher"),
    *("foreign", "official", "agreement", "catalogue", "bands", "strips"),
}
"""Words that are no names here, since the field has a standard term for what they once meant."""


def relative(path):
    return str(path.relative_to(ROOT))


@cache
def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def names_in(path):
    """All names that a file defines: of modules, classes, functions, parameters and attributes."""
    found = {path.stem}
    for node in ast.walk(parsed(path)):
        match node:
            case (
                ast.ClassDef(name=name)
                | ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
            ):
                found.add(name)
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
                found.add(name)
            case ast.Attribute(attr=name, ctx=ast.Store()):
                found.add(name)
    return found


def snake_case(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_")


def test_every_file_begins_with_a_sentence_that_says_what_it_is():
    missing = [relative(path) for path in SOURCES if not ast.get_docstring(parsed(path))]
    assert not missing
    formula = re.compile(r"\bDecides (?!by)|Refuses to know|Knows (no|neither|nothing)\b")
    assert not [relative(p) for p in SOURCES if formula.search(ast.get_docstring(parsed(p)) or "")]


def test_no_file_is_long():
    lengths = {relative(path): len(path.read_text("utf-8").splitlines()) for path in SOURCES}
    assert not {name: length for name, length in lengths.items() if length > MAX_LINES}


def test_names_are_the_fields_standard_terms():
    found = {
        f"{relative(path)}: {name}"
        for path in SOURCES
        for name in names_in(path)
        if snake_case(name) in REPLACED_WORDS
    }
    assert not found


ALLOWED_PAIRS = {
    "Update": "the protocol's message, and what a caller of the client gets of it",
    "Engine": "what computes a network, and what serves requests; neither imports the other",
    "Task": "the protocol's word for what a model predicts, and what the model does for it",
}
"""Names that stand for two things, and why they may."""


def test_a_public_class_name_stands_for_one_thing():
    places = {}
    for path in SOURCES:
        for node in parsed(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(relative(path))
    shared = {name: files for name, files in places.items() if len(files) > 1}
    assert shared.keys() <= ALLOWED_PAIRS.keys(), shared


def test_the_longest_chain_of_imports_inside_the_server_is_short():
    graph = grimp.build_graph("anytime_server", exclude_type_checking_imports=True)

    @cache
    def chain(module):
        below = graph.find_modules_directly_imported_by(module)
        return max(([module, *chain(other)] for other in below), key=len, default=[module])

    longest = max((chain(module) for module in graph.modules), key=len)
    assert len(longest) <= MAX_CHAIN, longest


def run_python(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_client_runs_without_torch():
    blocked = ("torch", "anytime_model", "anytime_server")
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked})); import anytime_client"
    result = run_python(code)
    assert result.returncode == 0, result.stderr


def test_importing_the_packages_prints_nothing_and_starts_nothing():
    code = (
        "import anytime_protocol, anytime_client, anytime_model, anytime_server, threading; "
        "assert threading.active_count() == 1"
    )
    result = run_python(code)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
