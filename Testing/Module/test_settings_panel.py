"""The panel Settings: installation with consent, a Python of the user's own, the log."""

import importlib.metadata
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from module_under_test import in_both_versions

EXTENSIONS = Path(__file__).parents[1] / "SlicerHarness" / "extensions"


@pytest.fixture
def without(module, monkeypatch):
    """`without("timm", ...)`: Slicer's own Python computes, and lacks these packages until they are installed."""
    import qt

    packaging = module.harness.packaging
    qt.QSettings().setValue("CPS4/EnginePython", "")
    packaging.requested.clear()
    lacking: set[str] = set()
    real = importlib.metadata.version

    def version(name):
        if name in lacking:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    def install(requirements):
        lacking.difference_update(re.split("[<>=!~ ]", requirement)[0] for requirement in requirements)

    monkeypatch.setattr(importlib.metadata, "version", version)

    def lack(names):
        lacking.update(names)
        for name in names:  # what is not installed is not loaded either, whatever ran before in this process
            monkeypatch.delitem(sys.modules, name, raising=False)

    monkeypatch.setattr(packaging, "on_install", install)
    return lack


def test_what_is_missing_is_named_with_sizes_and_installed_with_consent(module, without):
    packaging = module.harness.packaging
    without(["torch", "timm"])
    panel = module.panel("settings")
    panel.refresh()
    assert panel.ui.installButton.enabled
    module.harness.dialogs.answer("Ok")
    panel.ui.installButton.click()
    (question,) = module.harness.dialogs.messages
    assert "torch (2500 MB)" in question.text
    assert "timm (3 MB)" in question.text
    assert "2.5 GB" in question.text
    assert [re.split("[<>=]", requirement)[0] for requirement in packaging.requested] == ["torch", "timm"]
    assert not panel.ui.installButton.enabled
    module.wait(lambda: "Computes on" in panel.ui.engineLabel.text)


@in_both_versions
def test_slicers_own_packages_are_pinned(module, without):
    without(["timm"])
    module.harness.dialogs.answer("Ok")
    module.panel("settings").ui.installButton.click()
    assert [re.split("[<>=]", name)[0] for name in module.harness.packaging.requested] == ["timm"]
    assert not module.harness.dialogs.errors
    pins = module.harness.packaging.constrained.split()
    assert f"numpy=={importlib.metadata.version('numpy')}" in pins
    assert f"SimpleITK=={importlib.metadata.version('SimpleITK')}" in pins


@pytest.mark.parametrize(
    ("installed", "met"), [("1.9.16", False), ("1.10", True), ("1.10rc1", False), ("1.11.0a0+cu128", True)]
)
def test_versions_are_compared_as_pip_does(module, monkeypatch, tmp_path, installed, met):
    from CPS4SegmentationLib import installation

    (tmp_path / "requirements.txt").write_text("timm>=1.10\n")
    monkeypatch.setattr(installation, "REQUIREMENTS", tmp_path / "requirements.txt")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: installed)
    assert [str(needed) for needed in installation.missing_packages()] == ([] if met else ["timm>=1.10"])


def test_nothing_is_installed_without_consent(module, without):
    packaging = module.harness.packaging
    without(["timm"])
    module.choose_model()
    module.load()
    module.harness.dialogs.answer("Cancel")
    module.panel("segment").ui.segmentButton.click()
    assert not packaging.requested
    assert "cannot compute without its packages" in module.harness.dialogs.errors[0].text
    assert not module.slicer.util.getNodesByClass("vtkMRMLSegmentationNode")


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (subprocess.CalledProcessError, (1, "pip install")),
        (ImportError, ("libcudart.so.12: no such file",)),
        (RuntimeError, ("no route to host",)),
    ],
)
@pytest.mark.parametrize("missing", ["torch", "timm"])
def test_an_installation_that_fails_says_what_to_do(module, without, monkeypatch, kind, arguments, missing):
    packaging = module.harness.packaging

    def fail(requirements):
        raise kind(*arguments)

    monkeypatch.syspath_prepend(EXTENSIONS)
    without([missing])
    monkeypatch.setattr(packaging, "on_install", fail)
    module.harness.dialogs.answer("Ok")
    module.panel("settings").ui.installButton.click()
    (message,) = module.harness.dialogs.errors
    assert f"{missing} could not be installed" in message.text
    assert "Python console" in message.text
    assert "Python of your own" in message.text
    assert "Traceback" not in message.text
    assert any(kind.__name__ in line for line in module.widget.logic.lines)


def test_macos_on_intel_is_told_before_anything_is_downloaded(module, without, monkeypatch):
    packaging = module.harness.packaging
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    without(["torch", "timm"])
    module.panel("settings").ui.installButton.click()
    assert not packaging.requested
    (message,) = module.harness.dialogs.messages  # no question was asked
    assert "torch 2.2" in message.text
    assert "Own Python" in message.text
    without([])


@pytest.mark.parametrize(
    ("system", "machine", "installed", "refused"),
    [
        ("darwin", "x86_64", "", True),
        ("darwin", "x86_64", "2.2.2", True),
        ("darwin", "x86_64", "2.7.0", False),
        ("darwin", "arm64", "", False),
        ("linux", "x86_64", "", False),
        ("win32", "AMD64", "", False),
    ],
)
def test_where_torch_cannot_be_installed(module, without, monkeypatch, system, machine, installed, refused):
    from CPS4SegmentationLib import installation

    if installed:
        real = importlib.metadata.version
        monkeypatch.setattr(
            importlib.metadata, "version", lambda name: installed if name == "torch" else real(name)
        )
    else:
        without(["torch"])
    missing = installation.missing_packages()
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert installation.lacks_torch_for_good(missing) is refused


def test_the_extension_pytorch_replaces_a_torch_that_is_too_old(module, monkeypatch):
    import qt

    packaging = module.harness.packaging
    qt.QSettings().setValue("CPS4/EnginePython", "")
    versions = {"torch": "1.13.1", "torchvision": "0.14.1"}
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: versions.get(name) or real(name))
    monkeypatch.setattr(
        packaging, "on_install", lambda names: versions.update(torch="2.9", torchvision="0.24")
    )
    monkeypatch.setitem(sys.modules, "torchvision", object())  # another extension has loaded the old one
    monkeypatch.syspath_prepend(EXTENSIONS)
    module.harness.dialogs.answer("Ok")
    module.panel("settings").ui.installButton.click()
    assert packaging.requested == ["torch>=2.6", "torchvision>=0.21"]
    assert not module.harness.dialogs.errors
    assert "Restart Slicer" in module.harness.dialogs.messages[-1].text
    assert "torchvision" in module.harness.dialogs.messages[-1].text
    module.widget.settings.close()


def test_what_stays_missing_is_said_with_the_advice_to_restart(module, without, monkeypatch):
    packaging = module.harness.packaging
    without(["timm"])
    monkeypatch.setattr(packaging, "on_install", lambda names: None)
    module.harness.dialogs.answer("Ok")
    module.panel("settings").ui.installButton.click()
    (message,) = module.harness.dialogs.errors
    assert "timm" in message.text
    assert "Restart Slicer" in message.text


def test_a_second_press_starts_no_second_installation(module, without, monkeypatch):
    """Events go through while pip runs."""
    packaging = module.harness.packaging
    without(["timm"])
    module.choose_model()
    module.load()
    install, runs = packaging.on_install, []

    def slow(requirements):
        runs.append(requirements)
        module.widget.segment.ui.segmentButton.click()
        module.widget.settings.ui.installButton.click()
        install(requirements)

    monkeypatch.setattr(packaging, "on_install", slow)
    module.harness.dialogs.answer("Ok")
    module.panel("settings").ui.installButton.click()
    assert len(runs) == 1
    assert [message.text for message in module.harness.dialogs.errors] == 2 * [
        "The packages are being installed. Wait until that is done, then press the button again."
    ]
    module.wait(lambda: "Computes on" in module.widget.settings.ui.engineLabel.text)
    assert module.segment()  # once it is done, one works on


def test_packages_are_looked_up_once(module, without, monkeypatch):
    without(["timm"])
    module.load()
    attention, looked_up, version = module.panel("attention"), [], importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: (looked_up.append(name), version(name))[1]
    )
    for value in (0.2, 0.4, 0.6):
        module.widget.segment.parameters.threshold = value
        attention.changed()
    assert len(looked_up) == len(set(looked_up))
    panel = module.panel("settings")
    assert panel.ui.installButton.enabled
    module.harness.dialogs.answer("Ok")
    panel.ui.installButton.click()
    assert not panel.ui.installButton.enabled
    panel.close()


def test_choosing_a_data_set_asks_nothing(module, without):
    """The field speaks at each key, and the first one, `/`, is a folder already."""
    without(["timm"])
    folder = str(module.trained / "data")
    panel = module.panel("train")
    for length in range(1, len(folder) + 1):
        panel.ui.dataEdit.currentPath = folder[:length]
    assert not module.harness.dialogs.messages
    assert "Settings" in panel.ui.dataLabel.text


def test_a_python_of_the_users_own_is_checked(module, tmp_path):
    panel = module.panel("settings")
    panel.ui.pythonEdit.currentPath = str(tmp_path / "no such python")
    assert "no such program" in panel.ui.engineLabel.text
    panel.ui.pythonEdit.currentPath = sys.executable
    panel.ui.checkButton.click()
    module.wait(lambda: "Ready" in panel.ui.engineLabel.text)
    assert "Processor" in panel.ui.engineLabel.text or "cpu" in panel.ui.engineLabel.text.lower()


def test_an_emptied_field_takes_slicers_own_python_again(module):
    import qt

    panel = module.panel("settings")
    assert panel.ui.pythonEdit.currentPath == module.python
    panel.ui.pythonEdit.currentPath = ""
    assert not qt.QSettings().value("CPS4/EnginePython", "")
    module.wait(lambda: "Looking" not in panel.ui.engineLabel.text)


def test_a_python_without_the_engine_is_told(module, tmp_path):
    import venv

    venv.create(tmp_path / "bare", symlinks=sys.platform != "win32")
    python = tmp_path / "bare" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    panel = module.panel("settings")
    panel.ui.pythonEdit.currentPath = str(python)
    module.wait(lambda: "Looking" not in panel.ui.engineLabel.text)
    assert "does not run with this Python" in panel.ui.engineLabel.text
    assert "Traceback" not in panel.ui.engineLabel.text
    assert any("No module named" in line for line in module.widget.logic.lines)


def test_the_log_is_shown_and_copied(module):
    import qt

    panel = module.panel("settings")
    module.widget.logic.log("a line for the log")
    assert "a line for the log" in panel.ui.logEdit.plainText
    panel.ui.copyButton.click()
    assert "a line for the log" in qt.QApplication.clipboard().text()
