"""How the C library keeps memory that was given back."""

import ctypes
import platform

_ARENA_MAX = -8  # glibc's name for it in malloc.h is M_ARENA_MAX
_ARENAS = 2


def few_arenas() -> None:
    """Lets all threads share two heaps, where the C library is glibc; once, at the start.

    By default each thread that reads, decodes or writes gets a heap of its own, and blocks of a
    corpus that go from one thread to another leave holes in all of them: a sweep of 20,000 tracks
    then takes 40 % more memory, and more the longer it runs (`benchmarks.feeding`).
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_ARENA_MAX, _ARENAS)
