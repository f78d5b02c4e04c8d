"""Files that are handed in as data: whatever they hold, they cost their own points alone, and nothing in them runs."""

import io
import json
import os
import pickle
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits
from zips import zipped

from cs231n import handin
from cs231n.handin import CONCLUSIONS
from grading import hand_ins
from grading.checks import challenges
from grading.exercises import read
from grading.grade import grade, grade_own
from grading.instructor import reference_hand_ins
from grading.session import Session

ROOT = Path(__file__).parent.parent
EXERCISES, _ = read()
NET, ABLATION = EXERCISES["1.15"], EXERCISES["3.3"]
CONV_NET, RESNET = EXERCISES["4.10"], EXERCISES["5.8"]


@pytest.fixture(scope="module", autouse=True)
def one_thread(one_torch_thread):
    """For NumPy too, as these nets are small: on two threads they take more time than on one."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def session():
    with Session() as session:
        yield session


@pytest.fixture
def result(session, tmp_path, monkeypatch):
    """A function that grades a file of these bytes, and the one beside it, on few pictures."""
    monkeypatch.setattr(challenges, "PICTURES", 300)
    monkeypatch.setattr(challenges, "IN_LAYERS", 300)

    def result(exercise, content, beside=None):
        for name, its in zip(exercise.hand_ins, (content, beside), strict=False):
            if its is not None:
                (tmp_path / name).write_bytes(its)
        (found,) = grade(exercise, session, tmp_path)
        return found

    return result


def arrays(**changes):
    """The arrays of the reference's net, some of them changed; None: left out."""
    with np.load(ROOT / "my_net.npz", allow_pickle=False) as saved:
        return {name: array for name, array in {**saved, **changes}.items() if array is not None}


def npz(save=np.savez, **changes):
    file = io.BytesIO()
    save(file, **arrays(**changes))
    return file.getvalue()


def npy(array=None, shape=(1,), dtype="<f4", data=b""):
    """The bytes of an .npy: of an array, or with a header that says what it likes."""
    file = io.BytesIO()
    if array is not None:
        np.save(file, array)
    else:
        np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
        file.write(data)
    return file.getvalue()


class Evil:
    """Whoever unpickles it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


# --- a net ---


@pytest.mark.parametrize(
    "content",
    [npz(), npz(np.savez_compressed), npz(**{name: np.asfortranarray(a, float) for name, a in arrays().items()})],
    ids=["stored", "deflated", "float64-by-columns"],
)
def test_a_good_net_earns_both_points(result, content):
    found = result(NET, content)
    assert found.earned == 2
    assert found.note.startswith("the net is right on ")


def test_a_first_net_earns_one_point_and_a_linear_one_none(result, monkeypatch):
    monkeypatch.setattr(challenges, "GOOD", 0.9)
    shown = result(NET, npz())
    assert (shown.earned, shown.open) == (1, False)
    assert "and 90% are worth another point" in shown.hint
    assert "more images or a penalty" in shown.answer
    monkeypatch.setattr(challenges, "PLAIN", 0.9)
    shown = result(NET, npz())
    assert shown.earned == 0
    assert "give the net hidden layers" in shown.answer
    rng = np.random.default_rng(0)
    untrained = {"W1": rng.standard_normal((3072, 10)), "b1": np.zeros(10), "W2": None, "b2": None}
    shown = result(NET, npz(**untrained))
    assert shown.earned == 0
    assert "10 % is chance" in shown.answer


def test_a_net_is_judged_by_pictures_of_the_seed_that_nobody_has_seen(session, monkeypatch):
    seeds, draw = [], challenges.shapes10.draw
    monkeypatch.setattr(challenges, "PICTURES", 300)
    monkeypatch.setattr(challenges.shapes10, "draw", lambda n, seed: seeds.append(seed) or draw(n, seed))
    for seed in (0, 0, 1, 2):
        grade(NET, session, ROOT, seed=seed)
    assert seeds[0] == seeds[1]
    assert len({*seeds, challenges.shapes10.SEED}) == 4


W1, B1 = arrays()["W1"], arrays()["b1"]
H = len(B1)
NAMES = "must hold W1, b1, W2, b2, ... and nothing else"
BAD_NETS = {
    "empty": (b"", "not an .npz that can be read"),
    "text": (b"W1 = 3", "not an .npz that can be read"),
    "an-npy": (npy(W1), "not an .npz that can be read"),
    "cut-off": (npz()[:-100], "not an .npz that can be read"),
    "damaged": (npz().replace(W1.tobytes()[:64], b"x" * 64), "not an .npz that can be read"),
    "no-arrays": (zipped(), NAMES),
    "files-that-are-no-arrays": (zipped(W1=b"1", b1=b"2"), "not an .npz that can be read"),
    "object-in-a-header": (zipped(W1=npy(dtype="|O", data=pickle.dumps([1]))), "W1 has the dtype object"),
    "other-names": (npz(W1=None, w1=W1), NAMES),
    "one-too-few": (npz(b2=None), NAMES),
    "one-too-many": (npz(x=B1), NAMES),
    "a-path": (npz(W1=None, **{"../W1": W1}), NAMES),
    "the-same-name-twice": (zipped(**{"W1": npy(B1), "W1.npy": npy(B1)}), "two of its arrays have the same name"),
    "many": (zipped(**{f"W{i}": b"" for i in range(50)}), "it holds 50 arrays"),
    "one-axis": (npz(W1=B1), f"W1 has the shape ({H},)"),
    "three-axes": (npz(W1=W1[None]), "W1 has 3 axes"),
    "a-number": (npz(b1=np.float32(0)), "b1 has 0 axes"),
    "not-chained": (npz(W2=np.zeros((H + 1, 10), "f4")), f"W2 has the shape ({H + 1}, 10), expected ({H}, 10)"),
    "other-bias": (npz(b1=B1[1:]), f"b1 has the shape ({H - 1},)"),
    "other-input": (npz(W1=W1[1:]), f"W1 has the shape (3071, {H})"),
    "hundred-classes": (npz(W2=np.zeros((H, 100), "f4")), f"W2 has the shape ({H}, 100)"),
    "int64": (npz(W1=W1.astype(int)), "W1 has the dtype int64"),
    "complex": (npz(b1=B1.astype(complex)), "b1 has the dtype complex128"),
    "float16": (npz(b1=B1.astype("f2")), "b1 has the dtype float16"),
    "big-endian": (npz(b1=B1.astype(">f4")), "b1 has the dtype >f4"),
    "structured": (npz(b1=np.zeros(H, [("x", "f4")])), "b1 has the dtype"),
    "text-array": (npz(b1=np.array(["a"] * H)), "b1 has the dtype"),
    "nan": (npz(b1=B1 * np.nan), "entries that are not finite"),
    "infinity": (npz(W1=np.where(W1 > 0, np.inf, W1)), "entries that are not finite"),
    "too-large-for-float32": (npz(b1=np.full(H, 1e300)), "entries that are not finite"),
    "scores-overflow": (npz(W1=W1 * 0 + 1e38, W2=np.full((H, 10), -1e38, "f4")), "not all finite numbers"),
    "shape-of-terabytes": (zipped(W1=npy(shape=(10**6, 10**6))), "W1 says it has the shape (1000000, 1000000)"),
    "negative-shape": (zipped(W1=npy(shape=(-1, -4), data=bytes(16))), "W1 says it has the shape"),
    "long-header": (zipped(W1=npy(dtype=[("x" * 20_000, "<f4")])), "not an .npz that can be read"),
    "bomb": (zipped(W1=bytes(64 << 20)), "its arrays have 67108864 bytes"),
    "bzip2": (zipped(zipfile.ZIP_BZIP2, W1=npy(B1)), "by another method than deflate"),
    "lzma": (zipped(zipfile.ZIP_LZMA, W1=npy(B1)), "by another method than deflate"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_NETS)
def test_a_bad_net_earns_nothing_and_the_hint_says_why(result, name):
    check_refused(result, NET, *BAD_NETS[name])


def check_refused(result, exercise, content, words):
    """Check that a file earns nothing, and that its hint, a short one, has these words."""
    found = result(exercise, content)
    assert found.earned == 0
    assert words in found.hint
    assert len(found.hint) < 300


def test_a_bomb_that_lies_about_its_size_is_not_unpacked(result):
    content = zipped(W1=bytes(64 << 20))
    lying = content.replace((64 << 20).to_bytes(4, "little"), (64).to_bytes(4, "little"))
    assert lying != content
    tracemalloc.start()
    assert "not an .npz that can be read" in result(NET, lying).hint
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_nothing_is_unpickled(result, tmp_path):
    witness = tmp_path / "witness"
    evil = np.array([Evil(witness)] * 64, dtype=object)
    assert result(NET, npz(b1=evil)).earned == 0
    assert result(NET, pickle.dumps(Evil(witness))).earned == 0
    assert result(NET, zipped(**{"W1.npy": pickle.dumps(Evil(witness))})).earned == 0
    assert not witness.exists()
    pickle.loads(pickle.dumps(Evil(witness))).close()
    assert witness.exists()  # so it would have been seen


# --- nets layer by layer; what their files may hold is in test_grading_layered.py ---

LAYERS = {name: (ROOT / name).read_bytes() for name in ("my_convnet.npz", "my_resnet.npz")}
ATTEMPTS = (ROOT / "my_attempts.json").read_bytes()


def test_the_references_nets_earn_all_points(result):
    assert result(CONV_NET, LAYERS["my_convnet.npz"], ATTEMPTS).earned == 2
    assert result(RESNET, LAYERS["my_resnet.npz"]).earned == 4


def untrained(path):
    """The bytes of a file with a net whose weights are random."""
    rng = np.random.default_rng(0)
    handin.save_layers([("affine", {"w": rng.standard_normal((3072, 10)), "b": np.zeros(10)})], np.zeros(3), 1.0, path)
    return path.read_bytes()


def test_an_untrained_net_earns_nothing_and_the_hint_says_that_this_is_chance(result, tmp_path):
    content = untrained(tmp_path / "net.npz")
    for exercise in (CONV_NET, RESNET):
        shown = result(exercise, content, ATTEMPTS)
        assert shown.earned == 0
        assert "expected" in shown.hint
        assert "10 % is chance" in shown.answer


@pytest.mark.parametrize("reached", range(5))
def test_each_step_of_accuracy_is_worth_a_point(result, monkeypatch, reached):
    steps = tuple(0.1 * (i + 1) if i < reached else 0.99 for i in range(4))
    monkeypatch.setattr(challenges, "RESNET", steps)
    shown = result(RESNET, LAYERS["my_resnet.npz"])
    assert shown.earned == reached
    assert ("99% are worth another point" in shown.hint) == (0 < reached < 4)


def attempts(*changes, **changed):
    """The reference's list of attempts, of which the first is changed; changes: other attempts, too."""
    first, *others = json.loads(ATTEMPTS)["attempts"]
    return json.dumps({"attempts": [first | changed, *others, *changes]}).encode()


BAD_ATTEMPTS = {
    "absent": (None, "my_attempts.json: it is not there"),
    "empty": (b"", "it is not JSON"),
    "a-list": (b"[]", "expected a dict"),
    "another-key": (b'{"tries": []}', "expected one key, attempts"),
    "no-list": (b'{"attempts": 3}', "expected one key, attempts"),
    "two": (json.dumps({"attempts": json.loads(ATTEMPTS)["attempts"][:2]}).encode(), "2 attempts, expected 3 or more"),
    "too-many": (json.dumps({"attempts": [{}] * 1001}).encode(), "1001 attempts"),
    "a-number": (attempts(3), "expected settings, accuracy and seconds"),
    "a-key-more": (attempts(net="large"), "expected settings, accuracy and seconds"),
    "no-words": (attempts(settings=" net            "), "settings: expected a sentence"),
    "settings-of-another-kind": (attempts(settings={"filters": 3}), "settings: expected a sentence"),
    "percent": (attempts(accuracy=61), "accuracy is 61, expected 0 to 1"),
    "an-accuracy-in-words": (attempts(accuracy="good"), "accuracy: expected a number"),
    "no-time": (attempts(seconds=0), "seconds is 0, expected a number above 0"),
    "for-ever": (attempts(seconds=1e300), "seconds is 1e+300"),
    "the-same-twice": (attempts(json.loads(ATTEMPTS)["attempts"][1]), "two attempts have the same settings"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ATTEMPTS)
def test_without_a_list_of_attempts_a_good_net_earns_one_point(result, name):
    beside, words = BAD_ATTEMPTS[name]
    shown = result(CONV_NET, LAYERS["my_convnet.npz"], beside)
    assert (shown.earned, shown.open) == (1, False)
    assert words in shown.hint
    assert len(shown.hint) < 300


def test_attempts_without_a_net_leave_the_exercise_open(session, tmp_path):
    (tmp_path / "my_attempts.json").write_bytes(ATTEMPTS)
    (found,) = grade(CONV_NET, session, tmp_path)
    assert found.open
    assert "there is no my_convnet.npz" in found.hint


def test_a_net_that_would_take_minutes_is_refused_and_the_hint_says_what_to_do(result, tmp_path):
    w, b = np.ones((255, 255, 3, 3), np.float32), np.ones(255)
    first = ("conv", {"w": w[:, :3, :1, :1], "b": b, "stride": 1, "pad": 0})
    handin.save_layers([first, ("conv", {"w": w, "b": b, "stride": 1, "pad": 1})], np.zeros(3), path=tmp_path / "n.npz")
    shown = result(RESNET, (tmp_path / "n.npz").read_bytes())
    assert shown.earned == 0
    assert "multiplications for an image" in shown.hint
    assert "pool earlier" in shown.answer


# --- the reference's own ---


def test_the_command_makes_files_that_are_whole(result, tmp_path, monkeypatch):
    small = {"IMAGES": 200, "EPOCHS": 1, "SMALL": 100, "LONG": 1, "SEEDS": range(3), "RES_IMAGES": 200, "RES_EPOCHS": 1}
    for name, less in {**small, "DESIGNS": [((4,), n, 1) for n in (200, 201, 202)]}.items():
        monkeypatch.setattr(reference_hand_ins, name, less)
    reference_hand_ins.make_net(tmp_path / "net.npz")
    reference_hand_ins.make_ablation(tmp_path / "ablation.json")
    assert "the net is right on" in result(NET, (tmp_path / "net.npz").read_bytes()).hint
    for exercise, make in ((CONV_NET, reference_hand_ins.make_conv_net), (RESNET, reference_hand_ins.make_resnet)):
        make(tmp_path / "layers.npz")
        assert "the net is right on" in result(exercise, (tmp_path / "layers.npz").read_bytes()).hint
    reference_hand_ins.make_attempts(tmp_path / "attempts.json")
    assert result(CONV_NET, LAYERS["my_convnet.npz"], (tmp_path / "attempts.json").read_bytes()).earned == 2
    assert result(ABLATION, (tmp_path / "ablation.json").read_bytes()).earned == 2


def test_the_command_gives_the_numbers_in_the_references_ablation():
    data = reference_hand_ins.handin.shapes10_data(reference_hand_ins.SMALL)
    assert abs(reference_hand_ins.run(0, data) - GOOD["numbers"]["baseline"][0]) < 0.02  # rounding varies by machine


# --- the file itself ---


def test_without_the_file_the_exercise_is_open_and_says_where_to_look(session, tmp_path):
    (found,) = grade(NET, session, tmp_path)
    assert found.open
    assert found.hint == NET.messages[0]
    assert "exercise 1.15 is open: there is no my_net.npz in the project's folder" in found.hint


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "large"])
def test_a_link_a_pipe_a_folder_and_a_large_file_are_not_read(session, tmp_path, kind):
    path = tmp_path / "my_net.npz"
    if kind == "link":
        path.symlink_to(ROOT / "my_net.npz")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(bytes(hand_ins.LARGEST + 1))
    (found,) = grade(NET, session, tmp_path)
    assert found.earned == 0
    assert not found.open
    assert "my_net.npz" in found.hint


def test_a_file_is_graded_without_any_of_the_learners_modules(tmp_path, monkeypatch):
    monkeypatch.setattr(challenges, "PICTURES", 300)
    (tmp_path / "cs231n").mkdir()
    (tmp_path / "cs231n/__init__.py").write_text("this is no Python")
    (tmp_path / "my_net.npz").write_bytes(npz())
    with Session() as session:
        (found,) = grade_own(NET, session, tmp_path)
        assert session.process is None
    assert found.earned == 2


# --- an ablation ---

GOOD = json.loads((ROOT / "my_ablation.json").read_text())


def text(**changes):
    return json.dumps({**GOOD, **changes}).encode()


def numbers(**changes):
    return text(numbers={**GOOD["numbers"], **changes})


def test_an_ablation_whose_conclusion_follows_earns_both_points(result):
    assert result(ABLATION, text()).earned == 2


@pytest.mark.parametrize(
    ("changed", "higher", "right"),
    [
        ([1.1, 1.2, 1.3], True, "better"),
        ([1.1, 1.2, 1.3], False, "worse"),
        ([-1.1, -1.2, -1.3], True, "worse"),
        ([-1.1, -1.2, -1.3], False, "better"),
        ([0.1, 0.5, 0.2], True, "no difference that these seeds show"),
    ],
)
def test_the_conclusion_follows_from_the_interval(result, changed, higher, right):
    values = {"baseline": [0.0, 0.1, 0.2], "changed": changed, "control": [5, 6, 7]}
    for conclusion in CONCLUSIONS:
        found = result(ABLATION, text(numbers=values, higher_is_better=higher, conclusion=conclusion))
        assert found.earned == (2 if conclusion == right else 1)
        assert ("95 % interval" in found.hint) == (conclusion != right)
        sided = conclusion != right and right in ("better", "worse")
        assert ("is your number a loss" in found.question) == sided
        assert (f"which says {right!r} with higher_is_better={higher}" in found.answer) == sided


BAD_ABLATIONS = {
    "empty": (b"", "it is not JSON"),
    "no-text": (b"\xff\xfe{}", "it is not JSON"),
    "a-list": (b"[]", "expected a dict"),
    "nested": (b"[" * 60_000, "it is not JSON"),
    "large": (text(question="q" * 70_000), "expected 65536 at most"),
    "a-key-less": (json.dumps({"question": "What is it?"}).encode(), "expected the keys change, conclusion"),
    "a-key-more": (text(seed=1), "expected the keys"),
    "no-question": (text(question="  why?          "), "question: expected a sentence"),
    "question-of-another-kind": (text(question=["a", "b"]), "question: expected words"),
    "two-seeds": (numbers(baseline=[1, 2]), "numbers of baseline: 2 seeds, expected 3 or more"),
    "many-seeds": (numbers(baseline=[*range(1001)]), "more than 1000"),
    "no-control": (text(numbers={"baseline": [1, 2, 3], "changed": [1, 2, 4]}), "numbers: expected one of"),
    "two-seeds-of-the-control": (numbers(control=[1, 2]), "numbers of control: 2 seeds"),
    "the-control-is-the-baseline": (numbers(control=GOOD["numbers"]["baseline"]), "the control's numbers are those of"),
    "the-same-labels": (text(labels={**GOOD["labels"], "control": "all units"}), "three runs"),
    "labels-of-another-kind": (text(labels={**GOOD["labels"], "control": {}}), "labels: expected words"),
    "seed-not-used": (numbers(changed=[0.5, 0.5, 0.5]), "changed: all seeds give the same number"),
    "nan": (numbers(changed=[float("nan"), 1, 2]), "it is not JSON"),
    "infinity": (numbers(changed=[1, 2, 3]).replace(b"[1, 2, 3]", b"[1, 2, 1e999]"), "not all are finite"),
    "huge-integer": (numbers(changed=[1, 2, 10**400]), "expected a number"),
    "texts-for-numbers": (numbers(changed=["1", "2", "3"]), "expected a number"),
    "lists-for-numbers": (numbers(changed=[[1], [2], [3]]), "expected a number"),
    "other-conclusion": (text(conclusion="much better"), "conclusion: expected one of"),
    "conclusion-of-another-kind": (text(conclusion=["better"]), "conclusion: expected one of"),
    "no-direction": (text(higher_is_better="yes"), "higher_is_better: expected true or false"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ABLATIONS)
def test_an_incomplete_ablation_earns_nothing_and_the_hint_says_why(result, name):
    check_refused(result, ABLATION, *BAD_ABLATIONS[name])


def test_no_bad_file_leaves_a_warning(result):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for content, _ in BAD_NETS.values():
            result(NET, content)
