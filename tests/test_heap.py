"""Threads share two heaps once that was asked for."""

import os
import platform
import subprocess
import sys

import pytest

COUNT = """
import ctypes, sys, threading
from pathlib import Path
from tda_jax import heap

if sys.argv[1] == "few":
    heap.few_arenas()
together = threading.Barrier(8)
def work():
    together.wait()
    kept = [bytes(2000) for _ in range(1000)]
    together.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
print(Path(sys.argv[2]).read_text().count("<heap nr="))
"""


def heaps(which, path):
    command = [sys.executable, "-c", COUNT, which, str(path)]
    env = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    return int(subprocess.check_output(command, text=True, env=env))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="counts heaps as glibc does")
def test_threads_share_heaps(tmp_path):
    assert heaps("many", tmp_path / "info") > 2
    assert heaps("few", tmp_path / "info") <= 2
