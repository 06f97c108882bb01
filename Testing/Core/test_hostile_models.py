"""Model folders that are damaged, foreign or hostile are refused with one clear error, and nothing in them runs."""

import hashlib
import json
import pickle
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from small_models import MODELS

from CPS4Core import size_limit
from CPS4Core.card import ENCODERS, NETWORK
from CPS4Core.config import load_settings
from CPS4Core.errors import CPS4Error
from CPS4Core.model_folder import ModelFolder
from CPS4Core.segmentation.unet import ResidualUNet
from CPS4Core.size_limit import SizeLimit
from CPS4Core.vision_language.model import build_model
from CPS4Core.weights import load_weights, save_weights


@pytest.fixture
def copy(trained_model, tmp_path):
    return shutil.copytree(trained_model, tmp_path / "model")


def change(folder, **fields):
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, **fields}))


def weights(folder, part=NETWORK):
    return folder / json.loads((folder / "card.json").read_text())["weights"][part]["file"]


class Attack:
    """Writes a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


def test_another_class_count_and_version(copy):
    change(copy, classes={"background": 0, "L5": 1})
    with pytest.raises(CPS4Error, match="2 classes"):
        ModelFolder.open(copy).load_network()
    change(copy, format=99)
    with pytest.raises(CPS4Error, match="newer version"):
        ModelFolder.open(copy).load_network()


def test_truncated_weights(copy):
    path = weights(copy)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CPS4Error) as caught:
        ModelFolder.open(copy).load_network()
    assert caught.value.path == path or path.name in str(caught.value)


@pytest.mark.parametrize("part", [NETWORK, ENCODERS])
def test_a_pickle_in_disguise_is_not_opened(copy, part, tmp_path):
    target = tmp_path / "attacked"
    weights(copy, part).write_bytes(pickle.dumps(Attack(target)))
    with pytest.raises(CPS4Error):
        ModelFolder.open(copy).load_network() if part == NETWORK else ModelFolder.open(copy).load_encoders()
    assert not target.exists()


def test_weights_outside_the_folder_are_not_read(copy, trained_model):
    outside = copy.parent / "outside.safetensors"
    shutil.copy(weights(trained_model), outside)
    card = json.loads((copy / "card.json").read_text())
    for name in ("../outside.safetensors", str(outside)):
        card["weights"][NETWORK]["file"] = name
        change(copy, weights=card["weights"])
        with pytest.raises(CPS4Error):
            ModelFolder.open(copy).load_network()


@pytest.mark.parametrize("text", ["[]", "{", "null", '{"format": 1}', ""])
def test_a_card_that_is_none(copy, text):
    (copy / "card.json").write_text(text)
    with pytest.raises(CPS4Error):
        ModelFolder.open(copy).load_network()


@pytest.mark.parametrize("fields", [{"weights": []}, {"weights": {"network": {}}}, {"settings": None}])
def test_a_card_that_lacks_parts(copy, fields):
    change(copy, **fields)
    with pytest.raises(CPS4Error, match="card lacks"):
        ModelFolder.open(copy).load_network()


def test_a_text_encoder_that_brings_code_is_not_run(copy, tmp_path):
    target = tmp_path / "attacked"
    (copy / "text" / "evil.py").write_text(f"open({str(target)!r}, 'w')")
    config = json.loads((copy / "text" / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}
    config["model_type"] = "evil"
    (copy / "text" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CPS4Error):
        ModelFolder.open(copy).load_encoders()
    assert not target.exists()


def test_the_command_line_names_the_model_and_shows_no_trace(copy, data_set, tmp_path):
    change(copy, format=99)
    scan = data_set / "imagesTs/test_0001_0000.nii.gz"
    done = subprocess.run(
        [sys.executable, "-m", "CPS4Core.cli", "segment", scan, tmp_path / "out", "--model", copy],
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 1
    assert "newer version" in done.stderr
    assert "Traceback" not in done.stderr


def safetensors(header: dict | bytes, claimed: int | None = None, data: bytes = b"") -> bytes:
    """Return a safetensors file whose header may lie."""
    said = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(said) if claimed is None else claimed) + said + data


HUGE = {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4 * 10**18]}
OVERFLOWING = {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 0]}
LYING = {"dtype": "F32", "shape": [2**31], "data_offsets": [0, 4]}
HOSTILE_WEIGHTS = {
    "a header longer than the file": safetensors({}, claimed=2**40),
    "a header of all memory": safetensors({}, claimed=2**64 - 1),
    "a header that is no JSON": safetensors(b"\xff" * 64),
    "a deep header": safetensors(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "a tensor of all memory": safetensors({"w": HUGE}),
    "a shape that overflows": safetensors({"w": OVERFLOWING}),
    "a shape that is not that of its bytes": safetensors({"w": LYING}, data=b"\0" * 4),
    "no bytes": b"",
}


@pytest.fixture
def ready(tmp_path):
    """A copy of the tiny model that ships with the tests."""
    return shutil.copytree(MODELS / "format-2", tmp_path / "model")


def put_weights(folder, data, part=NETWORK):
    """Replace the weights of a part, and their hash in the card."""
    weights(folder, part).write_bytes(data)
    card = json.loads((folder / "card.json").read_text())
    card["weights"][part]["sha256"] = hashlib.sha256(data).hexdigest()
    change(folder, weights=card["weights"])


@pytest.fixture
def little_memory():
    """Let this process take 1 GiB more than it has, so that whoever takes more fails."""
    resource = pytest.importorskip("resource")
    if not sys.platform.startswith("linux"):
        pytest.skip("limits of Linux")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", HOSTILE_WEIGHTS)
def test_weights_that_lie_of_their_size_are_refused(ready, name, little_memory):
    put_weights(ready, HOSTILE_WEIGHTS[name])
    with pytest.raises(CPS4Error, match=r"safetensors|do not fit"):
        ModelFolder.open(ready).load_network()


def test_weights_as_large_as_a_disk_are_refused_before_they_are_read(ready, little_memory):
    size = 2**40
    header = safetensors({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}})
    path = weights(ready)
    with path.open("wb") as file:
        file.write(header)
        try:
            file.truncate(len(header) + size)  # a hole: it takes no place
        except OSError:
            pytest.skip("no holes here")
    with pytest.raises(CPS4Error, match="do not fit"):
        ModelFolder.open(ready).load_network()


@pytest.mark.parametrize(
    "fields",
    [
        {"network": {"widths": [8000, 8000, 8000]}},
        {"network": {"widths": [10**9]}},
        {"network": {"widths": []}},
        {"network": {"widths": [4] * 100}},
        {"input": {"size": [10**9, 10**9], "spacing_mm": 1.0}},
        {"input": {"size": [32, 64], "spacing_mm": 1e-9}},
    ],
)
def test_a_card_that_describes_a_huge_network_is_refused_before_memory_is_taken(ready, fields, little_memory):
    change(ready, **fields)
    with pytest.raises(CPS4Error, match=r"too large|does not know"):
        folder = ModelFolder.open(ready)
        folder.load_network()
        folder.input  # noqa: B018


@pytest.mark.parametrize(
    "options",
    [{"embed_dim": 100_000, "num_heads": 2}, {"depth": 10**7}, {"patch_size": 8, "mlp_ratio": 10**9}],
)
def test_encoders_that_would_be_huge_are_refused_before_memory_is_taken(ready, options, little_memory):
    card = json.loads((ready / "card.json").read_text())
    card["encoders"]["vision_options"] |= options
    change(ready, encoders=card["encoders"])
    with pytest.raises(CPS4Error, match="too large"):
        ModelFolder.open(ready).load_encoders()


@pytest.mark.parametrize("field", ["hidden_size", "intermediate_size", "vocab_size", "num_hidden_layers"])
def test_a_text_encoder_that_would_be_huge_is_refused_before_memory_is_taken(ready, field, little_memory):
    path = ready / "text/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: 10**8}))
    with pytest.raises(CPS4Error, match="too large"):
        ModelFolder.open(ready).load_encoders()


def test_settings_that_describe_a_huge_network_are_refused_before_memory_is_taken(little_memory, monkeypatch):
    settings = load_settings("small", ['encoders.vision_options={"depth": 100000}'])
    monkeypatch.setattr(size_limit, "MOST_WEIGHTS", 10**6)
    with pytest.raises(CPS4Error, match="too large"):
        build_model(settings.encoders, settings.input.size)
    with pytest.raises(CPS4Error, match="2048"):
        load_settings("small", ["train.widths=[8,16,100000]"])
    with pytest.raises(CPS4Error, match="too large"), SizeLimit():
        ResidualUNet([2048, 2048])


def test_a_model_that_diverged_is_refused(ready):
    tensors, _ = load_weights(weights(ready))
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    save_weights(weights(ready), tensors)
    put_weights(ready, weights(ready).read_bytes())
    with pytest.raises(CPS4Error, match="no numbers"):
        ModelFolder.open(ready).load_network()


def test_a_card_that_is_nested_beyond_measure_is_refused(ready):
    (ready / "card.json").write_text("[" * 100_000)
    with pytest.raises(CPS4Error, match="not valid JSON"):
        ModelFolder.open(ready)
