"""What a process that runs a learner's code may not do, set by that process before the code is imported.

On every platform an audit hook refuses, with a PermissionError that says so, what Python code does by accident: to
write, move or delete outside of the scratch folder, to start or end processes, to use the network, and to read the
reference of the chapter or its tests. Code that goes past Python (ctypes, an extension module) goes past the hook.

On Linux the kernel refuses it too, to whatever code: Landlock (from 5.13) the writing, and the reading of what lies
outside of Python's own folders; seccomp (x86-64 and ARM) new processes; limits hold memory, CPU time and the size of
files. On macOS the limits on CPU time and file size hold, and memory is watched by the parent, as on Windows, which
has none of them. What the code does to the values that its own process sends, nothing prevents: the parent compares
them with its own."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["confine", "limit", "more_memory", "watch"]

# ## The audit hook

PATHS = {  # events, and which of their arguments are paths of what is changed
    "os.chflags": (0,),
    "os.chmod": (0,),
    "os.chown": (0,),
    "os.link": (0, 1),
    "os.mkdir": (0,),
    "os.remove": (0,),
    "os.removexattr": (0,),
    "os.rename": (0, 1),
    "os.rmdir": (0,),
    "os.setxattr": (0,),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "os.utime": (0,),
    "sqlite3.connect": (0,),
}
DESCRIPTORS = {"os.chmod": 2, "os.mkdir": 2, "os.remove": 1, "os.rename": 2, "os.rmdir": 1}  # the dir_fd of the first
REFUSED = {
    **dict.fromkeys(("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn"), "starting a process"),
    **dict.fromkeys(("os.startfile", "os.system", "pty.spawn", "subprocess.Popen"), "starting a process"),
    **dict.fromkeys(("_winapi.CreateProcess",), "starting a process"),
    **dict.fromkeys(("os.kill", "os.killpg", "_winapi.TerminateProcess"), "ending a process"),
    **dict.fromkeys(("socket.bind", "socket.connect", "socket.sendmsg", "socket.sendto"), "using the network"),
    **dict.fromkeys(("socket.getaddrinfo", "socket.gethostbyaddr", "socket.gethostbyname"), "using the network"),
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def watch(scratch: Path, hidden: Iterable[str]) -> None:
    """Refuse from now on, for good, what a chapter has no need to do."""
    inside, secrets = os.path.realpath(scratch), tuple(map(os.path.realpath, hidden))
    realpath, join, fsdecode, separator, devices = os.path.realpath, os.path.join, os.fsdecode, os.sep, {os.devnull}

    def refuse(what):
        raise PermissionError(f"{what} is refused while a chapter is judged")

    def is_below(path, folder):
        return path == folder or path.startswith(folder + separator)

    def change(path, descriptor=-1):
        if isinstance(path, int):
            return  # a file that is open
        path = fsdecode(path)
        if descriptor not in (None, -1):
            path = join(_folder_of(descriptor), path)
        if path not in devices and not is_below(realpath(path), inside):
            refuse(f"writing to {path}, which is outside of the scratch folder,")

    def hook(event, arguments):
        if event == "open":
            path, mode, flags = arguments
            if (mode and not set("wax+").isdisjoint(mode)) or (mode is None and flags & WRITING):
                change(path)
            elif not isinstance(path, int) and any(is_below(realpath(path), secret) for secret in secrets):
                refuse(f"reading {fsdecode(path)}")
        elif event in PATHS:
            descriptor = arguments[DESCRIPTORS[event]] if event in DESCRIPTORS else -1
            for index in PATHS[event]:
                change(arguments[index], descriptor)
        elif event in REFUSED:
            refuse(REFUSED[event])

    sys.addaudithook(hook)


def _folder_of(descriptor: int) -> str:
    if sys.platform == "darwin":
        import fcntl

        return os.fsdecode(fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
    return os.readlink(f"/proc/self/fd/{descriptor}")


# ## Limits


SPARE = 64 << 20  # for saying that the memory is spent
LARGEST_FILE = 64 << 20


def limit(memory: int, seconds: int) -> None:
    """Bound the address space, CPU time and files of this process, where the platform can."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if sys.platform == "linux":
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory + SPARE))


def more_memory() -> None:
    """Make use of what is spared."""
    if sys.platform == "linux":
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


# ## What the Linux kernel refuses

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
EXECUTE, READ_FILE, READ_FOLDER = 1 << 0, 1 << 2, 1 << 3
ACCESS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many kinds of access to files each version of Landlock knows; then 16
ONLY_FOR_FOLDERS = READ_FOLDER | 0b1_1111_1111 << 4 | 1 << 13


def confine(scratch: Path, readable: Iterable[str]) -> None:
    """Have the kernel refuse, to this process and for good, what it can; nothing happens where it cannot."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _landlock(libc.syscall, scratch, readable)
    _no_processes(libc.prctl)


def _landlock(syscall, scratch: Path, readable: Iterable[str]) -> None:
    version = syscall(LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return
    everything = (1 << ACCESS.get(version, 16)) - 1
    network = 0b11 if version >= 4 else 0
    scopes = 0b11 if version >= 6 else 0
    attributes = struct.pack("QQQ", everything, network, scopes)
    size = 8 * (1 + (version >= 4) + (version >= 6))
    ruleset = syscall(LANDLOCK_CREATE, attributes, ctypes.c_size_t(size), 0)
    rules = dict.fromkeys(readable, EXECUTE | READ_FILE | READ_FOLDER)
    for path, access in {**rules, str(scratch): everything, os.devnull: everything}.items():
        try:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        allowed = access if os.path.isdir(path) else access & ~ONLY_FOR_FOLDERS
        syscall(LANDLOCK_ADD, ruleset, 1, struct.pack("=Qi", allowed & everything, opened), 0)
        os.close(opened)
    syscall(LANDLOCK_RESTRICT, ruleset, 0)
    os.close(ruleset)


MACHINES = {  # the kernel's name of the architecture, and its numbers of clone, clone3, execve, execveat, fork, vfork
    "x86_64": (0xC000003E, 56, 435, (59, 322, 57, 58)),
    "aarch64": (0xC00000B7, 220, 435, (221, 281)),
}
LOAD, EQUAL, AT_LEAST, HAS_BITS, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, REFUSE, UNKNOWN = 0x7FFF0000, 0x00050001, 0x00050026  # go on; EPERM; ENOSYS, for which libc tries clone
CLONE_THREAD = 0x00010000


def _no_processes(prctl) -> None:
    """A filter of system calls: clone makes threads only, fork and exec are refused."""
    if platform.machine() not in MACHINES:
        return
    architecture, clone, clone3, refused = MACHINES[platform.machine()]
    rest = [step for number in refused for step in ((EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE))]
    program = [
        *((LOAD, 0, 0, 4), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, REFUSE)),
        *((LOAD, 0, 0, 0), (AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, REFUSE)),  # calls of another kind, on x86
        *((EQUAL, 0, 1, clone3), (RETURN, 0, 0, UNKNOWN)),
        *rest,
        *((EQUAL, 0, 3, clone), (LOAD, 0, 0, 16), (HAS_BITS, 1, 0, CLONE_THREAD), (RETURN, 0, 0, REFUSE)),
        (RETURN, 0, 0, ALLOW),
    ]
    steps = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(steps)))
    prctl(PR_SET_SECCOMP, 2, header, 0, 0)
