"""Run `child.py` where a learner's code can do no harm: `python -I -S sandbox.py SETTINGS`; `command` says how.

Its process reads what it needs and writes nothing, starts no process and no thread, reaches no network and no other
process, and takes no more time and memory than it may.  Landlock and seccomp of Linux see to it, for root too; where
they are missing, as on macOS, the limits of POSIX and the guard of imports are left: `not_enforced` says so.
"""

import contextlib
import ctypes
import importlib.abc
import importlib.util
import json
import os
import platform
import resource
import signal
import struct
import sys
import sysconfig
import tempfile
from pathlib import Path

GRADING = Path(__file__).parents[1]  # holds child.py and drivers.py
PACKAGES = ("numpy", "numpy.libs", "threadpoolctl", "tqdm", "filelock")  # all that the NumPy core imports
BESIDE_TORCH = ("cs231n", "__editable__", "scipy", "torchvision")  # beginnings of what a PyTorch exercise must not see
READ_FILE, READ_FOLDER, WRITE_FILE = 4, 8, 2  # rights of Landlock

# The system calls that remain: "name number" of x86-64 and aarch64, - where there is none.  Any other one fails.
CALLS = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, lseek 8 62, close 3 57, open 2 -, openat 257 56,
stat 4 -, lstat 6 -, fstat 5 80, newfstatat 262 79, statx 332 291, access 21 -, faccessat 269 48, faccessat2 439 439,
readlink 89 -, readlinkat 267 78, getdents64 217 61, getcwd 79 17, ioctl 16 29, dup 32 23, dup2 33 -, dup3 292 24,
poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72, brk 12 214, mmap 9 222, munmap 11 215, mprotect 10 226,
mremap 25 216, madvise 28 233, futex 202 98, membarrier 324 283, getcpu 309 168, rt_sigaction 13 134,
rt_sigprocmask 14 135, rt_sigreturn 15 139, sigaltstack 131 132, restart_syscall 219 128, clock_gettime 228 113,
clock_getres 229 114, clock_nanosleep 230 115, nanosleep 35 101, gettimeofday 96 169, time 201 -, getpid 39 172,
getppid 110 173, gettid 186 178, getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177, uname 63 160,
sysinfo 99 179, getrusage 98 165, times 100 153, getrandom 318 278, sched_yield 24 124, sched_getaffinity 204 123,
exit 60 93, exit_group 231 94
"""
MACHINES = {"x86_64": (0, 0xC000003E, 72), "aarch64": (1, 0xC00000B7, 25)}  # column, audit's number, that of fcntl


def command(exercise, folders, seconds, memory):
    """What starts the process for an exercise.  folders: what it may read, too; memory: bytes beyond the start's."""
    settings = {
        "exercise": exercise.id,
        "torch": exercise.notebook == 5,
        "sites": [str(Path(importlib.util.find_spec(name).origin).parent.parent) for name in ("numpy", "torch")],
        "folders": list(map(str, folders)),
        "seconds": 2 * int(seconds) + 5,  # of the processor: the clock's limit, which the grader keeps, comes first
        "memory": memory,
    }
    return [sys.executable, "-I", "-S", __file__, json.dumps(settings)]


def _readable(sites, torch):
    """Python's library, shared libraries, and the packages that an exercise may use: of installed ones no others."""
    for folder in _library():
        yield from (path for path in Path(folder).iterdir() if path.name not in ("site-packages", "dist-packages"))
    for folder in map(Path, ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", f"{sys.base_prefix}/lib")):
        yield from (path for path in folder.glob("*") if ".so" in path.name or "-linux-" in path.name)
    yield from (GRADING / "drivers.py", "/etc/ld.so.cache", "/dev/urandom")
    yield from ("/proc/self/maps", "/proc/cpuinfo", "/sys/devices/system/cpu")
    for name in PACKAGES:
        yield from (Path(sites[0], name), Path(sites[0], f"{name}.py"))
    if torch:
        yield from (path for path in Path(sites[1]).iterdir() if not path.name.startswith(BESIDE_TORCH))


def _library():
    """The folders of Python's own library."""
    return {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}


def not_enforced():
    """What this system cannot keep a submission from, in words; empty where it keeps it from all."""
    missing = []
    if _landlock_version() < 1:
        missing.append("reading and writing files (there is no Landlock)")
    if not _has_seccomp():
        missing.append("the network, other processes, and threads (there is no seccomp)")
    return missing


def _libc(name, *args):
    """Call a function of the C library.  Raises OSError."""
    result = getattr(ctypes.CDLL(None, use_errno=True), name)(*args)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


def _landlock_version():
    try:
        return _libc("syscall", 444, None, 0, 1) if platform.machine() in MACHINES and sys.platform == "linux" else 0
    except OSError:
        return 0


def _has_seccomp():
    try:
        return sys.platform == "linux" and platform.machine() in MACHINES and _libc("prctl", 21, 0, 0, 0, 0) >= 0
    except OSError:
        return False


def _limit(seconds, memory):
    """The limits of POSIX: of time, memory, files and processes."""
    size = 0
    with contextlib.suppress(OSError):
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        Path("/proc/self/oom_score_adj").write_text("1000")  # where memory is short, this process ends and no other
    limits = {"CPU": seconds, "AS": size + memory, "FSIZE": 0, "NOFILE": 64, "CORE": 0, "NPROC": 0}
    for name, limit in limits.items():
        with contextlib.suppress(ValueError, OSError):  # macOS has no limit of memory
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))


def _give_up_privileges():
    """End with the grader, be no root in what a file's owner or mode does not say, and never become it."""
    _libc("prctl", 1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    _libc("capset", struct.pack("Ii", 0x20080522, 0), bytes(24))
    _libc("prctl", 38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS


def _restrict_files(read, listed):
    """Landlock: what is in the files and folders read may be read, and folders below listed may be listed."""
    version = _landlock_version()
    rights = (1 << (16 if version >= 5 else min(12 + version, 15))) - 1  # all that this version knows
    rules = struct.pack("QQQ", rights, 3 if version >= 4 else 0, 3 if version >= 6 else 0)  # also TCP, and signals
    ruleset = _libc("syscall", 444, rules, len(rules), 0)
    allowed = [*((path, READ_FILE | READ_FOLDER) for path in read), *((path, READ_FOLDER) for path in listed)]
    for path, right in [*allowed, ("/dev/null", READ_FILE | WRITE_FILE)]:
        with contextlib.suppress(FileNotFoundError):
            file = os.open(path, os.O_PATH)
            rule = struct.pack("=Qi", right if os.path.isdir(path) else right & ~READ_FOLDER, file)
            _libc("syscall", 445, ruleset, 1, rule, 0)
            os.close(file)
    _libc("syscall", 446, ruleset, 0)
    os.close(ruleset)


def _restrict_calls():
    """seccomp: of the system calls, `CALLS` remain, and fcntl where it only asks or duplicates."""
    column, audit, fcntl = MACHINES[platform.machine()]
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06  # instructions; the numbers after them: how many to skip
    allow, refuse = (answer, 0, 0, 0x7FFF0000), (answer, 0, 0, 0x00050001)  # refuse: EPERM
    program = [(load, 0, 0, 4), (equal, 1, 0, audit), refuse, (load, 0, 0, 0)]  # another machine's calls; the number
    numbers = [call.split()[1 + column] for call in CALLS.split(",")]
    for number in numbers:
        program += [(equal, 0, 1, int(number)), allow] if number != "-" else []
    program += [(equal, 0, 5, fcntl), (load, 0, 0, 24), (equal, 1, 0, 1030), (at_least, 1, 0, 5), allow, refuse, refuse]
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code)
    _libc("prctl", 22, 2, struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer)), 0, 0)  # PR_SET_SECCOMP


class ImportGuard(importlib.abc.MetaPathFinder):
    """Refuses the packages that an exercise is to do without, in words that its hint can show."""

    def __init__(self, exercise, torch):
        self.exercise, self.torch = exercise, torch

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        library = top in sys.stdlib_module_names or top.startswith("_")
        refused = top in BESIDE_TORCH[1:] if self.torch else not library and top not in ("cs231n", *PACKAGES)
        if refused:
            means = f"{'PyTorch' if self.torch else 'NumPy'} alone, without {top}"
            raise ModuleNotFoundError(f"exercise {self.exercise} is to be written in {means}", name=top)


def _child():
    """The module `child.py`, loaded by its path, since the package grading is not on sys.path here."""
    spec = importlib.util.spec_from_file_location("child", GRADING / "child.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["child"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def main():
    settings = json.loads(sys.argv[1])
    sites, torch = settings["sites"], settings["torch"]
    sys.path += dict.fromkeys(sites)
    sys.dont_write_bytecode = True
    tempfile.tempdir = "/tmp"  # a name: nothing can be written there
    child = _child()  # and with it NumPy
    if torch:
        importlib.import_module("torch")  # its libraries take address space, which is not the learner's
    read = [*settings["folders"], *_readable(sites, torch)]
    sys.meta_path.insert(0, ImportGuard(settings["exercise"], torch))
    _limit(settings["seconds"], settings["memory"])
    if sys.platform == "linux":
        _give_up_privileges()
    if _landlock_version() >= 1:
        _restrict_files(read, [*sites, *_library()])
    if _has_seccomp():
        _restrict_calls()
    child.main()


if __name__ == "__main__":
    main()
