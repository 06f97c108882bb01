"""Checks, without running it, that a module's Slicer, Qt and CTK names exist in real Slicer.

What it sees: `slicer.X`, `slicer.util.X`, `slicer.app.X`, `slicer.modules.x`, `qt.X.Y`, `ctk.X.Y` and imports from
these; connections by signature; keywords in calls of Qt classes, which PythonQt ignores. It can't see attributes
of objects (`widget.text`): those are what the tests that run the module are for.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .names_lists import members, names_of

APPLICATION = "qSlicerApplication"
PYTHON_MODULES = (
    "util",
    "i18n",
    "ScriptedLoadableModule",
    "parameterNodeWrapper",
    "packaging",
    "testing",
    "cli",
)
PARAMETER_NODE_FILES = (
    "default",
    "guiConnectors",
    "parameterPack",
    "serializers",
    "types",
    "validators",
    "wrapper",
)
SLICER_OWN = {*PYTHON_MODULES, "app", "mrmlScene", "modules", "moduleNames", "selfTests"}


@dataclass(frozen=True)
class Finding:
    path: Path
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.problem}"


def check_names(folder: Path | str, newer_allowed: frozenset[str] = frozenset()) -> list[Finding]:
    """All names under the folder's Python files that Slicer 5.10 lacks.

    `newer_allowed` names what the module only uses after asking whether it is there, as "packaging.pip_ensure".
    """
    folder = Path(folder)
    files = [folder] if folder.is_file() else sorted(folder.rglob("*.py"))
    return [finding for path in files for finding in _Checker(path, newer_allowed).findings()]


class _Checker:
    def __init__(self, path: Path, newer_allowed: frozenset[str]):
        self.path, self.newer_allowed = path, newer_allowed
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.own_modules = {p.stem.lower() for p in path.parents[0].glob("*.py")}
        self.names = dict(self._imported())

    def _imported(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """What each imported name stands for: `from slicer.util import getNode` gives (slicer, util, getNode)."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] in ("slicer", "qt", "ctk"):
                        parts = tuple(alias.name.split("."))
                        yield (alias.asname, parts) if alias.asname else (parts[0], parts[:1])
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in (
                "slicer",
                "qt",
                "ctk",
            ):
                for alias in node.names:
                    if alias.name != "*":
                        yield alias.asname or alias.name, (*node.module.split("."), alias.name)

    def findings(self) -> Iterator[Finding]:
        inner = {id(n.value) for n in ast.walk(self.tree) if isinstance(n, ast.Attribute)}
        for node in ast.walk(self.tree):
            problem = ""
            if isinstance(node, ast.Attribute) and id(node) not in inner:
                problem = self._problem(self._chain(node))
            elif isinstance(node, ast.ImportFrom | ast.Import):
                problem = self._problem_of_import(node)
            if problem:
                yield Finding(self.path, node.lineno, problem)
            if isinstance(node, ast.Call) and (problem := self._problem_of_call(node)):
                yield Finding(self.path, node.lineno, problem)

    def _chain(self, node: ast.expr) -> tuple[str, ...]:
        """`slicer.util.getNode` as its parts; empty for what doesn't begin with an imported name."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.insert(0, node.attr)
            node = node.value
        known = isinstance(node, ast.Name) and self.names.get(node.id)
        return (*known, *parts) if known else ()

    def _problem_of_import(self, node: ast.Import | ast.ImportFrom) -> str:
        if isinstance(node, ast.Import):
            chains = [
                tuple(a.name.split("."))
                for a in node.names
                if a.name.split(".")[0] in ("slicer", "qt", "ctk")
            ]
        elif (node.module or "").split(".")[0] in ("slicer", "qt", "ctk"):
            chains = [(*node.module.split("."), *([] if a.name == "*" else [a.name])) for a in node.names]
        else:
            chains = []
        return next((problem for chain in chains if (problem := self._problem(chain))), "")

    def _problem_of_call(self, node: ast.Call) -> str:
        chain = self._chain(node.func) if isinstance(node.func, ast.Attribute | ast.Name) else ()
        if chain[:1] in (("qt",), ("ctk",)) and node.keywords:
            return f"{'.'.join(chain)} is called with keywords, which PythonQt ignores"
        if isinstance(node.func, ast.Attribute) and node.func.attr == "connect":
            signature = node.args[0] if node.args else None
            is_text = isinstance(signature, ast.Constant) and isinstance(signature.value, str)
            if is_text and "(" not in signature.value:
                return f"connect('{signature.value}', ...) lacks the signal's parentheses"
            if not is_text and (len(node.args) != 1 or node.keywords):
                return "signal.connect takes one callable in PythonQt"
        return ""

    def _problem(self, chain: tuple[str, ...]) -> str:
        match chain:
            case ("slicer", name, *rest):
                return self._problem_of_slicer(name, rest)
            case (("qt" | "ctk") as package, name, *rest):
                return self._problem_of_class(package, name, rest)
        return ""

    def _problem_of_slicer(self, name: str, rest: list[str]) -> str:
        if name == "app":
            return (
                ""
                if not rest or rest[0] in members(APPLICATION) | qt_application()
                else f"no slicer.app.{rest[0]}"
            )
        if name == "modules":
            return self._problem_of_module(rest[0]) if rest else ""
        if name in PYTHON_MODULES:
            return self._problem_of_python_module(name, rest)
        if name in SLICER_OWN:
            return ""
        return self._problem_of_class("slicer", name, rest)

    def _problem_of_module(self, name: str) -> str:
        own = name.removesuffix("Widget").removesuffix("Instance").lower()
        known = names_of("slicer")["modules"] | self.own_modules
        return "" if own in known or name.lower() in known else f"Slicer has no module slicer.modules.{name}"

    def _problem_of_python_module(self, name: str, rest: list[str]) -> str:
        lists = (names_of("slicer"), names_of("slicer_newer"))
        files = (name, *PARAMETER_NODE_FILES) if name == "parameterNodeWrapper" else (name,)
        oldest, newer = (set().union(*[known.get(file, set()) for file in files]) for known in lists)
        if name not in lists[0] and name in lists[1] and not self._is_allowed(name, rest):
            return f"slicer.{name} needs Slicer 5.12"
        if not rest or rest[0] in oldest or (rest[0] in newer and self._is_allowed(name, rest)):
            return ""
        return (
            f"slicer.{name}.{rest[0]} needs Slicer 5.12"
            if rest[0] in newer
            else f"there is no slicer.{name}.{rest[0]}"
        )

    def _is_allowed(self, name: str, rest: list[str]) -> bool:
        return name in self.newer_allowed or ".".join([name, *rest[:1]]) in self.newer_allowed

    def _problem_of_class(self, package: str, name: str, rest: list[str]) -> str:
        known = names_of(package)
        if name not in known or (package == "slicer" and not name.startswith(("vtk", "q"))):
            return f"there is no {package}.{name}"
        if package == "qt" and rest and rest[0] not in members(name):
            return f"there is no qt.{name}.{rest[0]}"
        if package == "qt" and len(rest) > 1 and rest[0][0].isupper():
            return f"qt.{name}.{'.'.join(rest)}: PythonQt has enumerators in their class: qt.{name}.{rest[1]}"
        return ""


def qt_application() -> set[str]:
    """What `slicer.app` has of Qt's application object."""
    classes = ("QApplication", "QGuiApplication", "QCoreApplication", "QObject")
    properties = {"applicationName", "applicationVersion", "organizationName", "styleSheet", "aboutToQuit"}
    return properties.union({"connect", "disconnect"}, *[members(name) for name in classes])
