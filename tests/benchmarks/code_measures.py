"""Size, imports and documentation of the code, by package, as a Markdown table: ``python code_measures.py [ROOT]``.

Only the standard library is needed, so that any commit can be measured:
``git archive COMMIT | tar x -C DIR && make measures ROOT=DIR``.

Columns: modules that hold code; their lines; median, 95th percentile and maximum of the lines of a module and of a
function (decorators included); share of lines in import statements; comments per 100 lines; share of public functions,
methods and classes with a docstring.
"""

import ast
import io
import statistics
import sys
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PARTS = ("container/classifier", "scripts", "tests")
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass
class Measures:
    """Counts of a package; those of several add up."""

    modules: list[int] = field(default_factory=list)
    functions: list[int] = field(default_factory=list)
    import_lines: int = 0
    comments: int = 0
    public: int = 0
    documented: int = 0

    def add(self, other: "Measures") -> None:
        self.modules += other.modules
        self.functions += other.functions
        self.import_lines += other.import_lines
        self.comments += other.comments
        self.public += other.public
        self.documented += other.documented

    def row(self, name: str) -> str:
        lines = sum(self.modules)
        cells = [
            name,
            str(len(self.modules)),
            str(lines),
            _spread(self.modules),
            _spread(self.functions),
            f"{100 * self.import_lines / lines:.1f} %" if lines else "–",
            f"{100 * self.comments / lines:.1f}" if lines else "–",
            f"{100 * self.documented / self.public:.0f} % of {self.public}" if self.public else "–",
        ]
        return f"| {' | '.join(cells)} |"


def measure(path: Path) -> Measures:
    """Measures of one module; a module without code counts as none."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    if not any(not _is_docstring(node) for node in tree.body):
        return Measures()
    found = Measures(modules=[len(text.splitlines())])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.import_lines += _num_lines(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.functions.append(_num_lines(node))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    found.comments = sum(token.type == tokenize.COMMENT for token in tokens)
    for definition in _public(tree.body):
        found.public += 1
        found.documented += ast.get_docstring(definition) is not None
    return found


def _public(body: Sequence[ast.stmt]) -> Iterator[Definition]:
    """Public functions and classes of a module, and the public methods of those classes; overloads are left out."""
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_") and not _is_overload(node):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body)


def _is_overload(node: Definition) -> bool:
    names = {ast.unparse(one) for one in node.decorator_list}
    return bool(names & {"overload", "override", "typing.overload", "typing.override"})


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _num_lines(node: ast.stmt) -> int:
    first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])
    return (node.end_lineno or node.lineno) - first + 1


def _spread(sizes: Sequence[int]) -> str:
    if not sizes:
        return "–"
    ordered = sorted(sizes)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return f"{statistics.median(ordered):.0f} / {p95} / {ordered[-1]}"


def by_package(root: Path) -> dict[str, Measures]:
    """Measures of each folder two levels below a part, such as ``container/classifier/serving``."""
    found: dict[str, Measures] = {}
    for part in PARTS:
        for path in sorted((root / part).rglob("*.py")):
            inner = path.relative_to(root / part).parts[:-1]
            depth = 2 if inner[:1] == ("launch",) else 1
            name = "/".join((part, *inner[:depth]))
            found.setdefault(name, Measures()).add(measure(path))
    return found


def main(arguments: Sequence[str]) -> int:
    packages = by_package(Path(arguments[0] if arguments else "."))
    print("| package | modules | lines | lines a module | lines a function | imports | comments | public documented |")
    print("|---|---|---|---|---|---|---|---|")
    print("| | | | median / p95 / longest | median / p95 / longest | of lines | per 100 lines | |")
    for name, measures in sorted(packages.items()):
        if measures.modules:
            print(measures.row(name))
    for name, parts in (("**code**", PARTS[:2]), ("**tests**", PARTS[2:])):
        total = Measures()
        for package, measures in packages.items():
            if package.startswith(parts):
                total.add(measures)
        print(total.row(name))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
