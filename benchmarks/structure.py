"""
How readable the package is: modules, levels and cycles of imports, sizes of classes and functions, words of docstrings.

Run: python benchmarks/structure.py [REVISION]. It measures the working tree and, beside it, a git revision, whose files
it reads without a checkout. The table is Markdown. It needs nothing but Python.

- Imports count wherever they stand: for types alone and inside functions, too. Importing a module from a package is an
  import of that module, not of the package.
- Levels are the length of the longest import chain. A cycle counts as one level for each of its modules: each of them
  leads to all the others.
- A room is a direct child of ``hopsworks``: a folder or a module.
- Lines of a class are its own, without those of its bases. Fields are the annotated names in its body and the
  attributes that its methods set on ``self``.
- A class has behaviour unless it is exempt (``EXEMPT_FOLDERS``, ``VALUES``), a TypedDict, or a frozen dataclass whose
  only methods are properties, class and static methods, special methods and conversions named ``to_...``.
- Words and ``:param`` lines are those of docstrings. A ``:param`` line of five words or fewer after the colon only
  repeats the name; its continuation lines count as part of it.
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
from collections import Counter
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

ROOT = Path(__file__).parents[1]
PACKAGE = "airflow_provider_hsml"
HOPSWORKS = f"{PACKAGE}.hopsworks"
FOLDERS = ["hopsworks", "hooks", "operators", "sensors", "triggers", "local"]
MOST_FIELDS = 12
MOST_LINES = 250
MOST_WHAT = 5
BIGGEST = 10

# The goals for fields and lines are not for these classes. HsmlHook needs no entry: lines are a class's own, so each of
# its mixins is measured and the hook as a whole is not.
EXEMPT_FOLDERS = {
    "operators": "the fields of an operator are its arguments",
    "sensors": "the fields of a sensor are its arguments",
    "triggers": "the fields of a trigger are its arguments",
}
VALUES = {
    "Call": "the wire: one request and the way to read its answer",
    "Deployment": "the wire: a deployment as Hopsworks describes it",
    "DeploymentSpec": "settings: those of a deployment",
    "JournalEntry": "the journal: one file of it",
    "Line": "the wire: the differences between lines of Hopsworks",
    "ModelVersion": "the wire: a model version as Hopsworks describes it",
    "Record": "the record: the XCom of a promotion",
    "Scaling": "settings: those of the autoscaler",
}

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_PARAM = re.compile(r"^[ \t]*:param [^:\n]+:(?P<text>.*)$(?P<more>(\n[ \t]+[^: \t\n].*)*)", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z][A-Za-z']*")
_NO_FIELDS = re.compile(r"\b(ClassVar|InitVar|KW_ONLY)\b")
_MADE_WITHOUT_SELF = {"classmethod", "property", "staticmethod", "cached_property", "overload"}


@dataclass(frozen=True, slots=True)
class ClassSize:
    """The size of one class."""

    name: str
    lines: int
    fields: int
    has_behaviour: bool

    def __str__(self) -> str:
        return f"`{self.name}`: {self.lines} lines, {self.fields} fields"


@dataclass(frozen=True, slots=True)
class ImportShape:
    """The shape of an import graph: how many nodes, levels and cycles, and the size of the largest cycle."""

    nodes: int
    levels: int
    cycles: int
    largest_cycle: int

    def __str__(self) -> str:
        cycles = f"{self.cycles} (largest: {self.largest_cycle})" if self.cycles else "0"
        return f"{self.nodes} on {self.levels} levels, cycles: {cycles}"


@dataclass(frozen=True, slots=True)
class Measures:
    """All measures of one state of the package."""

    package: ImportShape
    hopsworks: ImportShape
    rooms: ImportShape
    classes: list[ClassSize]
    function_lines: list[int]
    yield_froms: Counter[str]
    params: int
    repeating_params: int
    words: int
    whats: int
    lines: Counter[str]
    modules: Counter[str]

    @property
    def what_per_1000(self) -> float:
        """The word "what" per 1,000 words of docstrings."""
        return 1000 * self.whats / max(self.words, 1)

    @property
    def with_many_fields(self) -> list[ClassSize]:
        """Classes with behaviour and too many fields."""
        return [each for each in self.classes if each.has_behaviour and each.fields > MOST_FIELDS]

    @property
    def with_many_lines(self) -> list[ClassSize]:
        """Classes with behaviour and too many lines."""
        return [each for each in self.classes if each.has_behaviour and each.lines > MOST_LINES]


# ------------------------------------------------------------------------------------------------------------ sources
def working_tree(root: Path = ROOT) -> dict[str, str]:
    """Return the package's sources by path, as they are on disk."""
    return {path.relative_to(root).as_posix(): path.read_text() for path in sorted((root / PACKAGE).rglob("*.py"))}


def revision(name: str, root: Path = ROOT) -> dict[str, str]:
    """Return the package's sources by path, as they are in a git revision."""
    git = shutil.which("git")
    if git is None:
        raise SystemExit("git is not on PATH: a revision cannot be read")
    # The revision is resolved first, so that a name which begins with a dash is never an option of git.
    resolve = [git, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"]
    resolved = subprocess.run(resolve, cwd=root, capture_output=True, text=True, check=False)
    if resolved.returncode:
        raise SystemExit(f"{name!r} is no commit of this repository")
    command = [git, "archive", "--format=tar", resolved.stdout.strip(), PACKAGE]
    content = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout
    sources = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".py") else None
            if file is not None:
                sources[member.name] = file.read().decode()
    return sources


# ------------------------------------------------------------------------------------------------- graph of imports
def module_name(path: str) -> str:
    """Return the dotted name of the module in a file."""
    return ".".join(PurePosixPath(path).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(path: str, tree: ast.Module, modules: Iterable[str]) -> set[str]:
    """Return the modules of the package that a file imports, in functions and for types included."""
    package = PurePosixPath(path).parent.parts
    known = set(modules)
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*parents, *([node.module] if node.module else [])])
            names = {f"{base}.{alias.name}" for alias in node.names}
            found |= {name if name in known else base for name in names}
    return (found & known) - {module_name(path)}


def components(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Return the strongly connected components of a graph, each after all that it leads to (Tarjan)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for target in sorted(graph[node]):
            if target not in order:
                visit(target)
                lowest[node] = min(lowest[node], lowest[target])
            elif target in stack:
                lowest[node] = min(lowest[node], order[target])
        if lowest[node] == order[node]:
            start = stack.index(node)
            found.append(set(stack[start:]))
            del stack[start:]

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return found


def import_shape(graph: Mapping[str, set[str]]) -> ImportShape:
    """Return the levels and cycles of an import graph."""
    parts = components(graph)
    part_of = {node: number for number, part in enumerate(parts) for node in part}
    below = {
        number: {part_of[target] for node in part for target in graph[node]} - {number}
        for number, part in enumerate(parts)
    }
    levels: dict[int, int] = {}
    for number in TopologicalSorter(below).static_order():
        levels[number] = len(parts[number]) + max((levels[each] for each in below[number]), default=0)
    cycles = [len(part) for part in parts if len(part) > 1]
    return ImportShape(len(graph), max(levels.values(), default=0), len(cycles), max(cycles, default=0))


def within(graph: Mapping[str, set[str]], package: str) -> dict[str, set[str]]:
    """Return the part of a graph that lies in a package."""
    inside = {node for node in graph if f"{node}.".startswith(f"{package}.")}
    return {node: graph[node] & inside for node in inside}


def between_rooms(graph: Mapping[str, set[str]], package: str) -> dict[str, set[str]]:
    """Return the graph of a package's direct children; its own ``__init__`` is the door, and no child."""

    def room(node: str) -> str:
        return node.removeprefix(f"{package}.").partition(".")[0]

    inside = {node: targets for node, targets in within(graph, package).items() if node != package}
    rooms: dict[str, set[str]] = {room(node): set() for node in inside}
    for node, targets in inside.items():
        rooms[room(node)] |= {room(target) for target in targets if target != package} - {room(node)}
    return rooms


# ------------------------------------------------------------------------------------------------- classes and words
def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes below a class but those of classes inside it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.ClassDef):
            yield child
            yield from own_nodes(child)


def field_names(node: ast.ClassDef) -> set[str]:
    """Return the names of a class's fields: annotated in its body, or set on ``self``."""
    annotated = {
        each.target.id
        for each in node.body
        if isinstance(each, ast.AnnAssign)
        and isinstance(each.target, ast.Name)
        and not _NO_FIELDS.search(ast.unparse(each.annotation))
    }
    return annotated | {
        each.attr
        for each in own_nodes(node)
        if isinstance(each, ast.Attribute)
        and isinstance(each.ctx, ast.Store)
        and isinstance(each.value, ast.Name)
        and each.value.id == "self"
    }


def is_frozen_dataclass(node: ast.ClassDef) -> bool:
    """Whether a class is decorated as a frozen dataclass."""
    return any(
        isinstance(each, ast.Call)
        and ast.unparse(each.func).endswith("dataclass")
        and any(word.arg == "frozen" and ast.unparse(word.value) == "True" for word in each.keywords)
        for each in node.decorator_list
    )


def does_something(method: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a method is behaviour: no property, constructor, special method or conversion."""
    decorators = {ast.unparse(each).rpartition(".")[2] for each in method.decorator_list}
    is_special = method.name.startswith("__") and method.name.endswith("__")
    return not (decorators & _MADE_WITHOUT_SELF or is_special or method.name.startswith("to_"))


def has_behaviour(node: ast.ClassDef, folder: str) -> bool:
    """Whether the goals for fields and lines hold for a class."""
    if folder in EXEMPT_FOLDERS or node.name in VALUES:
        return False
    if any(ast.unparse(base).endswith("TypedDict") for base in node.bases):
        return False
    methods = [each for each in node.body if isinstance(each, _FUNCTIONS)]
    return not is_frozen_dataclass(node) or any(map(does_something, methods))


def line_count(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines of a class or function, without its decorators."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def folder_of(path: str) -> str:
    """Return the folder of the package that a file belongs to, or ``rest``."""
    place = PurePosixPath(path).parts[1]
    return place if place in FOLDERS else "rest"


def measure(sources: Mapping[str, str]) -> Measures:
    """Measure the package from its sources by path."""
    trees = {path: ast.parse(text) for path, text in sources.items()}
    modules = {module_name(path) for path in sources}
    graph = {module_name(path): imported_modules(path, tree, modules) for path, tree in trees.items()}
    classes: list[ClassSize] = []
    function_lines: list[int] = []
    yield_froms: Counter[str] = Counter()
    docstrings: list[str] = []
    for path, tree in trees.items():
        folder = folder_of(path)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                size = (line_count(node), len(field_names(node)))
                classes.append(ClassSize(node.name, *size, has_behaviour(node, folder)))
            elif isinstance(node, _FUNCTIONS):
                function_lines.append(line_count(node))
            elif isinstance(node, ast.YieldFrom):
                yield_froms[folder] += 1
            if isinstance(node, (ast.Module, ast.ClassDef, *_FUNCTIONS)):
                docstrings.append(ast.get_docstring(node) or "")
    params = [f"{found['text']} {found['more']}".split() for text in docstrings for found in _PARAM.finditer(text)]
    words = Counter(word.lower() for text in docstrings for word in _WORD.findall(text))
    lines: Counter[str] = Counter()
    for path, text in sources.items():
        lines[folder_of(path)] += len(text.splitlines())
    return Measures(
        package=import_shape(graph),
        hopsworks=import_shape(within(graph, HOPSWORKS)),
        rooms=import_shape(between_rooms(graph, HOPSWORKS)),
        classes=sorted(classes, key=lambda each: (-each.lines, each.name)),
        function_lines=sorted(function_lines),
        yield_froms=yield_froms,
        params=len(params),
        repeating_params=sum(len(text) <= 5 for text in params),
        words=words.total(),
        whats=words["what"],
        lines=lines,
        modules=Counter(PurePosixPath(path).parent.as_posix() for path in sources if not path.endswith("/__init__.py")),
    )


# -------------------------------------------------------------------------------------------------------------- table
def lengths(measures: Measures) -> str:
    """Return the median, the 99th percentile and the maximum of the functions' lengths."""
    found = measures.function_lines or [0]
    return f"{statistics.median(found):g} / {found[math.ceil(0.99 * len(found)) - 1]} / {found[-1]}"


def largest_folder(measures: Measures) -> str:
    """Return the folder with the most modules, and how many it has."""
    ((folder, count),) = measures.modules.most_common(1) or [("", 0)]
    return f"{count} in `{folder.removeprefix(f'{PACKAGE}/')}/`"


def nth_class(number: int) -> Callable[[Measures], str]:
    """Return a cell of the table: the class at a position by its lines."""
    return lambda measures: str(measures.classes[number]) if number < len(measures.classes) else ""


def lines_of(folder: str) -> Callable[[Measures], str]:
    """Return a cell of the table: the lines of a folder."""
    return lambda measures: f"{measures.lines[folder]:,}"


def names(classes: list[ClassSize]) -> str:
    """Return how many classes there are, and their names."""
    return f"{len(classes)}: {', '.join(f'`{each.name}`' for each in classes)}" if classes else "0"


ROWS: dict[str, Callable[[Measures], str]] = {
    "modules of the package": lambda it: str(it.package),
    "modules of `hopsworks`": lambda it: str(it.hopsworks),
    "rooms of `hopsworks`": lambda it: str(it.rooms),
    "modules in the largest folder, without `__init__`": largest_folder,
    f"classes with behaviour over {MOST_FIELDS} fields": lambda it: names(it.with_many_fields),
    f"classes with behaviour over {MOST_LINES} lines": lambda it: names(it.with_many_lines),
    **{f"class {number + 1} by lines": nth_class(number) for number in range(BIGGEST)},
    "lines of a function: median / p99 / max": lengths,
    "`yield from` in `hopsworks` / package": lambda it: f"{it.yield_froms['hopsworks']} / {it.yield_froms.total()}",
    "`:param` lines / of these, five words or fewer": lambda it: f"{it.params:,} / {it.repeating_params:,}",
    '"what" per 1,000 words of docstrings': lambda it: f"{it.what_per_1000:.1f} ({it.whats:,} of {it.words:,})",
    **{f"lines of `{folder}`": lines_of(folder) for folder in FOLDERS},
    "lines of the rest": lines_of("rest"),
    "lines in all": lambda it: f"{it.lines.total():,}",
}


def table(columns: Mapping[str, Measures]) -> str:
    """Return the measures as a Markdown table, one column for each state of the package."""
    head = ["", *columns]
    rows = [[label, *map(cell, columns.values())] for label, cell in ROWS.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def goals(measures: Measures) -> list[dict[str, Any]]:
    """Return the goals, whether each is met included."""
    found: list[tuple[str, float, str, int]] = [
        ("import cycles in hopsworks", measures.hopsworks.cycles, "cycles", 0),
        (f"classes with behaviour over {MOST_FIELDS} fields", len(measures.with_many_fields), "classes", 0),
        (f"classes with behaviour over {MOST_LINES} lines", len(measures.with_many_lines), "classes", 0),
        ("yield from in hopsworks", measures.yield_froms["hopsworks"], "", 0),
        ('"what" per 1,000 words of docstrings', round(measures.what_per_1000, 1), "", MOST_WHAT),
    ]
    return [
        {"name": name, "value": value, "unit": unit, "goal": goal, "met": value <= goal}
        for name, value, unit, goal in found
    ]


def main(before: str | None = None) -> None:
    """Measure, and print the table and the goals."""
    after = measure(working_tree())
    print(table(({before: measure(revision(before))} if before else {}) | {"working tree": after}))
    print(json.dumps({"goals": goals(after)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
