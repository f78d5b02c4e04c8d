"""Run `child.py` where a learner's code can do no harm: `python -I -S sandbox.py SETTINGS`, as `command` writes it.

The process reads only what it needs and writes nothing.  It starts no process and no thread, reaches no network and no
other process, and its time and memory are limited.  Linux enforces this with Landlock and seccomp, even for root; where
they are missing, as on macOS, it does not start, unless the instructor asked for a process without them, which only the
POSIX limits and `grading.rules` restrict.

Landlock: https://docs.kernel.org/userspace-api/landlock.html.  seccomp: `man 2 seccomp`, and the kernel's headers
linux/bpf_common.h (instructions), linux/seccomp.h (what they read and return) and linux/audit.h (machines).
"""

import contextlib
import ctypes
import errno
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

GRADING = Path(__file__).parents[1]  # holds child.py, drivers.py and rules.py
PACKAGES = ("numpy", "numpy.libs", "threadpoolctl", "tqdm", "filelock")  # all that the NumPy core imports
BESIDE_TORCH = (
    "cs231n",
    "__editable__",
    "scipy",
    "torchvision",
)  # prefixes of what a PyTorch exercise must not see

# Constants of Linux that Python does not name.
PR_SET_PDEATHSIG, PR_GET_SECCOMP, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 21, 22, 38  # operations of prctl
LINUX_CAPABILITY_VERSION_3 = 0x20080522  # of capset, which then takes three 32-bit masks, twice
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446  # system calls, on every machine
LANDLOCK_CREATE_RULESET_VERSION = 1  # a flag: return the version of Landlock, and create nothing
LANDLOCK_RULE_PATH_BENEATH = 1
WRITE_FILE, READ_FILE, READ_DIR = 1 << 1, 1 << 2, 1 << 3  # three of Landlock's rights of access to files
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many rights each version of Landlock knows; later ones, 16
NETWORK_RIGHTS = 0b11  # bind and connect TCP, from version 4
SCOPES = 0b11  # abstract Unix sockets and signals, from version 6
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_RET_ERRNO = 0x00050000  # the call fails, with the errno that is added
BPF_LOAD_WORD, BPF_JUMP_IF_EQUAL, BPF_JUMP_IF_AT_LEAST, BPF_RETURN = 0x20, 0x15, 0x35, 0x06  # codes of instructions
CALL_NUMBER, CALL_MACHINE, CALL_SECOND_ARGUMENT = 0, 4, 24  # offsets in struct seccomp_data, what a filter reads
FCNTL_HARMLESS, F_DUPFD_CLOEXEC = 5, 1030  # commands of fcntl: those below 5 duplicate a file, or get and set its flags

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
MACHINES = {"x86_64": (0, 0xC000003E, 72), "aarch64": (1, 0xC00000B7, 25)}  # column of CALLS, AUDIT_ARCH_*, fcntl


def command(exercise, folders, seconds, memory, unsandboxed=False):
    """The command that starts the process for an exercise, as a list.

    folders: which it may read in addition; seconds: the time that the grader allows; memory: bytes, in addition to
    those in use when the learner's code starts; unsandboxed: whether to go on without Landlock or seccomp.
    """
    settings = {
        "exercise": exercise.id,
        "torch": exercise.uses_torch,
        "sites": [str(Path(importlib.util.find_spec(name).origin).parent.parent) for name in ("numpy", "torch")],
        "folders": list(map(str, folders)),
        "seconds": 2 * int(seconds) + 5,  # of processor time; the grader's own limit, on the clock, comes first
        "memory": memory,
        "unsandboxed": unsandboxed,
    }
    return [sys.executable, "-I", "-S", __file__, json.dumps(settings)]


def _readable(sites, torch):
    """Paths of Python's library, of shared libraries, and of the only installed packages that an exercise may use."""
    for folder in _library():
        yield from (path for path in Path(folder).iterdir() if path.name not in ("site-packages", "dist-packages"))
    for folder in map(Path, ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", f"{sys.base_prefix}/lib")):
        yield from (path for path in folder.glob("*") if ".so" in path.name or "-linux-" in path.name)
    yield from (GRADING / "drivers.py", GRADING / "rules.py", "/etc/ld.so.cache", "/dev/urandom")
    yield from ("/proc/self/maps", "/proc/cpuinfo", "/sys/devices/system/cpu")
    for name in PACKAGES:
        yield from (Path(sites[0], name), Path(sites[0], f"{name}.py"))
    if torch:
        yield from (path for path in Path(sites[1]).iterdir() if not path.name.startswith(BESIDE_TORCH))


def _library():
    """The folders of Python's own library."""
    return {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}


def not_enforced():
    """What this system cannot keep a submission from, as a list of phrases; empty where everything is enforced."""
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
    """The version of Landlock; 0 where there is none."""
    try:
        if sys.platform != "linux" or platform.machine() not in MACHINES:
            return 0
        return _libc("syscall", LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION)
    except OSError:
        return 0


def _has_seccomp():
    try:
        known = sys.platform == "linux" and platform.machine() in MACHINES
        return known and _libc("prctl", PR_GET_SECCOMP, 0, 0, 0, 0) >= 0
    except OSError:
        return False


def _limit(seconds, memory):
    """Set the POSIX limits of time, memory, files and processes."""
    size = 0
    with contextlib.suppress(OSError):
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        Path("/proc/self/oom_score_adj").write_text("1000")  # if memory runs out, the kernel ends this process first
    limits = {"CPU": seconds, "AS": size + memory, "FSIZE": 0, "NOFILE": 64, "CORE": 0, "NPROC": 0}
    for name, limit in limits.items():
        with contextlib.suppress(ValueError, OSError):  # macOS has no limit of memory
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))


def _end_with_grader():
    """Make the kernel end this process with the grader's.

    Had the grader's ended before this call, the pipe would end here too: the grader sends no request that runs a
    learner's code until it has read an answer to the first.
    """
    _libc("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _give_up_privileges():
    """Drop the capabilities of root, and never gain any."""
    this_process, no_capabilities = 0, bytes(24)
    _libc("capset", struct.pack("Ii", LINUX_CAPABILITY_VERSION_3, this_process), no_capabilities)
    _libc("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _restrict_files(read, listed):
    """Landlock: allow reading the files and folders read and listing the folders listed; refuse everything else."""
    version = _landlock_version()
    handled = (1 << FILE_RIGHTS.get(version, 16)) - 1  # all that this version knows: what no rule allows is refused
    network, scopes = NETWORK_RIGHTS if version >= 4 else 0, SCOPES if version >= 6 else 0
    attributes = struct.pack("QQQ", handled, network, scopes)
    ruleset = _libc("syscall", LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    allowed = [*((path, READ_FILE | READ_DIR) for path in read), *((path, READ_DIR) for path in listed)]
    for path, rights in [*allowed, ("/dev/null", READ_FILE | WRITE_FILE)]:
        with contextlib.suppress(FileNotFoundError):
            file = os.open(path, os.O_PATH)
            rule = struct.pack("=Qi", rights if os.path.isdir(path) else rights & ~READ_DIR, file)
            _libc("syscall", LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, rule, 0)
            os.close(file)
    _libc("syscall", LANDLOCK_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _restrict_calls():
    """seccomp: of the system calls, allow `CALLS`, and fcntl where it only asks or duplicates."""
    program = _filter(*MACHINES[platform.machine()])
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in program))
    filter_program = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    _libc("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter_program, 0, 0)


def _filter(column, machine, fcntl):
    """The BPF program: instructions (code, how many to skip if true, how many to skip if false, operand).

    column: of `CALLS`; machine: its AUDIT_ARCH number; fcntl: the number of that call.
    """
    allow = (BPF_RETURN, 0, 0, SECCOMP_RET_ALLOW)
    refuse = (BPF_RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.EPERM)

    def load(offset):
        return (BPF_LOAD_WORD, 0, 0, offset)

    def unless_equal_skip(number, skipped):
        return (BPF_JUMP_IF_EQUAL, 0, skipped, number)

    def if_equal_skip(number, skipped):
        return (BPF_JUMP_IF_EQUAL, skipped, 0, number)

    # x86-64 also takes the calls of 32-bit programs, with numbers of their own.
    program = [load(CALL_MACHINE), if_equal_skip(machine, 1), refuse, load(CALL_NUMBER)]
    for call in CALLS.split(","):
        number = call.split()[1 + column]
        if number != "-":
            program += [unless_equal_skip(int(number), 1), allow]
    asks_or_duplicates = [
        load(CALL_SECOND_ARGUMENT),
        if_equal_skip(F_DUPFD_CLOEXEC, 1),  # to allow
        (BPF_JUMP_IF_AT_LEAST, 1, 0, FCNTL_HARMLESS),  # to refuse
        allow,
        refuse,
    ]
    return [*program, unless_equal_skip(fcntl, len(asks_or_duplicates)), *asks_or_duplicates, refuse]


def _child():
    """The module `child.py`, loaded by its path, since the package grading is not on sys.path here."""
    spec = importlib.util.spec_from_file_location("child", GRADING / "child.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["child"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def main():
    settings = json.loads(sys.argv[1])
    if sys.platform == "linux":
        _end_with_grader()
    if (missing := not_enforced()) and not settings["unsandboxed"]:
        sys.exit(f"this system does not keep submissions from {' or from '.join(missing)}")
    sites, torch = settings["sites"], settings["torch"]
    sys.path += dict.fromkeys(sites)
    sys.dont_write_bytecode = True
    tempfile.tempdir = "/tmp"  # its name alone: nothing can be written there
    child = _child()  # and with it NumPy
    if torch:
        importlib.import_module("torch")  # first, so that the limit on memory does not count its libraries
    read = [*settings["folders"], *_readable(sites, torch)]
    _limit(settings["seconds"], settings["memory"])
    if sys.platform == "linux":
        _give_up_privileges()
    if _landlock_version() >= 1:
        _restrict_files(read, [*sites, *_library()])
    if _has_seccomp():
        _restrict_calls()
    child.main("torch" if torch else "numpy", settings["exercise"])


if __name__ == "__main__":
    main()
