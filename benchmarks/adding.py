"""What adding costs: prepared passages against a bare Chroma, and a folder that did not change.

    python -m benchmarks.adding [--passages 10000] [--rounds 3] [--documents 1000]

Prepared: the passages and their vectors are made; Hearth commits them to SQLite (each document durable on
its own), to Chroma and to tantivy, and is done when all are findable. Bare Chroma adds the same ids and
vectors with the same graph, without texts. In turn, so that a busy machine is busy for both.
Prints one JSON object; seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import corpus
from benchmarks.search import Watch, _cpu, _processes
from chatbot.database import Database
from chatbot.library.chunking import Draft
from chatbot.library.embedders import SURFACE, SurfaceEmbedder, stamp_of
from chatbot.library.index import Index
from chatbot.library.index_chroma import ChromaIndex
from chatbot.library.readers import Reading
from chatbot.library.store import DocumentStore
from chatbot.settings import PROJECT, Paths
from chatbot.types import PageText, ReadDocument

Prepared = list[tuple[Reading, Any]]


def prepared(count: int) -> Prepared:
    """Documents of fifty passages as reading and embedding leave them."""
    texts = corpus.passages(2 * count)[count:]  # not the ones at the start, which are alike
    embedder = SurfaceEmbedder()
    made: Prepared = []
    for start in range(0, count, corpus.PER_DOCUMENT):
        part = texts[start : start + corpus.PER_DOCUMENT]
        drafts, place = [], 0
        for name, text in part:
            drafts.append(Draft(text, place, place + len(text), 1, name))
            place += len(text)
        pages = (PageText("".join(text for _, text in part), 1),)
        vectors = embedder.embed([f"{name}\n{text}" for name, text in part], "passage")
        made.append((Reading(ReadDocument(pages), tuple(drafts), "vi"), vectors))
    return made


def hearth(documents: Prepared, folder: Path) -> dict[str, float]:
    paths = Paths(folder)
    paths.make()
    database = Database(paths.database)
    store = DocumentStore(database, paths)
    index = Index(database, paths.index, SURFACE, corpus.CHUNKER)
    stamp = stamp_of(SurfaceEmbedder(), corpus.CHUNKER)
    kept = [
        store.keep(f"{number}".encode(), f"tài liệu {number}.txt").document.id
        for number in range(len(documents))
    ]
    index.wait_ready(120)
    processes = _processes(index)
    before, started = sum(map(_cpu, processes)), time.monotonic()
    for document_id, (reading, vectors) in zip(kept, documents, strict=True):
        store.commit(document_id, reading, stamp, vectors)
        index.announce([document_id])
    committed = time.monotonic() - started
    index.wait_ready(600)
    seconds = time.monotonic() - started
    figures = {
        "seconds": seconds,
        "committed_after": committed,
        "cpu": sum(map(_cpu, processes)) - before,
    }
    assert len(index.query("quy định", 50).hits) >= 50
    index.close()
    database.close()
    return figures


def bare(documents: Prepared, folder: Path) -> dict[str, float]:
    chroma = ChromaIndex(folder)
    ids = [f"{n:032x}-{m}" for n, (_, vectors) in enumerate(documents) for m in range(len(vectors))]
    vectors = np.vstack([vectors for _, vectors in documents])
    before, started = time.process_time(), time.monotonic()
    for start in range(0, len(ids), 5000):
        part = slice(start, start + 5000)
        chroma._collection.add(ids=ids[part], embeddings=vectors[part])
    figures = {"seconds": time.monotonic() - started, "cpu": time.process_time() - before}
    chroma.close()
    return figures


def adding(count: int, rounds: int) -> dict[str, Any]:
    documents = prepared(count)
    runs: dict[str, list[dict[str, float]]] = {"chroma": [], "hearth": []}
    ways: tuple[tuple[str, Callable[[Prepared, Path], dict[str, float]]], ...] = (
        ("chroma", bare),
        ("hearth", hearth),
    )
    for _ in range(rounds):
        for name, way in ways:
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                runs[name].append(way(documents, Path(folder)))
    medians = {
        name: {key: round(statistics.median(run[key] for run in made), 2) for key in made[0]}
        for name, made in runs.items()
    }
    pairs = list(zip(runs["hearth"], runs["chroma"], strict=True))
    return {
        "passages": count,
        **medians,
        "hearth_over_chroma": round(
            statistics.median(ours["seconds"] / theirs["seconds"] for ours, theirs in pairs), 2
        ),
        "cpu_over_chroma": round(
            statistics.median(ours["cpu"] / theirs["cpu"] for ours, theirs in pairs), 2
        ),
    }


def adding_again(count: int, rounds: int) -> dict[str, Any]:
    """A folder that was added is added again, unchanged: by a running owner, and by the command line on its own."""
    from chatbot.api.commands import documents_add
    from chatbot.services import close_services, open_services

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder = Path(place) / "tài liệu"
        folder.mkdir()
        texts = corpus.passages(4 * count)
        for number in range(count):
            text = "\n\n".join(text for _, text in texts[4 * number : 4 * number + 4])
            (folder / f"văn bản {number:04}.txt").write_text(text, encoding="utf-8")
        data = Path(place) / "data"
        services = open_services(Paths(data))
        watch = Watch()

        def add() -> list[Any]:
            rows: list[Any] = documents_add(services, [str(folder)])["documents"]
            return rows

        # Ready without the reader, whose time is not the question here.
        stamp, embedder = services.index.stamp, SurfaceEmbedder()
        for document in services.ingest.add([folder]):
            text = services.store.file(document.id).read_text(encoding="utf-8")
            drafts = (Draft(text, 0, len(text), 1, ""),)
            reading = Reading(ReadDocument((PageText(text, 1),)), drafts, "vi")
            vectors = embedder.embed([text], "passage")
            services.store.commit(document.id, reading, stamp, vectors)
        services.index.announce([document.id for document in services.store.list()])
        services.wait_until_read()
        documents = add()
        assert {row["state"] for row in documents} == {"ready"}, documents[:3]
        for _ in range(rounds):
            again: list[list[Any]] = []
            watch.time(lambda kept=again: kept.append(add()), time.process_time)
            assert [row["id"] for row in again[0]] == [row["id"] for row in documents]
        close_services()
        started = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "chatbot", "documents", "add", str(folder), "--json"],
            cwd=PROJECT, env={**os.environ, "HEARTH_DATA": str(data)}, capture_output=True, check=True,
        )  # fmt: skip
        alone = time.monotonic() - started
    return {
        "documents": count,
        "again_seconds": round(statistics.median(watch.wall) / 1000, 2),
        "again_cpu_seconds": round(statistics.median(watch.cpu) / 1000, 2),
        "again_by_the_command_alone_seconds": round(alone, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--passages", type=int, default=10_000)
    parser.add_argument("--documents", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    figures: dict[str, Any] = {}
    if chosen.passages:
        figures["prepared passages"] = adding(chosen.passages, chosen.rounds)
    if chosen.documents:
        figures["an unchanged folder"] = adding_again(chosen.documents, chosen.rounds)
    json.dump(figures, sys.stdout, ensure_ascii=False, indent=1)


if __name__ == "__main__":
    main()
