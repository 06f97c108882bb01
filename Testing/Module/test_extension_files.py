"""What Slicer's build, its catalogue and its module loader read, checked without Slicer."""

import ast
import json
import re
import struct
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "CPS4Segmentation"
PANELS = sorted((MODULE / "Resources" / "UI").glob("*.ui"))
SOURCES = sorted((MODULE / "CPS4SegmentationLib").glob("*.py"))


def png_size(path):
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    return struct.unpack(">II", head[16:24])


def tuple_in(path, name):
    """The value of a tuple of constants in a module that cannot be imported without Slicer."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{path.name} has no {name}")


def test_cmake_installs_every_file_of_the_module():
    text = (MODULE / "CMakeLists.txt").read_text(encoding="utf-8").replace("${MODULE_NAME}", MODULE.name)
    assert f"{MODULE.name}Lib/*.py" in text
    listed = set(re.findall(r"^  (Resources/\S+)", text, re.MULTILINE))
    there = {
        path.relative_to(MODULE).as_posix() for path in (MODULE / "Resources").rglob("*") if path.is_file()
    }
    assert listed == there
    assert "slicer_add_python_unittest" in text


def test_cmake_installs_every_file_of_the_engine():
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert "foreach(_folder CPS4Core Resources)" in text
    suffixes = set(re.findall(r"\$\{_folder\}/\*(\.\w+)", text))
    needed = [
        path for path in (ROOT / "CPS4Core").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    assert {path.suffix for path in needed} <= suffixes
    assert {".json", ".ctbl"} <= suffixes  # the class table in Resources


def test_the_catalogue_entry_has_what_the_schema_asks_for():
    """Keys of the extension description schema, version 1.0.1."""
    entry = json.loads((ROOT / "CPS4.json").read_text(encoding="utf-8"))
    assert {"$schema", "category", "scm_url"} <= entry.keys()
    allowed = {
        "$schema",
        "category",
        "scm_url",
        "scm_revision",
        "scm_type",
        "build_dependencies",
        "build_subdirectory",
        "enabled",
        "tier",
    }
    assert entry.keys() <= allowed
    assert entry.get("tier", 1) in (1, 3, 5)
    assert entry["scm_url"].endswith(".git")


def test_the_index_finds_the_licence():
    """The names for which ``scripts/check_description_files.py`` of Slicer/ExtensionsIndex looks in the root."""
    known = {"LICENSE", "LICENCE", "License.txt", "license.txt", "LICENSE.txt", "COPYING", "COPYING.txt"}
    (licence,) = {path.name for path in ROOT.iterdir() if path.is_file()} & known
    assert "Apache License" in (ROOT / licence).read_text(encoding="utf-8")


def test_a_clone_is_as_small_as_the_index_wants_it():
    """The same script refuses more than 100 MB, history and checkout together."""

    def git(*words):
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    if not (ROOT / ".git").exists() or git("rev-parse", "--is-shallow-repository").strip() == "true":
        pytest.skip("needs a checkout with its whole history")
    history = int(git("rev-list", "--disk-usage", "--objects", "HEAD"))
    files = sum((ROOT / name).stat().st_size for name in git("ls-files", "-z").split("\0") if name)
    assert (history + files) / 2**20 < 100


def test_the_description_file_agrees_with_cmake():
    lines = (ROOT / "CPS4.s4ext").read_text(encoding="utf-8").splitlines()
    described = dict(
        line.split(maxsplit=1) for line in lines if line and not line.startswith("#") and " " in line
    )
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    for key, name in (("homepage", "HOMEPAGE"), ("category", "CATEGORY"), ("description", "DESCRIPTION")):
        value = re.search(rf'EXTENSION_{name} "([^"]*)"', cmake)[1]
        assert described[key] == value
    assert described["scm"] == "git"


def test_icons_have_the_right_size():
    assert png_size(ROOT / "CPS4.png") == (128, 128)
    for path in (MODULE / "Resources" / "Icons").glob("*.png"):
        width, height = png_size(path)
        assert width == height >= 64


def test_the_requirements_are_those_of_the_engine():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = (MODULE / "Resources" / "requirements.txt").read_text(encoding="utf-8").split("\n")
    assert sorted(line for line in listed if line) == sorted(project["project"]["dependencies"])


def test_versions_are_equal():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    from CPS4Core import __version__

    assert project["project"].get("version", __version__) == __version__


def test_the_boxes_of_the_train_panel_are_what_the_engine_takes():
    """Compared in a process of its own: Slicer's never imports the engine's heavy parts."""
    script = (
        "import json; from CPS4Core.config import PRESETS; from CPS4Core.data.label_schemes import SCHEMES;"
        "print(json.dumps([sorted(PRESETS), sorted(SCHEMES)]))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    presets, schemes = json.loads(answer.stdout.splitlines()[-1])
    panel = MODULE / "CPS4SegmentationLib" / "train_panel.py"
    assert sorted(tuple_in(panel, "PRESETS")) == presets
    assert set(tuple_in(panel, "SCHEMES")) == {*schemes, "folder", "dicom"}


@pytest.mark.parametrize("path", PANELS, ids=lambda path: path.stem)
def test_every_control_has_a_tool_tip_and_the_keyboard_reaches_it(path):
    controls = (
        "QPushButton",
        "QLineEdit",
        "QComboBox",
        "QCheckBox",
        "QTableWidget",
        "ctkSliderWidget",
        "ctkPathLineEdit",
        "qMRMLNodeComboBox",
    )
    found = [
        element for element in ElementTree.parse(path).iter("widget") if element.get("class") in controls
    ]
    assert found
    for widget in found:
        properties = {element.get("name"): element for element in widget.iter("property")}
        assert "toolTip" in properties, f"{widget.get('name')} has no tool tip"
        focus = properties.get("focusPolicy")
        assert focus is None or "NoFocus" not in "".join(focus.itertext()), widget.get("name")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_what_the_user_reads_can_be_translated(path):
    """Texts set on widgets, and those of errors, go through _()."""
    tree = ast.parse(path.read_text(encoding="utf-8"))

    def is_text(node):
        text = (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.search("[A-Za-z]{3} ", node.value)
        )
        return bool(text) or (
            isinstance(node, ast.JoinedStr) and any(is_text(value) for value in node.values)
        )

    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            assert not (node.targets[0].attr == "text" and is_text(node.value)), ast.unparse(node)
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("say", "CPS4Error"):
            assert not any(is_text(argument) for argument in node.args), ast.unparse(node)


def test_every_name_of_slicer_and_qt_that_the_module_uses_exists_there():
    from SlicerHarness.check_names import check_names

    problems = check_names(MODULE, newer_allowed=frozenset({"packaging"}))
    problems += check_names(ROOT / "Testing" / "Slicer")
    assert not problems, "\n".join(map(str, problems))


def test_an_older_slicer_is_told_what_it_needs(monkeypatch):
    from importlib.util import module_from_spec, spec_from_file_location

    monkeypatch.setattr(sys, "version_info", (3, 9, 10))
    spec = spec_from_file_location("old_slicer", MODULE / "CPS4SegmentationLib" / "__init__.py")
    with pytest.raises(ImportError, match=r"needs Slicer 5\.10 or later"):
        spec.loader.exec_module(module_from_spec(spec))
