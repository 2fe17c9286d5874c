"""The arrows of the design: who may import whom, and how little an import costs."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from chatbot.settings import PROJECT

# A room may import rooms of lower tiers; what is not named here is the ground floor.
TIERS = {
    "hardware": 1,
    **dict.fromkeys(("retrieval", "library", "engines", "memory"), 2),
    **dict.fromkeys(("chat", "jobs", "models", "training", "evaluation"), 3),
    "workshop": 4,
    "services": 5,
    "api": 6,
    "cli": 7,
    "__main__": 8,
    "pages": 7,
    "app": 7,
}
NEIGHBOURS_ALLOWED = {("training", "evaluation"), ("app", "pages")}
HEAVY = ("torch", "transformers", "llama_cpp", "chromadb", "sentence_transformers")
COSTLY = ("tantivy", "babel", "pynvml", "pandas")


def python_files() -> list[Path]:
    files = sorted((PROJECT / "chatbot").rglob("*.py")) + sorted((PROJECT / "pages").rglob("*.py"))
    return [*files, *(f for f in [PROJECT / "app.py"] if f.exists())]


def module_of(file: Path) -> str:
    name = ".".join(file.relative_to(PROJECT).with_suffix("").parts)
    return name.removesuffix(".__init__")


MODULES = {module_of(file): ast.parse(file.read_text(encoding="utf-8")) for file in python_files()}


def room_of(module: str) -> str:
    """The room a module belongs to: chatbot.library.store → library, pages.chat → pages."""
    first, _, rest = module.partition(".")
    if first == "widgets":  # Streamlit puts the script's folder on the path
        return "pages"
    return first if first != "chatbot" else rest.partition(".")[0] or "chatbot"


def imports_of(module: str, *, at_import_time: bool = False) -> set[str]:
    """Every module that this one names in an import, also inside functions unless told otherwise."""
    names: set[str] = set()
    nodes = list(ast.walk(MODULES[module]))
    if at_import_time:
        nodes = list(_run_at_import(MODULES[module]))
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide where things lie"
            base = node.module or ""
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                names.add(inner if inner in MODULES else base)
    return names - {module}


def _run_at_import(node: ast.AST):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _run_at_import(child)


def ours(name: str) -> bool:
    return name.partition(".")[0] in ("chatbot", "pages", "widgets", "app")


def test_rooms_import_lower_tiers_only():
    wrong = []
    for module in MODULES:
        here = room_of(module)
        for name in filter(ours, imports_of(module)):
            there = room_of(name)
            if here == there or (here, there) in NEIGHBOURS_ALLOWED or there == "chatbot":
                continue
            if TIERS.get(there, 0) >= max(1, TIERS.get(here, 0)):
                wrong.append(f"{module} → {name}")
    assert not wrong


def test_no_import_goes_round_in_a_circle():
    graph = {m: imports_of(m, at_import_time=True) & set(MODULES) for m in MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError with the circle


def test_chatbot_knows_nothing_of_streamlit_or_its_pages():
    wrong = [
        f"{module} → {name}"
        for module in MODULES
        if module.startswith("chatbot")
        for name in imports_of(module)
        if name.partition(".")[0] in ("streamlit", "pages", "widgets", "app")
    ]
    assert not wrong


def test_importing_any_module_loads_nothing_heavy():
    modules = [m for m in MODULES if m.startswith("chatbot")]
    script = (
        "import importlib, json, sys\n"
        f"heavy = {HEAVY + COSTLY!r}\n"
        "found = {}\n"
        f"for name in {modules!r}:\n"
        "    before = set(sys.modules)\n"
        "    importlib.import_module(name)\n"
        "    loaded = sorted(h for h in heavy if h in sys.modules and h not in before)\n"
        "    if loaded: found[name] = loaded\n"
        "print(json.dumps(found))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert json.loads(answer.stdout) == {}


def test_importing_chatbot_is_cheap():
    """Generous, for busy machines; benchmarks/imports.py holds the real figure."""

    def cpu_seconds(imports: str) -> float:
        script = f"import time{imports}; print(time.process_time())"
        answer = subprocess.run(
            [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, check=True
        )
        return float(answer.stdout)

    ours = min(cpu_seconds(", chatbot, chatbot.services") for _ in range(5))
    assert ours - cpu_seconds("") < 0.4


@pytest.mark.parametrize("folder", ["chatbot", "tests"])
def test_every_package_we_import_is_pinned(folder: str):
    """What the code imports is named in the requirements, so that no upgrade of another drops it."""
    names = (
        ["requirements.txt"]
        if folder == "chatbot"
        else ["requirements.txt", "requirements-dev.txt"]
    )
    text = "\n".join((PROJECT / name).read_text(encoding="utf-8") for name in names)
    pinned = {canonical(n) for n in re.findall(r"^([A-Za-z0-9_.-]+)==", text, re.MULTILINE)}
    distributions = packages_distributions()
    missing = set()
    files = python_files() if folder == "chatbot" else sorted((PROJECT / "tests").rglob("*.py"))
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            imported = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                imported = [node.module]
            for name in imported:
                top = name.partition(".")[0]
                if top in sys.stdlib_module_names or top in (
                    "chatbot",
                    "pages",
                    "app",
                    "start",
                    "tests",
                ):
                    continue
                owners = {canonical(d) for d in distributions.get(top, [])}
                if owners and not owners & pinned:
                    missing.add(f"{file.relative_to(PROJECT)}: {name}")
    assert not missing


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
