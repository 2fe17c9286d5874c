"""Measuring the search of this data folder: questions in, runs out, in a job that can be taken up again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

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
_QUESTION = 4
"""What asking a question costs, in texts indexed."""

Report = Callable[[float | None, str], None]
"""Hears how far the work is (0..1) and what it is, as a msgid; what it raises ends the work."""


@dataclass(frozen=True, slots=True)
class Live:
    """The search in use, its index, and the embedder and reranker (or '') of the settings."""

    search: Search
    index: Index
    embedder: str
    reranker: str = ""


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
        if runs[0].dataset != OWN:
            self._ask_folder(runs, report)
        else:
            while not self._ask_own(runs, report):
                pass  # another embedder was chosen meanwhile: from the beginning
        for run in runs:
            self.runs.finish(run.id)

    def _ask_own(self, runs: Sequence[Run], report: Report) -> bool:
        """Ask the index in use; False when it was exchanged on the way."""
        live = self._live()
        while not live.index.wait_ready(_LOOK_SECONDS):
            if live.index.status().state in ("failed", "closed"):
                break
            report(None, "")

        def same() -> bool:
            return self._live().index is live.index

        if not same():
            return False
        found, _ = self.questions.cases()
        return self._ask(runs, found, live.search, live.index.stamp, report, same)

    def _ask_folder(self, runs: Sequence[Run], report: Report) -> None:
        """Ask an index made for the occasion from the folder's texts."""
        data = load_dataset(Path(runs[0].dataset))
        live, texts = self._live(), len(data.documents)
        share = texts / (texts + _QUESTION * len(runs) * len(data.questions))

        def preparing(done: int, total: int) -> None:
            report(share * min(1.0, done / total), N_("Indexing the texts"))

        def asking(done: float | None, message: str) -> None:
            report(share + (1 - share) * (done or 0.0), message)

        preparing(0, texts)
        with prepared(
            data,
            live.embedder,
            reranker=live.reranker,
            parent=self._temporary,
            on_progress=preparing,
        ) as (search, _):
            self._ask(runs, cases(data.questions), search, live.embedder, asking, lambda: True)

    def _ask(
        self,
        runs: Sequence[Run],
        questions: Sequence[Case],
        search: Search,
        embedder: str,
        report: Report,
        same: Callable[[], bool],
    ) -> bool:
        """Ask each question of each configuration in turn, so that a busy minute slows both alike.

        False when `same` no longer held; what was asked then does not count.
        """
        known = {run.id: self.runs.begin(run.id, embedder, len(questions)) for run in runs}
        ahead = [
            (run, question)
            for place, question in enumerate(questions)
            for run in (runs if place % 2 else runs[::-1])
            if question.id not in known[run.id]
        ]
        written = time.monotonic()
        waiting: list[tuple[str, Outcome]] = []
        try:
            for done, (run, question) in enumerate(ahead):
                report(done / len(ahead), N_("Asking the questions"))
                named = run.dataset != OWN
                outcome = asked(search, question, run.configuration, named=named)
                if not same():
                    return False
                waiting.append((run.id, outcome))
                if time.monotonic() - written > _WRITTEN_EVERY:
                    self.runs.record(waiting)
                    waiting.clear()
                    written = time.monotonic()
        finally:
            self.runs.record(waiting)
        return True

    def purge(self) -> None:
        """Erase questions and runs."""
        self.questions.purge()
        self.runs.purge()
