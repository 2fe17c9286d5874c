"""How fast search is at 100,000 passages, side by side with the bare libraries on the very same vectors and words.

    python -m benchmarks.search [--passages 100000] [--rebuild] [--agreement]

The library is made once and kept (benchmarks/corpus.py; HEARTH_BENCH_CACHE). Every question is asked of
bare Chroma, of bare tantivy and of Hearth in turn, so that a busy machine is busy for all of them.
Milliseconds by the clock, and of processor time in all processes of Hearth ("cpu"), which other work on
the machine does not lengthen. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import corpus
from chatbot.database import Database
from chatbot.evaluation.metrics import percentile
from chatbot.library.embedders import SURFACE, SurfaceEmbedder, stamp_of
from chatbot.library.index import Index
from chatbot.library.index_chroma import ChromaIndex
from chatbot.library.index_lexical import LexicalIndex
from chatbot.retrieval.search import Search
from chatbot.types import SearchFilter

_CANDIDATES = 50


def data_folder(passages: int) -> tuple[Path, dict[str, Any]]:
    """A data folder with the library and a finished index, kept; and what building it took, if it was built now."""
    folder = corpus.CACHE / f"search-{passages}"
    if (folder / "built.json").exists():
        return folder, json.loads((folder / "built.json").read_text())
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(corpus.library(passages), folder / "hearth.db")
    with opened(folder) as (index, _):
        started = time.monotonic()
        index.wait_ready(7200)
        seconds = time.monotonic() - started
        built = {
            "build_seconds": round(seconds),
            "build_cpu_seconds": round(sum(_cpu(p) for p in _processes(index))),
            "built_per_second": round(passages / seconds),
        }
    (folder / "built.json").write_text(json.dumps(built))
    return folder, built


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[tuple[Index, Search]]:
    database = Database(folder / "hearth.db")
    index = Index(database, folder / "index", SURFACE, corpus.CHUNKER)
    try:
        yield index, Search(index)
    finally:
        index.close()
        database.close()


def first_search(folder: Path, question: str) -> dict[str, Any]:
    """Seconds from the start of the index to the first answer, and to an index with everything open."""
    started = time.monotonic()
    with opened(folder) as (index, search):
        found = search.find(question)
        first = time.monotonic() - started
        scanned = index.query(question).scanned
        index.wait_ready(600)
        ready = time.monotonic() - started
        same = [r.passage.id for r in search.find(question).results]
    before = [r.passage.id for r in found.results]
    return {
        "first_answer_seconds": round(first, 2),
        "read_from_sqlite": scanned,
        "all_open_seconds": round(ready, 2),
        "of_its_8_passages_later_too": len(set(before) & set(same)),
    }


class Bare:
    """Chroma and tantivy alone, in this process, on copies of the folders."""

    def __init__(self, folder: Path, place: Path) -> None:
        # Copies: merely opening Chroma writes, and Hearth would find its seal broken.
        for name in ("dense", "lexical"):
            (source,) = folder.glob(f"index/{name}-*/")
            shutil.copytree(source, place / name)
        self._chroma = ChromaIndex(place / "dense")
        self._words = LexicalIndex(place / "lexical")
        self._chroma.warm_up()
        self._embedder = SurfaceEmbedder()

    def vector(self, question: str) -> Any:
        return self._embedder.embed([question], "query")[0]

    def chroma(self, vector: Any) -> list[str]:
        return self._chroma.query(vector, _CANDIDATES)[0]

    def words(self, question: str) -> object:
        return self._words.query(question, _CANDIDATES)


class Watch:
    """Times of one thing, by the clock and by the processor."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def time(self, work: Callable[[], object], cpu: Callable[[], float]) -> None:
        before, started = cpu(), time.perf_counter()
        work()
        self.wall.append(1000 * (time.perf_counter() - started))
        self.cpu.append(1000 * (cpu() - before))

    def figures(self) -> dict[str, float]:
        return {
            "p50": round(percentile(self.wall, 0.5), 1),
            "p95": round(percentile(self.wall, 0.95), 1),
            "cpu_p50": round(percentile(self.cpu, 0.5), 1),
            "cpu_p95": round(percentile(self.cpu, 0.95), 1),
        }


def side_by_side(
    questions: list[str], bare: Bare, search: Search, processes: list[psutil.Process]
) -> dict[str, Any]:
    """Each question asked of all; and how Hearth compares with the sum of the bare libraries."""
    watches = {name: Watch() for name in ("chroma", "words", "hearth")}

    def everyone() -> float:
        return sum(map(_cpu, processes))

    for number, question in enumerate([*questions[:10], *questions]):
        vector = bare.vector(question)
        if number == 10:
            watches = {name: Watch() for name in watches}
        watches["chroma"].time(lambda v=vector: bare.chroma(v), time.process_time)
        watches["words"].time(lambda q=question: bare.words(q), time.process_time)
        watches["hearth"].time(lambda q=question: search.find(q), everyone)
    rounds = zip(*(watches[name].wall for name in ("chroma", "words", "hearth")), strict=True)
    processor = zip(*(watches[name].cpu for name in ("chroma", "words", "hearth")), strict=True)
    return {
        **{name: watch.figures() for name, watch in watches.items()},
        "hearth_over_both": round(statistics.median(h / (c + w) for c, w, h in rounds), 2),
        "cpu_over_both": round(statistics.median(h / (c + w) for c, w, h in processor), 2),
    }


def alone(
    questions: list[str], search: Search, processes: list[psutil.Process], **how: Any
) -> dict[str, float]:
    watch = Watch()
    for question in questions:
        watch.time(lambda q=question: search.find(q, **how), lambda: sum(map(_cpu, processes)))
    return watch.figures()


def agreement(folder: Path, bare: Bare, questions: list[str]) -> float:
    """The share of the exact ten nearest that Chroma's ten nearest hold; equal similarities count as equal."""
    database = Database(folder / "hearth.db")
    stamp = stamp_of(SurfaceEmbedder(), corpus.CHUNKER)
    rows = database.rows("SELECT passage_id, vector FROM vectors WHERE stamp = ?", (stamp,))
    database.close()
    matrix = np.frombuffer(b"".join(row["vector"] for row in rows), "<f4").reshape(len(rows), -1)
    places = {row["passage_id"]: number for number, row in enumerate(rows)}
    held = 0
    for question in questions:
        vector = bare.vector(question)
        exact = matrix @ vector
        tenth = np.partition(exact, -10)[-10] - 1e-6
        held += sum(exact[places[id_]] >= tenth for id_ in bare.chroma(vector)[:10])
    return round(held / 10 / len(questions), 4)


def rebuilt(folder: Path, questions: list[str]) -> dict[str, Any]:
    """A graph file is damaged: how soon the first answer, what answers cost meanwhile, how soon all is well."""
    with tempfile.TemporaryDirectory(dir=corpus.CACHE, ignore_cleanup_errors=True) as place:
        copy = Path(place) / "data"
        shutil.copytree(folder, copy)
        graph = max(copy.glob("index/dense-*/*/data_level0.bin"))
        with graph.open("r+b") as file:
            file.seek(1_000_000)
            file.write(b"damage" * 1000)
        started = time.monotonic()
        with opened(copy) as (index, search):
            search.find(questions[0])
            first = time.monotonic() - started
            while index.status().state == "opening":
                time.sleep(0.05)
            meanwhile = alone(questions[:20], search, _processes(index))
            index.wait_ready(7200)
            return {
                "first_answer_seconds": round(first, 2),
                "meanwhile": meanwhile,
                "rebuilt_seconds": round(time.monotonic() - started),
                "cpu_seconds": round(sum(map(_cpu, _processes(index)))),
            }


def _processes(index: Index) -> list[psutil.Process]:
    """This one, the index worker, and Chroma's."""
    worker = psutil.Process(index._opened_pid)
    return [psutil.Process(), worker, *worker.children(recursive=True)]


def _cpu(process: psutil.Process) -> float:
    """Seconds of processor time, to the nanosecond where the system tells."""
    tasks = Path(f"/proc/{process.pid}/task")
    if not tasks.exists():
        times = process.cpu_times()
        return times.user + times.system
    total = 0
    for task in tasks.iterdir():
        with contextlib.suppress(OSError):
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--rebuild", action="store_true", help="also damage a file; takes minutes")
    parser.add_argument("--agreement", action="store_true", help="also compare with an exact scan")
    chosen = parser.parse_args()
    questions = corpus.questions(count=chosen.questions)
    folder, figures = data_folder(chosen.passages)
    figures = {"passages": chosen.passages, "questions": len(questions), **figures}
    figures["start"] = [first_search(folder, question) for question in questions[:3]]
    with tempfile.TemporaryDirectory(dir=corpus.CACHE, ignore_cleanup_errors=True) as place:
        bare = Bare(folder, Path(place))
        with opened(folder) as (index, search):
            index.wait_ready(600)
            processes = _processes(index)
            figures["questions of the data set"] = side_by_side(questions, bare, search, processes)
            long = corpus.long_questions()
            figures["questions of 250 words"] = side_by_side(long, bare, search, processes)
            some = questions[::4]
            figures["others"] = {
                "words only": alone(some, search, processes, mode="lexical"),
                "vectors only": alone(some, search, processes, mode="dense"),
                "half of the library": alone(
                    some, search, processes, filter=SearchFilter(collections=("half",))
                ),
                "one document": alone(
                    some, search, processes, filter=SearchFilter(collections=("one",))
                ),
                "20,000 characters": alone([" ".join(questions)[:20_000]] * 5, search, processes),
            }
            figures["memory_mb"] = {
                name: round(process.memory_info().rss / 2**20)
                for name, process in zip(("worker", "vectors"), processes[1:], strict=False)
            }
        if chosen.agreement:
            figures["agreement"] = agreement(folder, bare, questions)
    if chosen.rebuild:
        figures["rebuild"] = rebuilt(folder, questions)
    json.dump(figures, sys.stdout, ensure_ascii=False, indent=1)


if __name__ == "__main__":
    main()
