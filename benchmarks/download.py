"""How much a download fetches twice: its process killed at random moments, then run to the end.

    python -m benchmarks.download [--kills 20] [--size 400] [--rate 150]

A hub on this PC serves one file of `--size` MB at `--rate` MB/s (0: as fast as it goes). Prints the bytes that
the server sent beyond the file's own, for each kill, and the speed against a plain httpx download of it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ["HEARTH_OFFLINE"] = "0"
os.environ["HEARTH_SPARE_DISK"] = "0"

from chatbot.errors import Cancelled
from chatbot.models import making
from chatbot.models.hub import Hub
from chatbot.models.journal import Journal, journal_of
from tests.models.hub_server import HubServer, serving

REPO, FILE = "student/large", "model.safetensors"


def fetch(hub: HubServer, target: Path, report: Callable[..., None]) -> dict[str, Any]:
    with Hub() as opened:
        model = opened.model(REPO)
    files = [asdict(file) for file in model.files]
    return making.run("download", report, online=True, target=target, repo=REPO,
                      revision=model.revision, files=files, endpoint=hub.url)  # fmt: skip


def killed_once(hub: HubServer, target: Path, share: float, size: int) -> tuple[int, int]:
    """Bytes sent beyond the file when it was killed at that share, and how far the journal was."""
    hub.sent.clear()

    def until(*_: Any, **__: Any) -> None:
        if hub.sent.get(FILE, 0) >= share * size:
            raise Cancelled  # `run` then kills the child: SIGKILL, no farewell

    try:
        fetch(hub, target, until)
    except Cancelled:
        good = Journal(journal_of(target)).good(FILE)
    else:
        good = size
    fetch(hub, target, lambda *_, **__: None)
    return hub.sent[FILE] - size, good


def plain(hub: HubServer) -> float:
    import httpx

    began = time.perf_counter()
    with tempfile.TemporaryFile() as file, httpx.stream(
        "GET", f"{hub.url}/{REPO}/resolve/main/{FILE}", follow_redirects=True, trust_env=False
    ) as answer:  # fmt: skip
        for block in answer.iter_bytes():
            file.write(block)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--size", type=int, default=400, help="MB")
    parser.add_argument("--rate", type=int, default=150, help="MB/s")
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    dice = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as folder, serving() as hub:
        content = Path(folder) / "content"
        content.write_bytes(dice.randbytes(1_000_000) * asked.size)
        os.environ["HF_ENDPOINT"] = hub.url
        hub.add(REPO, {FILE: content})
        hub.rate = asked.rate * 1e6
        twice = []
        for number in range(asked.kills):
            target = Path(folder) / f"{number}"
            share = dice.uniform(0.02, 0.98)
            more, good = killed_once(hub, target, share, content.stat().st_size)
            same = (target / FILE).read_bytes() == content.read_bytes()
            print(f"killed at {share:5.1%}, journal at {good / 1e6:6.1f} MB: {more / 1e6:5.2f} MB twice, right: {same}", flush=True)  # fmt: skip
            assert same
            (target / FILE).unlink()
            twice.append(more)
        hub.rate = 0
        began = time.perf_counter()
        figures = fetch(hub, Path(folder) / "whole", lambda *_, **__: None)["figures"]
        ours, theirs = time.perf_counter() - began, plain(hub)
        said = {
            "kills": asked.kills,
            "file_mb": asked.size,
            "twice_mb_most": round(max(twice) / 1e6, 2),
            "twice_mb_median": round(sorted(twice)[len(twice) // 2] / 1e6, 2),
            "mb_per_second_hashed_and_synced": round(asked.size / figures["seconds"], 1),
            "with_starting_the_child": round(asked.size / ours, 1),
            "mb_per_second_plain_httpx": round(asked.size / theirs, 1),
        }
        print(json.dumps(said))


if __name__ == "__main__":
    main()
