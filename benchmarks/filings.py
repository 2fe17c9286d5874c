"""Questions about English filings: do the passages that are found hold the answer's figures?

    python -m benchmarks.filings [--data ../shared/data/kg-rag-10q] [--passages 5]

Ten 10-Q PDFs are taken in as the application does it, and each of the 60 questions is asked twice: of all
ten, and of the filing it is about. A figure is a number of the reference answer with a thousands comma, a
decimal or a per cent sign that stands in that filing's text; years do not count. The reference answers
were written by a model, so a figure may stand in several places and an answer may be wrong: this says
whether the evidence is within reach, not whether an answer is right. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from chatbot.evaluation.metrics import interval
from chatbot.services import Services, close_services, open_services
from chatbot.settings import PROJECT, Paths
from chatbot.types import SearchFilter

_FIGURE = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.\d+|\d+(?=\s?%)")


@dataclass(frozen=True)
class Asked:
    """One question, the filing it is about, and the figures of its answer that stand in that filing."""

    text: str
    filing: str
    figures: frozenset[str]


def figures(text: str) -> frozenset[str]:
    """The figures of a text, written one way."""
    return frozenset(found.replace(",", "") for found in _FIGURE.findall(text))


def questions(folder: Path, texts: dict[str, str]) -> list[Asked]:
    """The questions, each with what can be found of its answer."""
    asked = []
    for line in (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        (filing,) = row["metadata"]["source_docs"]
        there = figures(row["metadata"]["answer"]) & figures(texts[filing])
        asked.append(Asked(row["text"], filing, there))
    return asked


def share(values: Iterable[float]) -> dict[str, object]:
    """Their mean with its 95 % interval."""
    every = [float(value) for value in values]
    return {
        "mean": round(sum(every) / len(every), 3),
        "interval": [round(end, 3) for end in interval(every)],
        "questions": len(every),
    }


def measured(services: Services, asked: list[Asked], ids: dict[str, str], count: int) -> dict:
    """Shares over the questions: right filing found, all, any and the average share of the figures found."""
    rows = {}
    for name in ("all ten filings", "its own filing"):
        own = name == "its own filing"
        found = [
            services.search.find(
                one.text, SearchFilter(documents=(ids[one.filing],) if own else ()), limit=count
            )
            for one in asked
        ]
        held = [
            (one.figures, one.figures & figures(" ".join(r.passage.text for r in f.results)))
            for one, f in zip(asked, found, strict=True)
            if one.figures
        ]
        rows[name] = {
            "all figures": share(there == wanted for wanted, there in held),
            "any figure": share(bool(there) for _, there in held),
            "figures": share(len(there) / len(wanted) for wanted, there in held),
            "answered": share(f.answers for f in found),
        }
        if not own:
            pairs = list(zip(asked, found, strict=True))
            rows[name]["right filing first"] = share(
                f.results[0].document == one.filing for one, f in pairs
            )
            rows[name]["right filing among them"] = share(
                any(r.document == one.filing for r in f.results) for one, f in pairs
            )
    return rows


def main() -> None:
    """Take the filings in, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=PROJECT.parent / "shared/data/kg-rag-10q")
    parser.add_argument("--passages", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        services = open_services(Paths(Path(folder)))
        try:
            services.change_settings(samples_added=True)
            services.add_documents(sorted((options.data / "documents").glob("*.pdf")))
            services.wait_until_read()
            documents = services.store.list("documents")
            texts = {d.name: services.store.contents.text(d.id) for d in documents}
            asked = questions(options.data, texts)
            told = {
                "filings": len(documents),
                "passages": sum(d.passages for d in documents),
                "questions with figures": sum(bool(one.figures) for one in asked),
                **measured(services, asked, {d.name: d.id for d in documents}, options.passages),
            }
        finally:
            close_services()
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
