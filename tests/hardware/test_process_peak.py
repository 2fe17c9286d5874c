"""A process's peak is its own."""

from __future__ import annotations

import subprocess
import sys

from chatbot.hardware.process import peak

ASKED = "from chatbot.hardware.process import peak; print(peak())"


def test_what_the_parent_held_is_not_counted() -> None:
    large = bytearray(600_000_000)
    large[::4096] = b"x" * len(large[::4096])
    child = subprocess.run(
        [sys.executable, "-c", ASKED], capture_output=True, text=True, check=True
    )
    assert peak() > 600_000_000
    assert 1_000_000 < int(child.stdout) < 300_000_000


def test_another_process_and_one_that_is_gone() -> None:
    waiting = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(waiting, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        assert peak(other.pid) > 1_000_000
        other.communicate(b"\n")
    assert peak(other.pid) == 0
