"""The demo's journey, small; and the comparison with masks whose levels are not known."""

import json
import zipfile

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from CPS4Core.cancellation import Cancellation
from CPS4Core.demo import run
from CPS4Core.demo.real_sample import MEMBERS, compare, extract_sample
from CPS4Core.demo.run import run_demo
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Artifact, Finished, Warned
from CPS4Core.synthesis.phantom.volume import make_phantom


@pytest.fixture
def wheel(tmp_path):
    """A wheel that holds a scan and masks where the real one does."""
    phantom = make_phantom(5)
    files = {"image": phantom.image, "masks": phantom.labels}
    path = tmp_path / "sample.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../outside.txt", "never unpacked")
        for name, image in files.items():
            sitk.WriteImage(image, str(tmp_path / f"{name}.nii.gz"))
            archive.write(tmp_path / f"{name}.nii.gz", MEMBERS[name])
    return path


def test_the_journey_ends_in_one_page(tiny_settings, text_model, wheel, trained_model, monkeypatch, tmp_path):
    monkeypatch.setattr(run, "base_model", lambda: trained_model)
    scan, broken = tmp_path / "Aufnahme äöü.nii.gz", tmp_path / "broken.nii.gz"
    sitk.WriteImage(make_phantom(6).image, str(scan))
    broken.write_bytes(b"no scan")
    values = tiny_settings.model_dump(mode="json")
    changes = tuple(
        f"{group}.{name}={json.dumps(value)}"
        for group in ("input", "encoders", "pretrain", "train")
        for name, value in values[group].items()
        if name != "method"
    )
    events = []
    page = run_demo(
        tmp_path / "demo",
        wheel,
        [broken, scan],
        torch.device("cpu"),
        events.append,
        Cancellation(),
        changes,
        patients=8,
    )
    text = page.read_text(encoding="utf-8")
    assert "phantoms, not patients" in text
    assert "Real scans, at once" in text
    assert scan.name.removesuffix(".nii.gz") in text
    assert (tmp_path / "demo/at-once" / f"03_{scan.name}").is_file()
    assert any(isinstance(event, Warned) and "broken.nii.gz is left out" in event.message for event in events)
    assert "A real spine MR" in text
    assert "CPS4 base" in text
    assert text.count("data:image/png;base64,") >= 8
    assert 'src="http' not in text
    assert [type(event) for event in events].count(Finished) == 1
    assert any(isinstance(event, Artifact) and event.role == "report" for event in events)
    assert not (tmp_path / "outside.txt").exists()


def test_a_file_without_the_sample_is_refused(tmp_path):
    (tmp_path / "a.whl").write_bytes(b"no archive")
    with pytest.raises(CPS4Error, match="sample scan"):
        extract_sample(tmp_path / "a.whl", tmp_path)


def test_masks_without_levels_are_compared_by_kind_and_order():
    masks = np.repeat(np.array([5, 105, 6, 106, 7, 205], np.uint8), 10)
    labels = np.repeat(np.array([5, 14, 4, 13, 3, 9], np.uint8), 10)
    right = compare(labels, masks)
    assert right["vertebrae, Dice"] == right["discs, Dice"] == 1
    assert right["vertebrae named"] == "L2, L3, L4"
    assert right["names in order"] == "yes"
    wrong = compare(np.where(labels == 4, 9, labels), masks)
    assert wrong["vertebrae named"] == "L2, T10, L4"
    assert wrong["names in order"] == "no"
