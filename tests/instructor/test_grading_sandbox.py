"""What a learner's code can do in the sandbox, and what it cannot."""

import ctypes
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from grading.exercises import read
from grading.instructor import sandbox
from grading.session import ENVIRONMENT, Failed, Learner, Session

ROOT = Path(__file__).parents[2]
EXERCISES, _ = read()
RUN = """
def run(code):
    names = {}
    exec(code, names)
    return str(names.get("result"))
"""
UNGUARDED = "import sys; sys.meta_path[:] = [finder for finder in sys.meta_path if 'Imports' not in repr(finder)]"
whole = pytest.mark.skipif(bool(sandbox.not_enforced()), reason="needs Landlock and seccomp")


def runner(tmp_path_factory, exercise):
    """Yields a function that runs code as a submission's would run, and returns what it left as result."""
    folder = tmp_path_factory.mktemp("tree")
    (folder / "cs231n").mkdir()
    (folder / "cs231n/__init__.py").write_text("")
    (folder / "cs231n/attack.py").write_text(RUN)
    with Session(sandbox.command(EXERCISES[exercise], [folder], 60, 1 << 30)) as session:
        session.load(folder)

        def run(code):
            session.begin()
            return Learner(session, None).attack.run(code)

        yield run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    yield from runner(tmp_path_factory, "1.1")


@pytest.fixture
def secret(tmp_path):
    file = tmp_path / "secret.txt"
    file.write_text("secret")
    return file


# --- what it can ---


@pytest.mark.parametrize(
    "code",
    [
        "import numpy as np; result = np.linalg.svd(np.eye(3))[1].sum(), np.random.default_rng().random() < 1",
        "import numpy.testing, numpy.fft, decimal, sqlite3, dataclasses, concurrent.futures, sysconfig",
        "from threadpoolctl import ThreadpoolController; assert ThreadpoolController().select(user_api='blas').info()",
        "from tqdm.auto import tqdm; assert list(tqdm([1, 2])) == [1, 2]",
        "import time, tempfile; time.sleep(0.01); assert time.time() > 1; tempfile.gettempdir()",
        "import os; assert len(open('/dev/urandom', 'rb').read(3)) == 3; open('/dev/null', 'w').write('x')",
        "print('x' * 10_000_000)",
    ],
)
def test_ordinary_code_runs(run, code):
    run(code)


# --- what it cannot ---

FILES = """
open(SECRET).read()
__import__("os").listdir(FOLDER)
open(SECRET, "w")
open(SECRET, "a")
open(FOLDER + "/new", "w")
__import__("os").truncate(SECRET, 1)
__import__("os").unlink(SECRET)
__import__("os").rename(SECRET, SECRET + "2")
__import__("os").link(SECRET, FOLDER + "/link")
__import__("os").symlink(SECRET, FOLDER + "/link")
__import__("os").mkdir(FOLDER + "/new")
__import__("os").rmdir(FOLDER)
__import__("os").chmod(SECRET, 0)
__import__("os").chown(SECRET, 1, 1)
__import__("os").utime(SECRET)
__import__("os").setxattr(SECRET, "user.x", b"x")
__import__("shutil").rmtree(FOLDER)
"""
OTHERS = """
open("/etc/passwd").read()
open("/proc/1/environ").read()
open("/proc/PARENT/environ").read()
open("/proc/PARENT/mem").read()
open("/dev/shm/x", "w")
open("ROOT/cs231n/layers.py").read()
open("ROOT/grading/checks/layers.py").read()
open("ROOT/grading/substitutes.py").read()
__import__("os").listdir("ROOT/tests")
__import__("os").fork()
__import__("os").execv("/bin/true", ["true"])
__import__("os").posix_spawn("/bin/true", ["true"], {})
__import__("subprocess").run(["true"])
__import__("multiprocessing").get_context("fork").Process(target=print).start()
__import__("threading").Thread(target=print).start()
__import__("os").kill(PARENT, 0)
__import__("os").kill(-1, 0)
__import__("os").setsid()
__import__("os").setuid(1)
__import__("os").setpriority(0, PARENT, 19)
__import__("os").memfd_create("x")
__import__("fcntl").fcntl(0, __import__("fcntl").F_SETOWN, PARENT)
__import__("resource").setrlimit(7, (1000, 1000))
__import__("resource").prlimit(PARENT, 4, (0, 0))
__import__("socket").socket()
__import__("socket").socketpair()
__import__("multiprocessing.shared_memory").shared_memory.SharedMemory(create=True, size=10)
__import__("numpy").ones(2 << 27)
bytearray(2 << 30)
"""


@whole
@pytest.mark.parametrize("code", FILES.split("\n")[1:-1])
def test_no_file_of_others_is_read_or_changed(run, secret, code):
    before = secret.stat()
    with pytest.raises(Failed) as error:
        run(code.replace("SECRET", repr(str(secret))).replace("FOLDER", repr(str(secret.parent))))
    assert error.value.kind == "PermissionError"
    after = secret.stat()
    assert (before.st_mode, before.st_mtime, before.st_nlink) == (after.st_mode, after.st_mtime, after.st_nlink)
    assert secret.read_text() == "secret"
    assert os.listdir(secret.parent) == ["secret.txt"]


@whole
@pytest.mark.parametrize("code", OTHERS.split("\n")[1:-1])
def test_nothing_beyond_its_own_memory_is_within_reach(run, code):
    with pytest.raises(Failed) as error:
        run(code.replace("ROOT", str(ROOT)).replace("PARENT", str(os.getpid())))
    assert error.value.kind in ("PermissionError", "MemoryError", "RuntimeError", "ValueError")
    assert error.value.kind != "RuntimeError" or "can't start new thread" in error.value.text
    assert error.value.kind != "ValueError" or "maximum limit" in error.value.text


@whole
@pytest.mark.parametrize(
    ("name", "number"), [("io_uring_setup", 425), ("clone3", 435), ("pidfd_open", 434), ("one to come", 9999)]
)
def test_system_calls_that_are_not_named_fail(run, name, number):
    libc = "import ctypes; libc = ctypes.CDLL(None, use_errno=True)"
    code = f"{libc}; result = libc.syscall({number}, 1, None), ctypes.get_errno()"
    assert run(code) == "(-1, 1)", name


@whole
def test_the_network_is_out_of_reach(run):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        with pytest.raises(Failed, match="PermissionError"):
            run(f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 1)")
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize("name", ["torch", "scipy", "matplotlib", "sklearn"])
def test_a_numpy_exercise_is_written_in_numpy_alone(run, name):
    with pytest.raises(Failed, match=f"exercise 1.1 has to be written in NumPy alone, without {name}"):
        run(f"import {name}; {name}.anything()")


@whole
@pytest.mark.parametrize("name", ["torch", "matplotlib"])
def test_taking_the_guard_of_imports_away_does_not_help(run, name):
    with pytest.raises(Failed, match="PermissionError"):
        run(f"{UNGUARDED}; import {name}")


def test_a_pytorch_exercise_has_torch_and_nothing_else(tmp_path_factory):
    for run in runner(tmp_path_factory, "5.3"):
        x = "torch.ones(1, 3, 8, 8, requires_grad=True)"
        run(f"import torch; x = {x}; torch.nn.Conv2d(3, 4, 3)(x).sum().backward(); assert x.grad is not None")
        run("import torch; torch.optim.SGD([torch.ones(2, requires_grad=True)], 0.1).step()")
        for name in ("scipy", "torchvision"):
            with pytest.raises(Failed, match=f"exercise 5.3 has to be written in PyTorch alone, without {name}"):
                run(f"import {name}; {name}.anything()")
        if not sandbox.not_enforced():
            with pytest.raises(Failed, match="PermissionError"):
                run(f"{UNGUARDED}; import torchvision")
        with pytest.raises(Failed, match="memory"):
            run("import torch; torch.ones(100 << 28)")


# --- where Landlock and seccomp are missing ---


def test_it_is_said_what_an_old_kernel_does_not_enforce(monkeypatch):
    monkeypatch.setattr(sandbox, "_landlock_version", lambda: 0)
    monkeypatch.setattr(sandbox, "_has_seccomp", lambda: False)
    files, others = sandbox.not_enforced()
    assert "files" in files
    assert "network" in others


def without_landlock(*settings, **more):
    """The command for an exercise's process, on a system without Landlock and seccomp."""
    *python, script, settings = sandbox.command(*settings, **more)
    missing = (
        f"import runpy; main = runpy.run_path({script!r})['main'];"
        "main.__globals__.update(_landlock_version=lambda: 0, _has_seccomp=lambda: False); main()"
    )
    return [*python, "-c", missing, settings]


def test_there_no_process_starts_unless_it_is_asked_for():
    command = without_landlock(EXERCISES["1.1"], [], 60, 1 << 30)
    run = subprocess.run(command, input="", capture_output=True, text=True, env=ENVIRONMENT)
    assert run.returncode == 1
    assert run.stderr.startswith("this system does not keep submissions from reading and writing files")


def test_there_the_limits_and_the_guard_are_left(tmp_path):
    (tmp_path / "cs231n").mkdir()
    (tmp_path / "cs231n/attack.py").write_text(RUN)
    with Session(without_landlock(EXERCISES["1.1"], [tmp_path], 60, 1 << 30, unsandboxed=True)) as session:
        session.load(tmp_path)
        run = Learner(session, None).attack.run
        with pytest.raises(Failed, match="NumPy alone, without torch"):
            run("import torch; torch.ones(1)")
        with pytest.raises(Failed, match="writes no files"):
            run(f"with open({str(tmp_path / 'large')!r}, 'w') as file: file.write('x')")
        if sys.platform == "linux":
            with pytest.raises(Failed, match="MemoryError"):
                run("import numpy as np; np.ones(2 << 27)")


@whole
def test_the_process_ends_with_the_grader(tmp_path):
    command = sandbox.command(EXERCISES["1.1"], [tmp_path], 60, 1 << 30)
    grader = f"""
import os, subprocess, time
child = subprocess.Popen({command!r}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
child.stdin.write(b'{{"do": "nothing"}}\\n')
child.stdin.flush()
child.stdout.readline()
print(child.pid, flush=True)
os.kill(child.pid, 19)  # stopped, it sees no end of its input
os._exit(0)
"""
    run = subprocess.run(
        [sys.executable, "-c", grader], capture_output=True, text=True, env=dict(os.environ, **ENVIRONMENT)
    )
    pid = int(run.stdout)
    for _ in range(50):
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        ctypes.CDLL(None).usleep(20_000)
    os.kill(pid, 9)
    pytest.fail("it lives on")


def test_the_settings_are_short_enough_for_a_command(tmp_path):
    assert len(json.dumps(sandbox.command(EXERCISES["5.3"], [tmp_path], 60, 1 << 30))) < 4096
