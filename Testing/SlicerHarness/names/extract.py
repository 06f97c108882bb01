"""Writes the lists of names beside this file, from checkouts of Slicer, CTK and PythonQt.

    python extract.py SLICER CTK PYTHONQT

SLICER and CTK are git repositories that hold the commits below; PYTHONQT is a checkout with its
`generated_cpp_*` folder. A line of a list reads `name (bases): members`; only names are kept.
"""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

OLDEST = "v5.10.0"  # every name of this release may be used
NEWER = "v5.12.3"  # what this release adds is listed apart
CTK_OF_OLDEST = "dd4caeae7e979cf441e44ee85d3b0780120d113d"  # from Slicer's SuperBuild/External_CTK.cmake
HERE = Path(__file__).parent

HEADERS = r"^(Libs|Base|Modules/(Loadable|Core))/(?!.*(Testing|DesignerPlugins|DeveloperDemos)).*/[vq][A-Za-z]\w*\.h$"
CTK_HEADERS = r"^Libs/(Core|Widgets|Visualization/VTK/Widgets|DICOM/(Core|Widgets))/ctk\w+\.h$"
DECORATORS = r"^(Base|Modules)/.*PythonQtDecorators\.h$"
SECTION = re.compile(r"^\s*(public|protected|private|signals|Q_SIGNALS)(?:\s+(slots|Q_SLOTS))?\s*:(?!:)")
PROPERTY = re.compile(r"Q_PROPERTY\(\s*[\w:<>,*\s]+?[\s*]+(\w+)\s+(?:READ|MEMBER|AUTHOR)")
FUNCTION = re.compile(r"(?:^|[\s*&>])(~?\w+)\s*\(")
MACRO = re.compile(r"Q[A-Z]*_[A-Z_]+$")
CLASS = re.compile(r"^\s*class\s+(?:\w+_EXPORT\s+)?(\w+)\s*(?:final\s*)?(?::\s*(.*))?$")


def main() -> None:
    slicer, ctk, pythonqt = (Path(a) for a in sys.argv[1:4])
    write("qt.txt", qt_classes(pythonqt), "PythonQt's generated wrappers of Qt 5.15 (MeVisLab/pythonqt)")
    write(
        "ctk.txt",
        classes(ctk, CTK_OF_OLDEST, CTK_HEADERS),
        f"CTK at {CTK_OF_OLDEST[:10]}, used by Slicer {OLDEST}",
    )
    oldest, newer = slicer_names(slicer, OLDEST), slicer_names(slicer, NEWER)
    write("slicer.txt", oldest, f"Slicer {OLDEST}: headers of its libraries, Base/Python/slicer, its modules")
    added = {
        name: (bases, members - oldest.get(name, ("", set()))[1]) for name, (bases, members) in newer.items()
    }
    added = {name: entry for name, entry in added.items() if entry[1] or name not in oldest}
    write("slicer_newer.txt", added, f"What Slicer {NEWER} has beyond {OLDEST}")


def write(name: str, entries: dict[str, tuple[str, set[str]]], source: str) -> None:
    lines = [f"# {source}. Written by extract.py: `name (bases): members`."]
    for key, (bases, members) in sorted(entries.items()):
        names = sorted(m for m in members if not MACRO.match(m))
        lines.append(f"{key}{f' ({bases})' if bases else ''}: {' '.join(names)}".rstrip())
    (HERE / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", repository, *arguments], capture_output=True, check=True)
    return done.stdout.decode("utf-8", "replace")


def files(repository: Path, commit: str, pattern: str) -> list[str]:
    return [
        f
        for f in git(repository, "ls-tree", "-r", "--name-only", commit).splitlines()
        if re.match(pattern, f)
    ]


def classes(repository: Path, commit: str, pattern: str) -> dict[str, tuple[str, set[str]]]:
    """The classes of the headers with what PythonQt shows of them: properties, signals, public slots, invokables."""
    found: dict[str, tuple[str, set[str]]] = {}
    for path in files(repository, commit, pattern):
        parse_header(git(repository, "show", f"{commit}:{path}"), found)
    return found


def parse_header(text: str, found: dict[str, tuple[str, set[str]]]) -> None:
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r"(?m)^(\s*class [^{;\n]*)\n\s*([:,][^{;]*)", r"\1 \2", text)
    text = re.sub(r"(Q_PROPERTY\([^)]*\))\s*", lambda m: re.sub(r"\s+", " ", m[1]) + "\n", text)
    members: set[str] | None = None
    exposed = False
    for line in re.sub(r",\s*\n\s*", ", ", text).splitlines():
        if declared := CLASS.match(line.split("{")[0].rstrip()):
            if ";" in line:
                continue
            bases = ", ".join(re.findall(r"public\s+(?:virtual\s+)?(\w+)", declared[2] or ""))
            members, exposed = found.setdefault(declared[1], (bases, set()))[1], False
            continue
        if members is None:
            continue
        if section := SECTION.match(line):
            exposed = section[1] in ("signals", "Q_SIGNALS") or (section[1] == "public" and bool(section[2]))
            continue
        if named := PROPERTY.search(line):
            members.add(named[1])
        elif re.match(r"\s*enum\b", line):
            members.update(re.findall(r"[{,]\s*(\w+)", line))
        elif enumerator := re.match(r"\s*([A-Z]\w+)\s*(?:=\s*[^,;()]+)?,?\s*$", line):
            members.add(enumerator[1])
        elif (exposed or "Q_INVOKABLE" in line) and (function := FUNCTION.search(line)):
            members.add(function[1])


def parse_decorators(text: str, found: dict[str, tuple[str, set[str]]]) -> None:
    """Methods that Slicer adds for Python: `name(Class* self, ...)` and `static_Class_name(...)`."""
    for static_class, static_name in re.findall(r"\bstatic_(\w+?)_(\w+)\(", text):
        found.setdefault(static_class, ("", set()))[1].add(static_name)
    for name, owner in re.findall(r"\b(\w+)\(\s*(q\w+)\s*\*\s*\w+", text):
        found.setdefault(owner, ("", set()))[1].add(name)


def qt_classes(pythonqt: Path) -> dict[str, tuple[str, set[str]]]:
    """The classes that PythonQt wraps, with their methods (statics too) and enumerators."""
    found: dict[str, tuple[str, set[str]]] = {}
    for header in sorted(pythonqt.glob("generated_cpp_515/*/*.h")):
        text = header.read_text(encoding="utf-8", errors="replace")
        for shell in re.finditer(r"class PythonQtShell_(\w+) : public (\w+)", text):
            found.setdefault(shell[1], ("", set()))
        for name, body in re.findall(
            r"class PythonQtWrapper_(\w+) : public QObject\n(.*?)\n};", text, flags=re.S
        ):
            members = found.setdefault(name, ("", set()))[1]
            for function in re.findall(r"^\s*[\w:<>,*&\s]+?[\s*&>](\w+)\(", body, flags=re.M):
                if not function.startswith(("py_q_", "new_", "delete_", "__")):
                    members.add(function.removeprefix(f"static_{name}_"))
            for enumeration in re.findall(r"enum (\w+)\s*{([^}]*)}", body):
                members.update([enumeration[0], *re.findall(r"(\w+)\s*=", enumeration[1])])
    return found


def slicer_names(repository: Path, commit: str) -> dict[str, tuple[str, set[str]]]:
    found = classes(repository, commit, HEADERS)
    for path in files(repository, commit, DECORATORS):
        parse_decorators(git(repository, "show", f"{commit}:{path}"), found)
    for path in files(repository, commit, r"^Base/Python/slicer/(\w+|parameterNodeWrapper/\w+)\.py$"):
        module = path.split("/")[3].removesuffix(".py")
        if module != "__init__":
            found.setdefault(module, ("", set()))[1].update(
                public_names(git(repository, "show", f"{commit}:{path}"))
            )
    found["modules"] = ("", module_names(repository, commit))
    return found


def public_names(source: str) -> set[str]:
    names: set[str] = set()
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef) and not statement.name.startswith("_"):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign):
            names.update(
                t.id for t in statement.targets if isinstance(t, ast.Name) and not t.id.startswith("_")
            )
    return names


def module_names(repository: Path, commit: str) -> set[str]:
    by_kind: dict[str, set[str]] = defaultdict(set)
    for path in git(repository, "ls-tree", "-r", "--name-only", commit, "Modules").splitlines():
        parts = path.split("/")
        if len(parts) > 3 and parts[1] in ("Loadable", "CLI", "Scripted"):
            by_kind[parts[1]].add(parts[2].lower())
    return by_kind["Loadable"] | by_kind["CLI"] | by_kind["Scripted"]


if __name__ == "__main__":
    main()
