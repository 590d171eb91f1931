"""The system calls that a generated program may not make, as a seccomp filter (docs/evaluation.md §3.2).

    filter_program(machine, writing)    bytes for prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, …)

The kernel runs the filter, a small program in classic BPF, at every system call of a fork:

    wrong architecture, or x32 ──▶ kill            the numbers below would mean other calls there
    newer than LAST_KNOWN ───────▶ ENOSYS          what later kernels add stays closed until somebody looked at it
    flags that no filter sees ───▶ ENOSYS          C libraries then fall back to an older call
    in FILTERED ─────────────────▶ look at one argument
    in DENIED ───────────────────▶ EPERM           the program gets an ordinary PermissionError and can go on
    anything else ───────────────▶ the call is made

It exists for x86_64 and aarch64. This file uses the standard library only, since the isolated interpreter reads it;
libseccomp would also need 9 ms to build the filter in every fork.
"""

import errno
import struct

# name: (x86_64, aarch64); None where the architecture lacks the call. The tests compare them with the kernel's headers.
# It lists the denied calls and not the allowed ones: programs may use any library, and a library any harmless call.
DENIED: dict[str, tuple[int | None, int | None]] = {
    # New processes and programs: they would escape the limits of the fork and outlast it.
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    # Sockets: Landlock closes TCP only, and only from ABI 4 on; a program has nobody to talk to.
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "accept": (43, 202), "accept4": (288, 242),
    "bind": (49, 200), "listen": (50, 201), "sendto": (44, 206), "recvfrom": (45, 207), "sendmsg": (46, 211),
    "recvmsg": (47, 212), "sendmmsg": (307, 269), "recvmmsg": (299, 243), "shutdown": (48, 210),
    "setsockopt": (54, 208), "getsockopt": (55, 209), "getsockname": (51, 204), "getpeername": (52, 205),
    # Signals: a private user shares its number with nobody, an ordinary user with the judge itself.
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    # Other processes' memory and files: the judge holds the expected outputs.
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "kcmp": (312, 272), "get_robust_list": (274, 100),
    "move_pages": (279, 239), "migrate_pages": (256, 238), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    # Interfaces with a long history of faults in the kernel, or that make calls past this filter (io_uring).
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "io_setup": (206, 0),
    "io_submit": (209, 2), "io_cancel": (210, 3), "io_destroy": (207, 1), "io_getevents": (208, 4),
    "io_pgetevents": (333, 292), "bpf": (321, 280), "seccomp": (317, 277), "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445), "landlock_restrict_self": (446, 446), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "syslog": (103, 116), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "nfsservctl": (180, 42), "lookup_dcookie": (212, 18), "uselib": (134, None),
    "ustat": (136, None), "sysfs": (139, None), "_sysctl": (156, None), "personality": (135, 92),
    "modify_ldt": (154, None), "iopl": (172, None), "ioperm": (173, None), "vhangup": (153, 58),
    "create_module": (174, None), "get_kernel_syms": (177, None), "query_module": (178, None),
    # Shared memory, queues and locks outlive a process, so two programs could talk through them.
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "shmdt": (67, 197), "semget": (64, 190),
    "semop": (65, 193), "semtimedop": (220, 192), "semctl": (66, 191), "msgget": (68, 186), "msgsnd": (69, 189),
    "msgrcv": (70, 188), "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181),
    "mq_timedsend": (242, 182), "mq_timedreceive": (243, 183), "mq_notify": (244, 184), "mq_getsetattr": (245, 185),
    "flock": (73, 32),
    # Mounts and namespaces: in a namespace of its own a program would be root.
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "unshare": (272, 97), "setns": (308, 268), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "open_tree": (428, 428), "move_mount": (429, 429), "mount_setattr": (442, 442),
    # Files: names, owners, times and sizes. Landlock leaves out owners, modes, times and attributes.
    "creat": (85, None), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None),
    "unlinkat": (263, 35), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "link": (86, None),
    "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36), "mknod": (133, None), "mknodat": (259, 33),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "chown": (92, None), "fchown": (93, 55),
    "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "truncate": (76, 45), "ftruncate": (77, 46), "fallocate": (285, 47), "sync": (162, 81), "syncfs": (306, 267),
    "fsync": (74, 82), "fdatasync": (75, 83), "sync_file_range": (277, 84), "copy_file_range": (326, 285),
    "splice": (275, 76), "tee": (276, 77), "vmsplice": (278, 75), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "inotify_init": (253, None), "inotify_init1": (294, 26), "inotify_add_watch": (254, 27),
    "inotify_rm_watch": (255, 28), "fanotify_init": (300, 262), "fanotify_mark": (301, 263),
    # Identity and sessions: a program stays who it is, and in the session that is killed with it.
    "setuid": (105, 146), "setgid": (106, 144), "setreuid": (113, 145), "setregid": (114, 143),
    "setresuid": (117, 147), "setresgid": (119, 149), "setfsuid": (122, 151), "setfsgid": (123, 152),
    "setgroups": (116, 159), "capset": (126, 91), "setpgid": (109, 154), "setsid": (112, 157),
    # Clock, priority, placement: they would disturb the tests that run beside it.
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    "sethostname": (170, 161), "setdomainname": (171, 162), "setpriority": (141, 140), "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118),
    "sched_setattr": (314, 274), "set_mempolicy": (238, 237), "mbind": (237, 235),
    "set_mempolicy_home_node": (450, 450), "mlock": (149, 228), "mlock2": (325, 284), "mlockall": (151, 230),
}  # fmt: skip

# Calls that ordinary programs need, though not with every argument.
FILTERED: dict[str, tuple[int | None, int | None]] = {
    "open": (2, None), "openat": (257, 56), "clone": (56, 220), "fcntl": (72, 25), "ioctl": (16, 29),
    "prctl": (157, 167), "prlimit64": (302, 261),
}  # fmt: skip
# Their flags lie in memory, where a filter cannot look. ENOSYS makes C libraries use clone and openat instead.
ABSENT = {"clone3": (435, 435), "openat2": (437, 437)}
LAST_KNOWN = 450  # set_mempolicy_home_node, Linux 5.17
MACHINES = ("x86_64", "aarch64")
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_BIT = 0x40000000

# Arguments that pass; all others of these calls fail with EPERM. fcntl must not lock files, name the owner of a signal
# or seal; ioctl must not push characters into a terminal or claim it; prctl must not change what `confine` has set.
FCNTL = (0, 1, 2, 3, 4, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC
IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
PRCTL = (15, 16)  # PR_SET_NAME, PR_GET_NAME
WRITING = 0o1 | 0o2 | 0o100 | 0o1000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC
CLONE_THREAD, CLONE_NEW_ANY = 0x10000, 0x7E020000

ALLOW, KILL = 0x7FFF0000, 0x80000000
DENY, NO_SUCH_CALL = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
_LOAD, _EQUAL, _GREATER, _BITS, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06  # BPF instructions on 32-bit words
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data; low halves of the arguments, 8 bytes apart

# (operation, steps to skip if true, steps to skip if false, value). A filter only jumps forward, so each call below is
# a block of its own that the others skip. An argument's upper half is not looked at: the kernel ignores it here, too.
Step = tuple[int, int, int, int]


def _only(number: int, argument: int, values: tuple[int, ...]) -> list[Step]:
    """The call passes when its argument is one of the values."""
    matches = [(_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
    return [
        (_EQUAL, 0, len(values) + 3, number), (_LOAD, 0, 0, _ARGUMENTS + 8 * argument), *matches,
        (_RETURN, 0, 0, DENY), (_RETURN, 0, 0, ALLOW),
    ]  # fmt: skip


def _without(number: int, argument: int, bits: int) -> list[Step]:
    """The call passes when its argument has none of the bits."""
    return [
        (_EQUAL, 0, 4, number), (_LOAD, 0, 0, _ARGUMENTS + 8 * argument), (_BITS, 0, 1, bits),
        (_RETURN, 0, 0, DENY), (_RETURN, 0, 0, ALLOW),
    ]  # fmt: skip


def _threads_only(number: int) -> list[Step]:
    """clone passes when it makes a thread in the same namespaces."""
    return [
        (_EQUAL, 0, 5, number), (_LOAD, 0, 0, _ARGUMENTS), (_BITS, 0, 2, CLONE_THREAD), (_BITS, 1, 0, CLONE_NEW_ANY),
        (_RETURN, 0, 0, ALLOW), (_RETURN, 0, 0, DENY),
    ]  # fmt: skip


def filter_program(machine: str, writing: bool) -> bytes:
    """The filter: BPF instructions of 8 bytes each.

    machine: x86_64 or aarch64, otherwise ValueError. writing: whether Landlock (from ABI 3 on) decides about opening
    files for writing; if not, the filter denies it altogether.
    """
    if machine not in MACHINES:
        raise ValueError(f"machine {machine!r}: there is a filter for {' and '.join(MACHINES)} only")
    column = MACHINES.index(machine)
    number = {name: call for name, numbers in FILTERED.items() if (call := numbers[column]) is not None}
    # The architecture comes first: a 32-bit call of a 64-bit program has the same number as quite another call.
    steps = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, AUDIT_ARCH[machine]), (_RETURN, 0, 0, KILL), (_LOAD, 0, 0, _NUMBER)]
    if machine == "x86_64":
        steps += [(_BITS, 0, 1, X32_BIT), (_RETURN, 0, 0, KILL)]
    steps += [(_GREATER, 0, 1, LAST_KNOWN), (_RETURN, 0, 0, NO_SUCH_CALL)]
    for absent in ABSENT.values():
        steps += [(_EQUAL, 0, 1, absent[column]), (_RETURN, 0, 0, NO_SUCH_CALL)]
    for name, argument in () if writing else (("open", 1), ("openat", 2)):
        steps += _without(number[name], argument, WRITING) if name in number else []
    steps += _threads_only(number["clone"])
    steps += _only(number["fcntl"], 1, FCNTL) + _only(number["ioctl"], 1, IOCTL) + _only(number["prctl"], 0, PRCTL)
    # Process 0 is the caller itself. Otherwise a program could lower the limits of another one of the same user.
    steps += _only(number["prlimit64"], 0, (0,))
    for denied in sorted(call for numbers in DENIED.values() if (call := numbers[column]) is not None):
        steps += [(_EQUAL, 0, 1, denied), (_RETURN, 0, 0, DENY)]
    steps += [(_RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("HBBI", *step) for step in steps)
