"""Files are never half written."""

import errno
import os

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
    def refuse(*_, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.touch", refuse)
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


def test_a_name_as_long_as_the_file_system_takes_can_be_written(tmp_path):
    path = tmp_path / ("ü" * 120 + "a" * 5 + ".json")  # 250 bytes; the temporary name is shorter
    write_json(path, 1)
    assert read_json(path) == 1
    with pytest.raises(CPS4Error, match="name is too long"):
        write_json(tmp_path / ("ü" * 130 + ".json"), 1)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_that_refuses_rights_and_flushing_takes_files(tmp_path, monkeypatch):
    """As WSL, CIFS and exFAT do."""

    def refuse(*_, **options):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def unknown(_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("os.chmod", refuse)
    monkeypatch.setattr("pathlib.Path.chmod", refuse)
    monkeypatch.setattr("os.fsync", unknown)
    write_json(tmp_path / "result.json", 1)
    assert read_json(tmp_path / "result.json") == 1


@pytest.mark.skipif(os.name != "posix", reason="rights of POSIX")
def test_a_file_has_the_rights_that_any_other_has(tmp_path):
    write_json(tmp_path / "result.json", 1)
    (tmp_path / "other").touch()
    assert (tmp_path / "result.json").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00"])
def test_damaged_json_is_said_in_words(tmp_path, content):
    path = tmp_path / "card.json"
    path.write_bytes(content)
    with pytest.raises(CPS4Error, match="not valid JSON"):
        read_json(path)
