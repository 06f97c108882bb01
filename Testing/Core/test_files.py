"""Files are never half written."""

import errno

import pytest

from CPS4Core.errors import CPS4Error
from CPS4Core.files import read_json, write_json, written_aside


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "räpport 1.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), written_aside(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_said_in_words_and_nothing_is_lost(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"kept": True})
    with pytest.raises(CPS4Error, match="disk is full") as caught, written_aside(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.path == path
    assert read_json(path) == {"kept": True}


def test_a_read_only_folder_is_said_in_words(tmp_path, monkeypatch):
    def refuse(**options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(CPS4Error, match="another output folder"):
        write_json(tmp_path / "result.json", 1)


def test_an_output_folder_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CPS4Error):
        write_json(tmp_path / "file" / "result.json", 1)


def test_the_suffix_of_the_temporary_file_is_that_of_the_target(tmp_path):
    with written_aside(tmp_path / "labels.nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.write_bytes(b"x")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00"])
def test_damaged_json_is_said_in_words(tmp_path, content):
    path = tmp_path / "card.json"
    path.write_bytes(content)
    with pytest.raises(CPS4Error, match="not valid JSON"):
        read_json(path)
