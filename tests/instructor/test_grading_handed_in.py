"""Reading submissions: whatever one of them holds, the others are read, and none is lost without a word."""

import contextlib
import os
import signal
import unicodedata
import zipfile
from pathlib import Path

import pytest
from zips import zipped

from grading.instructor import handed_in, workers
from grading.instructor.handed_in import read_submissions
from grading.session import NotStarted

ROOT = Path(__file__).parents[2]
LAYERS = b"x = 1\n"


def submitted(folder):
    """File name -> its `Submission`, and the files that are none."""
    found, others = read_submissions(folder, folder / "out")
    return {submission.file: submission for submission in found}, others


def only(folder):
    (submission,) = submitted(folder)[0].values()
    return submission


def package(**modules):
    """The entries of a zip with these modules in cs231n/."""
    return {f"cs231n/{name}.py": content for name, content in {"layers": LAYERS, **modules}.items()}


def write(path, content=LAYERS):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


pytestmark = pytest.mark.usefixtures("one_reader")


# --- which files are submissions, and how they are named ---


def test_a_folder_or_a_zip_is_a_submission_wherever_cs231n_is_in_it(tmp_path):
    write(tmp_path / "anna lee/cs231n/layers.py")
    write(tmp_path / "bob/deep/er/cs231n/layers.py")
    write(tmp_path / "bob/cs231n/readme.py", b"")
    write(tmp_path / "carl.zip", zipped(**{f"hw/{name}": content for name, content in package().items()}))
    write(tmp_path / "notes.txt")
    write(tmp_path / "out/cs231n/layers.py")
    write(tmp_path / ".git/cs231n/layers.py")
    write(tmp_path / "Anna_7_assignsubmission_onlinetext/onlinetext.html")
    found, others = submitted(tmp_path)
    assert [submission.name for submission in found.values()] == ["anna_lee", "bob", "carl"]
    assert others == ["Anna_7_assignsubmission_onlinetext", "notes.txt"]
    assert all(submission.modules == {"layers.py": LAYERS} for submission in found.values())
    assert found["bob"].notes == ["left out: the folder bob/cs231n (another one was graded)"]


def test_links_pipes_and_devices_are_not_opened(tmp_path):
    write(tmp_path / "anna/cs231n/layers.py")
    (tmp_path / "link").symlink_to("anna")
    (tmp_path / "link.zip").symlink_to("/dev/zero")
    (tmp_path / "nowhere").symlink_to("nothing")
    os.mkfifo(tmp_path / "fifo.zip")
    os.mkfifo(tmp_path / "anna/cs231n/pipe.py")
    (tmp_path / "anna/cs231n/optim.py").symlink_to(ROOT / "cs231n/optim.py")
    (tmp_path / "anna/cs231n/own").symlink_to(ROOT / "cs231n")
    (tmp_path / "bob").mkdir()
    (tmp_path / "bob/cs231n").symlink_to(ROOT / "cs231n")
    os.mkfifo(tmp_path / "bob/mine.zip")
    found, others = submitted(tmp_path)
    assert others == ["fifo.zip", "link", "link.zip", "nowhere"]
    assert found["anna"].modules == {"layers.py": LAYERS}
    assert found["anna"].notes == [
        "left out: cs231n/own (it is a link)",
        "left out: optim.py (it is not a file)",
        "left out: pipe.py (it is not a file)",
    ]
    assert not found["bob"].modules
    assert found["bob"].notes == [
        "it could not be read: there is no folder cs231n with modules in it",
        "left out: cs231n (it is a link)",
        "left out: bob/mine.zip (it is not a file)",
    ]


NAMES = [
    "=1+1;x", "-x", "a∕..", "Same", "same", "SAME ", "x" * 250, "x" * 251, "\udcff", "\udcfe", "\U0001f600" * 60,
    unicodedata.normalize("NFC", "José"), unicodedata.normalize("NFD", "José"), "अनिता", "王" * 80, "ﬁ", "fi",
    "O'Brien [2]", "tab\there", "line\nbreak",
]  # fmt: skip


def test_no_two_submissions_share_the_name_of_a_report(tmp_path):
    for name in NAMES:
        (tmp_path / name).mkdir()
    write(tmp_path / "same.zip", b"")
    before = submitted(tmp_path)[0]
    forged = before["Same"].name  # handed in by someone who knows how names are made
    (tmp_path / forged).mkdir()
    names = [submission.name for submission in submitted(tmp_path)[0].values()]
    assert len(names) == len(NAMES) + 2
    assert len({unicodedata.normalize("NFKC", name).casefold() for name in names}) == len(names)
    for name in names:
        assert unicodedata.category(name[0])[0] in "LN"
        write(tmp_path / f"out/{name}.json.01234567.tmp")


def test_a_name_keeps_its_script(tmp_path):
    for name in ("अनिता", "王小明", unicodedata.normalize("NFD", "José"), "Łukasz Żak"):
        (tmp_path / name).mkdir()
    assert {submission.name for submission in submitted(tmp_path)[0].values()} == {
        "अनिता", "王小明", "José", "Łukasz_Żak",
    }  # fmt: skip


# --- which modules are taken ---


def test_helper_modules_of_any_name_that_python_imports_are_taken(tmp_path):
    taken = ["größe.py", "__own.py", "_.py", "класс.py", "own/h.py", "own/__init__.py", "own/a/b.py", f"{'n' * 90}.py"]
    for name in [*taken, "layers.py", "__init__.py"]:
        write(tmp_path / "anna/cs231n" / unicodedata.normalize("NFD", name))
    submission = only(tmp_path)
    assert set(submission.modules) == {*taken, "layers.py"}
    assert not submission.notes


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("my-helper.py", "Python cannot import a module of this name"),
        ("layers (1).py", "Python cannot import a module of this name"),
        ("fast.abi3.so", "it is not source code"),
        ("utils/__init__.py", "a module of the course has the name of this folder"),
        ("a/b/c/d/e.py", "it is too deep"),
    ],
)
def test_what_is_left_out_is_named(tmp_path, name, why):
    write(tmp_path / "anna/cs231n/layers.py")
    write(tmp_path / "anna/cs231n" / name)
    submission = only(tmp_path)
    assert submission.modules == {"layers.py": LAYERS}
    assert submission.notes == [f"left out: {name} ({why})"]


def test_two_modules_whose_names_mean_the_same_to_python_are_one(tmp_path):
    names = [unicodedata.normalize(form, "größe") for form in ("NFC", "NFD")]
    write(tmp_path / "anna.zip", zipped(**package(**{names[0]: b"1", names[1]: b"2"})))
    assert only(tmp_path).modules["größe.py"] == b"1"
    assert "there are two with this name" in only(tmp_path).notes[0]


def test_notes_are_printable_and_few(tmp_path):
    write(tmp_path / "anna.zip", zipped(**package(**{f"\x1b[2J\u202e\n1.1 3 of 3 {i}": b"" for i in range(300)})))
    submission = only(tmp_path)
    assert len(submission.notes) == 21
    assert all(note.isprintable() for note in submission.notes)


# --- files of data ---


def test_the_files_of_data_that_exercises_ask_for_are_taken(tmp_path):
    data = ("my_net.npz", "my_ablation.json", "my_convnet.npz", "my_attempts.json", "my_resnet.npz")
    for name in (*data, "cs231n/layers.py", "other.npz", "my_net.npz.bak", "my_net.py"):
        write(tmp_path / "anna/hw" / name, name.encode())
    submission = only(tmp_path)
    assert submission.data == {name: name.encode() for name in data}
    assert set(submission.modules) == {"layers.py"}


def test_of_several_files_of_data_the_one_beside_the_package_counts(tmp_path):
    write(tmp_path / "anna/my_net.npz", b"another")
    write(tmp_path / "anna/hw/my_net.npz", b"mine")
    write(tmp_path / "anna/hw/cs231n/layers.py")
    submission = only(tmp_path)
    assert submission.data == {"my_net.npz": b"mine"}
    assert submission.notes == ["left out: anna/my_net.npz (another one was graded)"]


@pytest.mark.parametrize("where", ["in the zip", "beside the zip"])
def test_a_file_of_data_is_found_with_a_zipped_package(tmp_path, where):
    entries = {**package(), **({"my_net.npz": b"mine"} if where == "in the zip" else {})}
    write(tmp_path / "anna/hw.zip", zipped(**entries))
    if where == "beside the zip":
        write(tmp_path / "anna/my_net.npz", b"mine")
    assert only(tmp_path).data == {"my_net.npz": b"mine"}
    assert not only(tmp_path).notes


def test_a_file_of_data_that_is_a_link_or_too_large_is_left_out(tmp_path):
    write(tmp_path / "anna/cs231n/layers.py")
    (tmp_path / "anna/my_net.npz").symlink_to(ROOT / "my_net.npz")
    write(tmp_path / "bob.zip", zipped(**package(), **{"my_net.npz": bytes((8 << 20) + 1)}))
    found, _ = submitted(tmp_path)
    assert [submission.data for submission in found.values()] == [{}, {}]
    assert found["anna"].notes == ["left out: anna/my_net.npz (it is not a file)"]
    assert found["bob.zip"].notes == ["left out: my_net.npz (it has more than 8388608 bytes)"]


# --- zips ---


def test_a_zip_that_leads_out_of_itself_is_harmless(tmp_path):
    paths = ("../cs231n/layers.py", "/cs231n/layers.py", "hw/../../cs231n/optim.py", "..\\cs231n\\layers.py")
    evil = dict.fromkeys(paths, b"evil")
    with zipfile.ZipFile(tmp_path / "anna.zip", "w") as writer:
        for name, content in {**package(), **evil}.items():
            writer.writestr(name, content)
        link = zipfile.ZipInfo("cs231n/link.py")
        link.external_attr = 0o120777 << 16
        writer.writestr(link, str(ROOT / "cs231n/layers.py"))
    write(tmp_path / "bob.zip", zipped(**evil))
    before = set(tmp_path.parent.rglob("*"))
    found, _ = submitted(tmp_path)
    assert set(tmp_path.parent.rglob("*")) == before
    assert found["anna.zip"].modules == {"layers.py": LAYERS}
    assert found["anna.zip"].notes == ["left out: link.py (it is not a file)"]
    assert not found["bob.zip"].modules


@pytest.mark.parametrize(
    ("make", "note"),
    [
        (lambda: zipped(**package(large=b"#" * 30_000_000)), "left out: large.py (it has more than 1048576 bytes)"),
        (lambda: zipped(**package(**{f"m{i:03d}": b"" for i in range(300)})), "left out: m099.py (there are too many)"),
        (lambda: zipped(zipfile.ZIP_BZIP2, **package()), "left out: layers.py (it is compressed by another method"),
        (lambda: zipped(zipfile.ZIP_LZMA, **package()), "left out: layers.py (it is compressed by another method"),
        (lambda: zipped(**package()).replace(LAYERS, b"x = 2\n"), None),
        (lambda: zipped(zipfile.ZIP_STORED, **package()).replace(LAYERS, b"x = 2\n"), "left out: layers.py (Bad CRC"),
        (lambda: zipped(**package())[:-30], "it could not be read: File is not a zip file"),
        (lambda: b"", "it could not be read: File is not a zip file"),
        (lambda: zipped(**{f"{i}": b"" for i in range(50_001)}), "it could not be read: it holds more than 50000"),
    ],
    ids=["large", "many", "bzip2", "lzma", "deflated", "damaged", "cut-off", "empty", "entries"],
)  # fmt: skip
def test_a_bad_zip_costs_itself(tmp_path, make, note):
    write(tmp_path / "anna.zip", make())
    write(tmp_path / "zoe.zip", zipped(**package()))
    found, _ = submitted(tmp_path)
    assert found["zoe.zip"].modules == {"layers.py": LAYERS}
    assert found["anna.zip"].notes[0].startswith(note) if note else not found["anna.zip"].notes


def test_the_modules_of_a_submission_have_a_largest_sum(tmp_path):
    write(tmp_path / "anna.zip", zipped(**package(**{f"m{i:02d}": b"#" * 1_000_000 for i in range(20)})))
    assert sum(map(len, only(tmp_path).modules.values())) <= 16 << 20
    assert "left out: m16.py (it has more than 777" in only(tmp_path).notes[0]


def test_an_encrypted_zip_is_named(tmp_path):
    content = bytearray(zipped(zipfile.ZIP_STORED, **package()))
    content[6] |= 1  # the flag, in the file's own header
    content[content.index(b"PK\1\2") + 8] |= 1  # and in the directory
    write(tmp_path / "anna.zip", bytes(content))
    assert only(tmp_path).notes == ["left out: layers.py (it is encrypted)"]


def test_a_zip_that_needs_more_memory_than_a_submission_may_use(tmp_path):
    end = bytearray(zipped(**package())[-22:])
    end[12:16] = (2 << 30).to_bytes(4, "little")  # the size of its directory
    end[16:20] = bytes(4)
    with open(tmp_path / "anna.zip", "wb") as file:
        file.truncate(2 << 30)  # a hole, which takes no space
        file.seek(0, os.SEEK_END)
        file.write(end)
    write(tmp_path / "zoe.zip", zipped(**package()))
    found, _ = submitted(tmp_path)
    assert found["anna.zip"].notes == ["it could not be read: MemoryError"]
    assert found["zoe.zip"].modules == {"layers.py": LAYERS}


# --- what learning platforms export ---


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_a_zip_in_a_folder_or_in_zips_is_opened(tmp_path, levels):
    content = zipped(**package())
    for _ in range(levels - 1):
        content = zipped(**{"in/side.zip": content, "__MACOSX/side.zip": b"", "report.pdf": b""})
    write(tmp_path / "Jane Doe_123_assignsubmission_file_/my work.ZIP", content)
    write(tmp_path / "doejane_LATE_123_456_hw-1.zip", zipped(**{"mine.zip": zipped(**package())}))
    found, _ = submitted(tmp_path)
    assert [submission.modules for submission in found.values()] == [{"layers.py": LAYERS}] * 2
    assert not any(submission.notes for submission in found.values())


def test_zips_in_zips_have_a_largest_depth(tmp_path):
    content = zipped(**package())
    for _ in range(5):
        content = zipped(**{"inner.zip": content})
    write(tmp_path / "anna.zip", content)
    assert only(tmp_path).notes == ["it could not be read: there is no folder cs231n with modules in it"]


def test_zips_in_a_zip_have_a_largest_size_and_those_on_disk_have_none(tmp_path, monkeypatch):
    monkeypatch.setattr(handed_in, "INNER_ZIPS", 10_000)
    with_data = zipped(zipfile.ZIP_STORED, **package(), **{"data/test_batch": bytes(20_000)})
    content = zipped(**{"bomb.zip": bytes(10_001), "mine.zip": zipped(**package()), "data.zip": with_data})
    write(tmp_path / "anna.zip", content)
    write(tmp_path / "bob/data.zip", with_data)
    anna, bob = (handed_in._read(tmp_path / name, handed_in.Submission(name, name)) for name in ("anna.zip", "bob"))
    assert anna.modules == bob.modules == {"layers.py": LAYERS}
    assert [note.partition(" (it has more than")[0] for note in anna.notes] == [
        "left out: bomb.zip",
        "left out: data.zip",
    ]
    assert not bob.notes


def test_a_package_beside_a_zip_is_the_one_that_counts(tmp_path):
    write(tmp_path / "anna/cs231n/layers.py")
    write(tmp_path / "anna/start.zip", zipped(**package(layers=b"old", optim=b"old")))
    assert only(tmp_path).modules == {"layers.py": LAYERS}


def test_of_two_zips_the_one_that_was_not_graded_is_named(tmp_path):
    write(tmp_path / "anna/first.zip", zipped(**package()))
    write(tmp_path / "anna/second.zip", zipped(**package(optim=b"")))
    write(tmp_path / "anna/third.zip", b"broken")
    assert set(only(tmp_path).modules) == {"layers.py", "optim.py"}
    assert only(tmp_path).notes == [
        "left out: anna/third.zip (File is not a zip file)",
        "left out: the folder anna/first.zip/cs231n (another one was graded)",
    ]


# --- what the system refuses ---


@contextlib.contextmanager
def as_an_ordinary_user():
    """Root may read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    write(tmp_path / "anna/cs231n/layers.py")
    (tmp_path / "anna/cs231n").chmod(0)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # the folders above may be root's alone
    with as_an_ordinary_user():
        submission = handed_in._read(Path("anna"), handed_in.Submission("anna", "anna"))
    (tmp_path / "anna/cs231n").chmod(0o755)
    assert "left out: cs231n (Permission denied)" in submission.notes


def test_a_worker_that_dies_costs_the_submission_that_it_read(tmp_path, one_reader):
    for name in ("anna", "zoe"):
        write(tmp_path / name / "cs231n/layers.py")
    os.kill(one_reader.call("os:getpid", seconds=10), signal.SIGKILL)
    found, _ = submitted(tmp_path)
    assert found["anna"].notes == ["it could not be read: its process was ended by SIGKILL"]
    assert not found["anna"].failed
    assert found["zoe"].modules == {"layers.py": LAYERS}


def test_a_worker_that_does_not_start_is_not_a_students_fault(tmp_path, monkeypatch):
    write(tmp_path / "anna/cs231n/layers.py")
    monkeypatch.setattr(handed_in, "Worker", workers.Worker)
    monkeypatch.setattr(workers.sys, "executable", "/nowhere/python")
    submission = only(tmp_path)
    assert "it could not be read: a worker did not start" in submission.failed
    assert not submission.notes
    with pytest.raises(NotStarted):
        workers.Worker().call("os:getpid", seconds=1)
