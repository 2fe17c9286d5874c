"""Measuring the search of this data folder: questions in, runs out, in a job that can be taken up again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from chatbot.database import Database
from chatbot.errors import NotFoundError
from chatbot.evaluation.datasets import load_dataset
from chatbot.evaluation.questions import Case, Questions
from chatbot.evaluation.retrieval import asked, cases, prepared
from chatbot.evaluation.runs import OWN, Configuration, Outcome, Run, Runs
from chatbot.i18n import N_
from chatbot.library.index import Index
from chatbot.library.store import DocumentStore
from chatbot.retrieval.search import Search

_WRITTEN_EVERY = 1.0
"""Seconds between commits: a commit costs as much as several questions."""
_LOOK_SECONDS = 0.5

Report = Callable[[float | None], None]
"""Hears how far the work is (0..1); what it raises ends the work."""


@dataclass(frozen=True, slots=True)
class Live:
    """The search in use, its index, and the embedder it was opened with."""

    search: Search
    index: Index
    embedder: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the running evaluation is: building an index of its own, or asking."""

    stage: Literal["preparing", "asking"]
    done: int
    total: int
    began: float

    @property
    def seconds_left(self) -> float | None:
        """What this stage still takes at its pace so far; None before there is a pace."""
        passed = time.monotonic() - self.began
        if not self.done or passed < 1:
            return None
        return passed / self.done * (self.total - self.done)


class Quality:
    """The question set and its evaluations."""

    def __init__(
        self,
        database: Database,
        store: DocumentStore,
        temporary: Path,
        live: Callable[[], Live],
    ) -> None:
        """`temporary` is where a folder of test questions gets an index of its own."""
        self.questions = Questions(database, store)
        self.runs = Runs(database)
        self.progress: Progress | None = None
        self._temporary = temporary
        self._live = live

    def begin(
        self, configurations: Sequence[Configuration], folder: Path | None = None
    ) -> list[str]:
        """New runs, one for each configuration, for `work` to do.

        Raises NotFoundError when there is nothing to ask, SettingsError for a broken folder.
        """
        if folder:
            dataset, count = str(folder), len(load_dataset(folder).questions)
        else:
            dataset, count = OWN, len(self.questions.cases()[0])
        if not count:
            raise NotFoundError(N_("a question whose answer is in the documents"))
        return [self.runs.create(dataset, each, count) for each in configurations]

    def work(self, run_ids: Sequence[str], report: Report) -> None:
        """Ask every question that these runs have not asked yet, then work out their figures."""
        runs = [self.runs.get(each) for each in run_ids]
        try:
            if runs[0].dataset == OWN:
                while not self._ask_own(runs, report):
                    pass  # another embedder was chosen meanwhile: from the beginning
            else:
                self._ask_folder(runs, report)
        finally:
            self.progress = None
        for run in runs:
            self.runs.finish(run.id)

    def _ask_own(self, runs: Sequence[Run], report: Report) -> bool:
        """Ask the index in use; False when it was exchanged on the way."""
        live = self._live()
        began = time.monotonic()
        while not live.index.wait_ready(_LOOK_SECONDS):
            status = live.index.status()
            if status.state in ("failed", "closed"):
                break
            self._tell(Progress("preparing", status.done, status.total, began), report)
        if live.index is not self._live().index:
            return False
        found, _ = self.questions.cases()
        stamp = live.index.stamp
        return self._ask(
            runs, found, live.search, stamp, report, lambda: self._live().index is live.index
        )

    def _ask_folder(self, runs: Sequence[Run], report: Report) -> None:
        """Ask an index made for the occasion from the folder's texts."""
        data = load_dataset(Path(runs[0].dataset))
        embedder, began = self._live().embedder, time.monotonic()

        def preparing(done: int, total: int) -> None:
            self._tell(Progress("preparing", done, total, began), report)

        preparing(0, len(data.documents))
        with prepared(data, embedder, parent=self._temporary, on_progress=preparing) as (search, _):
            self._ask(runs, cases(data.questions), search, embedder, report, lambda: True)

    def _ask(
        self,
        runs: Sequence[Run],
        questions: Sequence[Case],
        search: Search,
        embedder: str,
        report: Report,
        still: Callable[[], bool],
    ) -> bool:
        """Ask each question of each configuration in turn, so that a busy minute slows both alike."""
        known = {run.id: self.runs.begin(run.id, embedder, len(questions)) for run in runs}
        open_ = [
            (run, question)
            for place, question in enumerate(questions)
            for run in (runs if place % 2 else runs[::-1])
            if question.id not in known[run.id]
        ]
        began = written = time.monotonic()
        waiting: list[tuple[str, Outcome]] = []
        try:
            for done, (run, question) in enumerate(open_):
                self._tell(Progress("asking", done, len(open_), began), report)
                named = run.dataset != OWN
                waiting.append((run.id, asked(search, question, run.configuration, named=named)))
                if not still():
                    waiting.clear()
                    return False
                if time.monotonic() - written > _WRITTEN_EVERY:
                    self.runs.record(waiting)
                    waiting.clear()
                    written = time.monotonic()
        finally:
            self.runs.record(waiting)
        return True

    def _tell(self, progress: Progress, report: Report) -> None:
        self.progress = progress
        report(progress.done / progress.total if progress.total else None)

    def purge(self) -> None:
        """Erase questions and runs."""
        self.questions.purge()
        self.runs.purge()
