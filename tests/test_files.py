"""Whole files: the old one or a new one, with one writer or with several, whatever fails."""

import errno
import io
import os
import threading
import zipfile

import pytest

from cs231n import files


def fail_for_a_full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_alone_and_names_it(monkeypatch, tmp_path, step):
    path = tmp_path / "last.pt"
    files.write_bytes(path, b"old")
    monkeypatch.setattr(os, step, fail_for_a_full_disk)
    with pytest.raises(OSError, match="No space left on device: ") as caught:
        files.write_bytes(path, b"new")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("last.pt", b"old")]


def test_a_file_is_on_the_disk_before_it_takes_its_place(monkeypatch, tmp_path):
    seen = []
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(("fsync", os.fstat(descriptor).st_size)))
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append("replace"), replace(a, b)))
    files.write_bytes(tmp_path / "log.csv", b"whole")
    assert seen == [("fsync", 5), "replace"]
    assert (tmp_path / "log.csv").read_bytes() == b"whole"


def write_and_raise(path, error):
    with files.atomic_write(path) as file:
        file.write(b"a part")
        raise error


def test_a_full_disk_that_shows_in_a_write_is_an_error_that_names_the_file(tmp_path):
    with pytest.raises(OSError, match="No space left on device: ") as caught:
        write_and_raise(tmp_path / "a", OSError(errno.ENOSPC, "No space left on device"))
    assert caught.value.filename == str(tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_an_error_that_names_another_file_is_passed_on(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_and_raise(tmp_path / "a", FileNotFoundError(errno.ENOENT, "No such file", str(tmp_path / "b")))
    assert caught.value.filename == str(tmp_path / "b")


def test_an_interrupt_leaves_the_old_file_alone(tmp_path):
    files.write_bytes(tmp_path / "a", b"old")
    with pytest.raises(KeyboardInterrupt):
        write_and_raise(tmp_path / "a", KeyboardInterrupt())
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"old")]


def test_several_writers_write_whole_files_and_the_last_to_finish_wins(tmp_path):
    path = tmp_path / "a"
    first, second = files.atomic_write(path), files.atomic_write(path)
    with first as one:
        one.write(b"one, ")
        with second as two:
            two.write(b"two")
        assert path.read_bytes() == b"two"
        one.write(b"to the end")
    assert path.read_bytes() == b"one, to the end"
    assert list(tmp_path.iterdir()) == [path]


def test_no_write_fails_and_no_read_is_torn_beside_other_writers(tmp_path):
    path, size, errors = tmp_path / "a", 300_000, []
    files.write_bytes(path, b"-" * size)

    def write(letter):
        try:
            for _ in range(40):
                files.write_bytes(path, letter * size)
        except OSError as error:
            errors.append(error)

    writers = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b")]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        content = path.read_bytes()
        assert content == content[:1] * size
    assert not errors
    assert list(tmp_path.iterdir()) == [path]


def test_json_comes_back_as_it_was_written(tmp_path):
    values = {"name": "caf\u00e9", "runs": [1, 2.5, None, True]}
    files.write_json(tmp_path / "a.json", values)
    assert files.read_json(tmp_path / "a.json") == values
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match="Expecting"):
        files.read_json(tmp_path / "a.json")


def test_a_table_comes_back_as_strings(tmp_path):
    files.write_csv(tmp_path / "a.csv", [{"epoch": 1, "note": "a, b"}, {"epoch": 2, "note": ""}])
    assert (tmp_path / "a.csv").read_bytes() == b'epoch,note\n1,"a, b"\n2,\n'
    assert files.read_csv(tmp_path / "a.csv") == [{"epoch": "1", "note": "a, b"}, {"epoch": "2", "note": ""}]
    assert files.read_csv(tmp_path / "none.csv") == []


# A checksum


def write_zip(path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("a.txt", "whole")
    files.write_checked_zip(path, content.getvalue())
    return path.read_bytes()


def test_a_checked_zip_is_a_zip_file_to_other_programs(tmp_path):
    content = write_zip(tmp_path / "a.zip")
    assert files.read_checked_zip(tmp_path / "a.zip") == content
    with zipfile.ZipFile(tmp_path / "a.zip") as file:
        assert file.testzip() is None
        assert file.read("a.txt") == b"whole"
        assert file.comment.startswith(b"SHA-256 of all bytes before: ")


def test_every_flipped_bit_of_a_checked_zip_is_found(tmp_path):
    path = tmp_path / "a.zip"
    content = write_zip(path)
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(
            ValueError, match=r"a\.zip (is damaged|has no checksum).*; use another copy of it, or train again$"
        ):
            files.read_checked_zip(path)


def test_a_checked_zip_with_bytes_missing_or_added_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    content = write_zip(path)
    for changed in (b"", content[:50], content[:-1], content[1:], content + b"x", b"x" + content, content[:-1] + b"x"):
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"a\.zip (is damaged|has no checksum)"):
            files.read_checked_zip(path)
