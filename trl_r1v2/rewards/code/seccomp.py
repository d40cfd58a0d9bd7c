# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The system calls that sandboxed code may not make, as a seccomp program for `bwrap --seccomp`.

Scope: closes what namespaces and rlimits leave open: sockets (some families know no network namespace), memory that no
rlimit counts (System V shared memory, message queues, memfd, io_uring, watches, keys, pages pinned in pipes, record
locks), tampering with the sandbox's own init (ptrace), new namespaces and mounts, and rarely used kernel interfaces.
Does not cover: an allow-list; 32-bit x86.
"""

import errno
import platform
import struct


# (x86_64, aarch64), from asm/unistd_64.h and asm-generic/unistd.h; None where there is no such call.
_DENIED = {
    "socket": (41, 198), "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "io_setup": (206, 0), "inotify_init": (253, None),
    "inotify_init1": (294, 26), "inotify_add_watch": (254, 27), "fanotify_init": (300, 262), "vmsplice": (278, 75),
    "landlock_create_ruleset": (444, 444), "seccomp": (317, 277), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_getfd": (438, 438), "unshare": (272, 97),
    "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "open_by_handle_at": (304, 265),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "personality": (135, 92), "kexec_load": (246, 104),
    "init_module": (175, 105), "finit_module": (313, 273),
}  # fmt: skip
# Of fcntl, what makes kernel memory without a bound, from linux/fcntl.h: F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW,
# F_SETLEASE, F_NOTIFY, F_SETPIPE_SZ.
_FCNTL = (72, 25)
_DENIED_OF_FCNTL = (6, 7, 37, 38, 1024, 1026, 1031)
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH_*
_X32_BIT = 0x40000000

# linux/bpf_common.h and linux/seccomp.h
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_OFFSET_NUMBER, _OFFSET_ARCHITECTURE, _OFFSET_SECOND_ARGUMENT = 0, 4, 24


def seccomp_program(machine: str | None = None) -> bytes:
    """
    Classic BPF for `"x86_64"` or `"aarch64"`, by default this machine's: a denied call fails with `EPERM`; a call
    through another architecture's entry kills the process. Raises `RuntimeError` for other machines.
    """
    machine = machine or platform.machine()
    if machine not in _ARCHITECTURES:
        raise RuntimeError(f"The code sandbox knows the system calls of {sorted(_ARCHITECTURES)}, not of {machine!r}.")
    column, architecture = _ARCHITECTURES[machine]
    numbers = [pair[column] for pair in _DENIED.values() if pair[column] is not None]
    commands = len(_DENIED_OF_FCNTL)
    program = [
        (_LOAD, 0, 0, _OFFSET_ARCHITECTURE),
        (_JUMP_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _OFFSET_NUMBER),
        (_JUMP_IF_AT_LEAST, len(numbers) + commands + 3, 0, _X32_BIT),
    ]
    # Jumps count the instructions skipped: to the refusal, behind the remaining comparisons and the permission.
    program += [
        (_JUMP_IF_EQUAL, len(numbers) - index + commands + 2, 0, number) for index, number in enumerate(numbers)
    ]
    program += [(_JUMP_IF_EQUAL, 0, commands + 1, _FCNTL[column]), (_LOAD, 0, 0, _OFFSET_SECOND_ARGUMENT)]
    program += [(_JUMP_IF_EQUAL, commands - index, 0, number) for index, number in enumerate(_DENIED_OF_FCNTL)]
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
