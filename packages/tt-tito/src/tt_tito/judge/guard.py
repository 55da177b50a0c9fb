"""What a process that runs a learner's code may not do, set by that process before the code is imported.

On Linux the kernel refuses it, to whatever code. Landlock (from 5.13) refuses writing outside the scratch folder and
reading anything but Python and the packages, among them neither the reference of the chapter nor its tests. seccomp
(x86-64 and ARM) refuses processes, sockets, signals for others and what else reaches beyond the process. Limits hold
memory, CPU time, open files and the size of files. Where bubblewrap works (`box`), all this happens in namespaces that
hold nothing else.

On every platform an audit hook says the same in words, with a PermissionError, to Python code that does such things by
accident. It is not a boundary: code that tries gets past it. macOS and Windows have nothing else, except for the limits
on CPU time and the size of files on macOS; memory is watched by the parent there."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["confine", "has_filter", "landlock_version", "limit", "more_memory", "watch"]

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
    **dict.fromkeys(("socket.__new__",), "using the network"),
    **dict.fromkeys(("socket.getaddrinfo", "socket.gethostbyaddr", "socket.gethostbyname"), "using the network"),
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def watch(scratch: Path, hidden: Iterable[str]) -> None:
    """From now on, refuse operations that a chapter does not need, with a message that says so."""
    inside, secrets = os.path.realpath(scratch), tuple(map(os.path.realpath, hidden))
    realpath, join, fsdecode, separator, devices = os.path.realpath, os.path.join, os.fsdecode, os.sep, {os.devnull}
    paths, descriptors, refused = dict(PATHS), dict(DESCRIPTORS), dict(REFUSED)

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
            refuse(f"writing to {path}, which is outside the scratch folder,")

    def hook(event, arguments):
        if event == "open":
            path, mode, flags = arguments
            if (mode and not set("wax+").isdisjoint(mode)) or (mode is None and flags & WRITING):
                change(path)
            elif not isinstance(path, int) and any(is_below(realpath(path), secret) for secret in secrets):
                refuse(f"reading {fsdecode(path)}")
        elif event in paths:
            descriptor = arguments[descriptors[event]] if event in descriptors else -1
            for index in paths[event]:
                change(arguments[index], descriptor)
        elif event in refused:
            refuse(refused[event])

    sys.addaudithook(hook)


def _folder_of(descriptor: int) -> str:
    if sys.platform == "darwin":
        import fcntl

        return os.fsdecode(fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
    return os.readlink(f"/proc/self/fd/{descriptor}")


# ## Limits


SPARE = 64 << 20  # for saying that the memory is spent
LARGEST_FILE = 64 << 20
MOST_FILES = 256  # open at once


def limit(memory: int, seconds: int) -> None:
    """Bound the address space, CPU time and files of this process, where the platform can."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
        resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_FILES, MOST_FILES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if sys.platform == "linux":
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory + SPARE))


def more_memory() -> None:
    """Release the memory that was kept in reserve."""
    if sys.platform == "linux":
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


# ## What the Linux kernel refuses

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 15, 16, 22, 38
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
EXECUTE, READ_FILE, READ_FOLDER = 1 << 0, 1 << 2, 1 << 3
ACCESS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many kinds of access to files each version of Landlock knows; then 16
ONLY_FOR_FOLDERS = READ_FOLDER | 0b1_1111_1111 << 4 | 1 << 13


def confine(scratch: Path, readable: Iterable[str], hidden: Iterable[str], *, boxed: bool = False) -> None:
    """Let the kernel refuse what it can, permanently and for this process; nothing happens where it cannot. In a box,
    which shows nothing to change, attributes of files may be changed."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0)
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # the parent looks at its open files
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _landlock(libc.syscall, scratch, readable, set(hidden))
    libc.capset(struct.pack("=Ii", 0x20080522, 0), bytes(24))  # for root, who needs none of the capabilities
    if platform.machine() in CALLS:
        steps = _filter(CALLS[platform.machine()], os.getpid(), boxed)
        program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
        header = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(program)))
        libc.prctl(PR_SET_SECCOMP, 2, header, 0, 0)


def landlock_version() -> int:
    """The version of Landlock that the kernel has; below 1 if it has none."""
    if sys.platform != "linux":
        return 0
    return int(ctypes.CDLL(None).syscall(LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1))


def has_filter() -> bool:
    """Whether there is a filter of system calls for this machine."""
    return sys.platform == "linux" and platform.machine() in CALLS


def _landlock(syscall, scratch: Path, readable: Iterable[str], hidden: set[str]) -> None:
    version = landlock_version()
    if version < 1:
        return
    everything = (1 << ACCESS.get(version, 16)) - 1
    network = 0b11 if version >= 4 else 0
    scopes = 0b11 if version >= 6 else 0
    attributes = struct.pack("QQQ", everything, network, scopes)
    size = 8 * (1 + (version >= 4) + (version >= 6))
    ruleset = syscall(LANDLOCK_CREATE, attributes, ctypes.c_size_t(size), 0)
    rules = {path: access for root in readable for path, access in _without(root, hidden)}
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


def _without(root: str, hidden: set[str]) -> Iterator[tuple[str, int]]:
    """Paths that together are all of a folder except for what is hidden in it, and what is allowed there."""
    ahead = [root]
    while ahead:
        path = ahead.pop()
        if path in hidden:
            continue
        if os.path.isdir(path) and any(secret.startswith(path + os.sep) for secret in hidden):
            yield path, READ_FOLDER
            ahead += [os.path.join(path, name) for name in os.listdir(path)]
        else:
            yield path, EXECUTE | READ_FILE | READ_FOLDER


# ## A filter of system calls
#
# Everything is allowed but what is named here: numbers on x86-64, on ARM, and from 424 on on both.

SAME = [424, 425, 426, 427, *range(428, 434), 434, 438, 440, 442, 443, 447, 448]  # pidfd_*, io_uring_*, mount, memfd_*
REFUSE_ALWAYS = {
    "x86_64": [
        *(59, 322, 57, 58),  # execve, execveat, fork, vfork
        *(41, 101, 310, 311, 312),  # socket, ptrace, process_vm_*, kcmp
        *(129, 297, 141, 251, 142, 144, 203, 314, 256, 279),  # signals with data, priorities and processors of others
        *(321, 298, 323, 248, 249, 250, 300),  # bpf, perf_event_open, userfaultfd, keys, fanotify_init
        *(155, 161, 165, 166, 167, 168, 272, 308, 303, 304),  # mounts, chroot, namespaces, files by their handles
        *(103, 135, 153, 154, 159, 163, 164, 169, 170, 171, 172, 173, 179, 212, 227, 305),  # what belongs to root
        *(175, 176, 246, 313, 320, 133, 259),  # modules, kexec, mknod
        *(29, 30, 31, 64, 65, 66, 220, 68, 69, 70, 71, 240, 241, 319),  # memory and queues that outlast a process
    ],
    "aarch64": [
        *(221, 281),
        *(198, 117, 270, 271, 272),
        *(138, 240, 140, 30, 118, 119, 122, 274, 238, 239),
        *(280, 241, 282, 217, 218, 219, 262),
        *(41, 51, 40, 39, 224, 225, 97, 268, 264, 265),
        *(116, 92, 58, 171, 89, 170, 142, 161, 162, 60, 18, 112, 266),
        *(105, 106, 104, 273, 294, 33),
        *(194, 195, 196, 190, 191, 192, 193, 186, 187, 188, 189, 180, 181, 279),
    ],
}
REFUSE_UNBOXED = {  # owner, rights, times and attributes of files, which Landlock does not hold
    "x86_64": [*range(90, 95), 132, 188, 189, 190, 197, 198, 199, 235, 260, 261, 268, 280, 452, 463, 466, 469],
    "aarch64": [5, 6, 7, 14, 15, 16, *range(52, 56), 88, 452, 463, 466, 469],
}


@dataclass(frozen=True)
class Calls:
    """The numbers of system calls on a kind of machine: its own number, the calls that are refused, and those that
    depend on their arguments."""

    machine: int
    refused: list[int]
    refused_unboxed: list[int]
    clone: int
    kill: tuple[int, int, int]  # kill, tkill, tgkill
    prlimit: int
    prctl: int
    fcntl: int
    ioctl: int


NUMBERS = [
    ("x86_64", 0xC000003E, 56, (62, 200, 234), 302, 157, 72, 16),
    ("aarch64", 0xC00000B7, 220, (129, 130, 131), 261, 167, 25, 29),
]
CALLS = {
    name: Calls(machine, [*REFUSE_ALWAYS[name], *SAME], REFUSE_UNBOXED[name], clone, kill, prlimit, prctl, fcntl, ioctl)
    for name, machine, clone, kill, prlimit, prctl, fcntl, ioctl in NUMBERS
}
CLONE3 = 435
FCNTL = (8, 10, 15, 1024, 1026)  # signals to others about a file, leases, notices
IOCTL = (0x8901, 0x8902, 0x5412, 0x541C, 0x40086602, 0x401C5820)  # the same, input of a terminal, flags of files
CLONE_THREAD = 0x00010000

Step = tuple[int, int, int, int]
LOAD, EQUAL, AT_LEAST, HAS_BITS, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, MACHINE, FIRST, SECOND = 0, 4, 16, 24  # where a filter finds the call, the machine and the arguments
ALLOW, REFUSE = (RETURN, 0, 0, 0x7FFF0000), (RETURN, 0, 0, 0x00050001)  # go on; EPERM
UNKNOWN = (RETURN, 0, 0, 0x00050026)  # ENOSYS, for which libc tries clone


def _filter(calls: Calls, pid: int, boxed: bool) -> list[Step]:
    """The filter program: clone may only make threads, and signals and limits may only concern this process."""
    refused = calls.refused + ([] if boxed else calls.refused_unboxed)
    kill, tkill, tgkill = calls.kill
    return [
        *((LOAD, 0, 0, MACHINE), (EQUAL, 1, 0, calls.machine), REFUSE),
        *((LOAD, 0, 0, NUMBER), (AT_LEAST, 0, 1, 0x40000000), REFUSE),  # calls of another kind, on x86
        *((EQUAL, 0, 1, CLONE3), UNKNOWN),
        *(step for number in refused for step in ((EQUAL, 0, 1, number), REFUSE)),
        *((EQUAL, 0, 3, calls.clone), (LOAD, 0, 0, FIRST), (HAS_BITS, 1, 0, CLONE_THREAD), REFUSE),
        *_only(kill, FIRST, [pid]),
        *_only(tkill, FIRST, []),
        *_only(tgkill, FIRST, [pid]),
        *_only(calls.prlimit, FIRST, [0, pid]),
        *_only(calls.prctl, FIRST, [PR_SET_NAME, PR_GET_NAME]),
        *_but(calls.fcntl, SECOND, FCNTL),
        *_but(calls.ioctl, SECOND, IOCTL),
        ALLOW,
    ]


def _only(number: int, place: int, allowed: Sequence[int]) -> list[Step]:
    """Allow a call only with these values of an argument."""
    inner = [step for value in allowed for step in ((EQUAL, 0, 1, value), ALLOW)]
    return _in_a_call(number, place, [*inner, REFUSE])


def _but(number: int, place: int, refused: Sequence[int]) -> list[Step]:
    """Refuse a call with these values of an argument."""
    inner = [step for value in refused for step in ((EQUAL, 0, 1, value), REFUSE)]
    return _in_a_call(number, place, [*inner, ALLOW])


def _in_a_call(number: int, place: int, steps: list[Step]) -> list[Step]:
    return [(LOAD, 0, 0, NUMBER), (EQUAL, 0, len(steps) + 1, number), (LOAD, 0, 0, place), *steps]
