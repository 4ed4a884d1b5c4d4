"""The rooms of the package: one-way stairs, no circles, files that can be read at one sitting."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

# Each room may use those before it, and never those after it.
STAIRS = (
    "files", "networks", "acceleration", "weights", "images", "data", "phantoms", "figures",
    "evaluation", "training", "pretraining", "bundles", "study", "__main__",
)  # fmt: skip
PACKAGE = Path(__file__).resolve().parents[1] / "lora_ext"
FILES = {
    "lora_ext." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imported(path: Path) -> set[str]:
    """Every module of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lora_ext"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                known = inner in FILES or f"{inner}.__init__" in FILES
                found.add(inner if known else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("lora_ext")}
    return found


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_file_lies_in_a_room():
    assert {room(module) for module in FILES} - {"__init__"} == set(STAIRS)


@pytest.mark.parametrize("module", FILES)
def test_rooms_use_only_those_before_them(module):
    if module == "lora_ext.__init__":
        return  # the public names, each from its home
    allowed = STAIRS[: STAIRS.index(room(module)) + 1]
    # the version, and rooms whose attributes a config reaches, come from the package itself
    assert {room(other) for other in imported(FILES[module])} - {""} <= set(allowed)


def test_there_are_no_circles():
    graph = {}
    for module, path in FILES.items():
        if module != "lora_ext.__init__":
            homes = {m if m in FILES else f"{m}.__init__" for m in imported(path)}
            graph[module] = homes - {"lora_ext.__init__"}
    TopologicalSorter(graph).prepare()  # a CycleError names the circle


def test_contributing_lists_the_same_order():
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"in this order: (.*?)\.", text)
    assert tuple(re.findall(r"`(\w+)`", listed)) == STAIRS


@pytest.mark.parametrize("module", FILES)
def test_no_file_is_longer_than_400_lines(module):
    assert len(FILES[module].read_text(encoding="utf-8").splitlines()) <= 400


def test_nine_of_ten_functions_are_shorter_than_30_lines():
    sizes = [
        node.end_lineno - node.body[0].lineno + 1
        for path in FILES.values()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    assert len(sizes) > 300
    assert sorted(sizes)[int(0.9 * len(sizes))] < 30
