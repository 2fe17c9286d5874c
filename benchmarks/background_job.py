"""What an answer loses while Hearth reads documents, or makes a model smaller, in the background.

    python -m benchmarks.background_job [GGUF] [--source F16.gguf] [--type Q8_0] [--rounds 3] [--tokens 64]

Hearth is opened on an empty folder. Answers of `--tokens` tokens are written alone, while the PDF files of
../shared/data are being read, cut and indexed, and while a job quantises `--source`, by turns: each answer
beside a job is compared with those written alone just before and after. A third comparison, with
`--busy`, runs a program of normal priority on one core. Goal: at most 10 % beside Hearth's own jobs.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.corpus import SHARED
from benchmarks.random_model import random_gguf
from chatbot.engines.give_way import SECONDS
from chatbot.ownership import own
from chatbot.services import Services
from chatbot.settings import Paths
from chatbot.types import Engine, GenerationOptions, Job, ModelArtifact, Turn

BUSY = "while True: pass"


class Bench:
    """Hearth with one model loaded and two kinds of work at hand."""

    def __init__(self, folder: Path, file: Path, source: Path, type_: str) -> None:
        self.services = Services(own(Paths(folder / "data")))
        self.services.start()
        self._folder = folder
        self._type = type_
        self._batches = 0
        self._pdfs = sorted(SHARED.rglob("*.pdf"))
        self.services.wait_until_read()
        self._source = self._model(source)
        model = self._source if file == source else self._model(file)
        self.engine: Engine = self.services.load_model(model.id)

    def _model(self, file: Path) -> ModelArtifact:
        job = self.services.workshop.take_in(file)
        self.services.jobs.wait(job.id, 600)
        return next(m for m in self.services.models.list() if Path(m.path) == file)

    def speed(self, number: int, tokens: int) -> float:
        """Tokens per second of one answer."""
        options = GenerationOptions(
            temperature=0, repeat_penalty=1.0, max_tokens=tokens, drafting=False
        )
        *_, last = self.engine.stream([Turn("user", f"x{number}")], options)
        assert last.stats is not None
        return last.stats.tokens_per_second

    @contextmanager
    def reading(self) -> Iterator[Callable[[], bool]]:
        """Documents are being read meanwhile; the value tells whether they still are."""
        self._batches += 1
        copies = self._folder / f"copies {self._batches}"
        copies.mkdir()
        for file in self._pdfs:  # other bytes, so that they are other documents
            copy = copies / f"{self._batches} {file.name}"
            shutil.copyfile(file, copy)
            with copy.open("ab") as end:
                end.write(b"\n%% %d" % self._batches)
        added = self.services.add_documents(sorted(copies.iterdir()))
        yield lambda: bool(self.services.ingest.unfinished())
        self.services.ingest.remove(*[document.id for document in added])
        for job in self.services.jobs.list(active=True, kind="ingest"):
            self.services.jobs.cancel(job.id)
            self.services.jobs.wait(job.id, 120)

    @contextmanager
    def quantising(self) -> Iterator[Callable[[], bool]]:
        """A model is being made smaller meanwhile."""
        job: Job = self.services.workshop.quantise(self._source.id, self._type)
        yield lambda: any(one.id == job.id for one in self.services.jobs.list(active=True))
        self.services.jobs.cancel(job.id)
        self.services.jobs.wait(job.id, 120)
        for made in self.services.models.list():
            if made.id not in (self._source.id, getattr(self.engine, "spec").model_id):  # noqa: B009
                self.services.remove_model(made.id)

    @contextmanager
    def busy(self) -> Iterator[Callable[[], bool]]:
        """Another program keeps one core busy, at normal priority."""
        process = subprocess.Popen([sys.executable, "-c", BUSY])
        try:
            yield lambda: process.poll() is None
        finally:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", nargs="?", type=Path)
    parser.add_argument("--source", type=Path, help="what is quantised; an F16 file")
    parser.add_argument("--type", default="Q4_K_M")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--busy", action="store_true")
    asked = parser.parse_args()
    source = asked.source or random_gguf()
    with tempfile.TemporaryDirectory(prefix="hearth background ") as folder:
        bench = Bench(Path(folder), (asked.gguf or source).resolve(), source.resolve(), asked.type)
        try:
            kinds = {"reading documents": bench.reading, "quantising": bench.quantising}
            if asked.busy:
                kinds["another program on one core"] = bench.busy
            bench.speed(0, asked.tokens)  # warms up
            shares: dict[str, list[float]] = {kind: [] for kind in kinds}
            number = 0
            for _ in range(asked.rounds):
                for kind, work in kinds.items():
                    speeds = []
                    for beside in (False, True, False):
                        number += 1
                        if not beside:
                            time.sleep(2 * SECONDS)  # what ended just now is noticed
                            speeds.append(bench.speed(number, asked.tokens))
                            continue
                        with work() as goes_on:
                            time.sleep(2 * SECONDS)
                            speeds.append(bench.speed(number, asked.tokens))
                            if not goes_on():
                                raise SystemExit(f"{kind} was over before the answer")
                    alone = (speeds[0] + speeds[2]) / 2
                    shares[kind].append(speeds[1] / alone)
                    print(
                        f"{kind}: {speeds[1]:.2f} tokens/s, alone {speeds[0]:.2f} and"
                        f" {speeds[2]:.2f}: {shares[kind][-1]:.3f} ×",
                        flush=True,
                    )
            for kind, found in shares.items():
                print(f"{kind}: median {statistics.median(found):.3f} × of the speed alone")
        finally:
            bench.services.close()


if __name__ == "__main__":
    main()
