"""Hearth beside langchain-chroma and haystack: the same articles, questions and embedder.

    python -m benchmarks.peers --python OTHER_VENV/bin/python [--data ../shared/data/alqac-vi]

OTHER_VENV holds what we compare with: `pip install langchain-chroma langchain-community langchain-classic
rank_bm25 haystack-ai`. Each way runs in a process of its own, one after the other. Hybrid peers fuse BM25 and
vectors by rank, as their own tutorials do. Prints a Markdown table; `cpu` is processor time, which other
work on the machine does not lengthen. Recall is the share of questions with a right article in the first k,
ties counted against.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from chatbot.evaluation.datasets import Dataset, load_dataset
from chatbot.evaluation.metrics import gold_ranks, mean_measures, measures, percentile
from chatbot.library.embedders import SurfaceEmbedder
from chatbot.settings import PROJECT

Found = Sequence[tuple[str, float]]
Ask = Callable[[str], Found]


def texts_of(data: Dataset) -> list[str]:
    return [f"{document.title}\n{document.text}" for document in data.documents]


def hearth(data: Dataset, folder: Path) -> tuple[Callable[[], None], Ask, Callable[[], float]]:
    from benchmarks.search import _cpu, _processes
    from chatbot.database import Database
    from chatbot.evaluation.retrieval import _fill
    from chatbot.library.index import Index
    from chatbot.retrieval.search import Search

    database = Database(folder / "hearth.db")
    index = Index(database, folder / "index", "hearth-surface", "one-passage-each")
    index.wait_ready(120)
    search = Search(index)

    def ingest() -> None:
        _fill(database, data)
        index.announce([document.id for document in data.documents])
        index.wait_ready(3600)

    def ask(question: str) -> Found:
        results = search.find(question, limit=10).results
        return [(result.passage.document_id, result.score) for result in results]

    return ingest, ask, lambda: sum(map(_cpu, _processes(index)))


class LangChainEmbedder:
    """Ours, as LangChain asks for it."""

    def __init__(self) -> None:
        self._embedder = SurfaceEmbedder()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        rows: list[list[float]] = self._embedder.embed(texts, "passage").tolist()
        return rows

    def embed_query(self, text: str) -> list[float]:
        row: list[float] = self._embedder.embed([text], "query")[0].tolist()
        return row


def langchain_chroma(data: Dataset, folder: Path) -> tuple[Callable[[], None], Ask]:
    from langchain_chroma import Chroma

    store = Chroma("passages", LangChainEmbedder(), persist_directory=str(folder))
    ids = [document.id for document in data.documents]

    def ingest() -> None:
        metadata = [{"id": id_} for id_ in ids]
        store.add_texts(texts_of(data), metadatas=metadata, ids=ids)

    def ask(question: str) -> Found:
        found = store.similarity_search_with_score(question, k=10)
        return [(document.metadata["id"], -distance) for document, distance in found]

    return ingest, ask


def langchain_hybrid(data: Dataset, folder: Path) -> tuple[Callable[[], None], Ask]:
    from langchain_chroma import Chroma
    from langchain_classic.retrievers import EnsembleRetriever
    from langchain_community.retrievers import BM25Retriever

    store = Chroma("passages", LangChainEmbedder(), persist_directory=str(folder))
    made: list[Any] = []

    def ingest() -> None:
        ids = [document.id for document in data.documents]
        metadata = [{"id": id_} for id_ in ids]
        store.add_texts(texts_of(data), metadatas=metadata, ids=ids)
        words = BM25Retriever.from_texts(texts_of(data), metadatas=metadata, k=10)
        vectors = store.as_retriever(search_kwargs={"k": 10})
        made.append(EnsembleRetriever(retrievers=[words, vectors], id_key="id"))

    def ask(question: str) -> Found:
        found = made[0].invoke(question)[:10]
        return [(document.metadata["id"], -float(rank)) for rank, document in enumerate(found)]

    return ingest, ask


def haystack(data: Dataset, folder: Path) -> tuple[Callable[[], None], Ask]:  # noqa: ARG001  in memory
    from haystack import Document
    from haystack.components.joiners import DocumentJoiner
    from haystack.components.retrievers.in_memory import (
        InMemoryBM25Retriever,
        InMemoryEmbeddingRetriever,
    )
    from haystack.document_stores.in_memory import InMemoryDocumentStore

    store = InMemoryDocumentStore()
    words = InMemoryBM25Retriever(store, top_k=10)
    vectors = InMemoryEmbeddingRetriever(store, top_k=10)
    joiner = DocumentJoiner(join_mode="reciprocal_rank_fusion", top_k=10)
    embedder = LangChainEmbedder()

    def ingest() -> None:
        texts = texts_of(data)
        rows = embedder.embed_documents(texts)
        store.write_documents(
            [
                Document(id=document.id, content=text, embedding=row)
                for document, text, row in zip(data.documents, texts, rows, strict=True)
            ]
        )

    def ask(question: str) -> Found:
        one = words.run(query=question)["documents"]
        other = vectors.run(query_embedding=embedder.embed_query(question))["documents"]
        joined = joiner.run(documents=[one, other])["documents"]
        return [(document.id, document.score) for document in joined]

    return ingest, ask


WAYS: dict[str, Callable[..., Any]] = {
    "hearth": hearth,
    "langchain-chroma": langchain_chroma,
    "langchain-chroma + BM25": langchain_hybrid,
    "haystack, BM25 + vectors": haystack,
}


def measured(name: str, folder: Path) -> dict[str, float]:
    data = load_dataset(folder)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        ingest, ask, *own = WAYS[name](data, Path(place))
        cpu: Callable[[], float] = own[0] if own else time.process_time
        before, started = cpu(), time.monotonic()
        ingest()
        ingested, ingest_cpu = time.monotonic() - started, cpu() - before
        for question in data.questions[:10]:
            ask(question.text)
        rows, times, before = [], [], cpu()
        for question in data.questions:
            started = time.monotonic()
            found = ask(question.text)
            times.append(1000 * (time.monotonic() - started))
            rows.append(measures(gold_ranks(found, question.gold), len(question.gold)))
        query_cpu = 1000 * (cpu() - before) / len(rows)
    means = mean_measures(rows)
    return {
        "ingest/s": len(data.documents) / ingested,
        "ingest/s of cpu": len(data.documents) / ingest_cpu,
        "p50 ms": percentile(times, 0.5),
        "p95 ms": percentile(times, 0.95),
        "cpu ms": query_cpu,
        "recall@1": means["recall@1"],
        "recall@10": means["recall@10"],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--data", type=Path, default=PROJECT.parent / "shared/data/alqac-vi")
    parser.add_argument("--only", help="one way, in this interpreter; prints JSON")
    chosen = parser.parse_args()
    if chosen.only:
        sys.stdout.write(json.dumps(measured(chosen.only, chosen.data)))
        sys.stdout.flush()
        os._exit(0)  # the libraries' threads need not be waited for
    rows: dict[str, dict[str, float]] = {}
    for name in WAYS:
        python = sys.executable if name == "hearth" else chosen.python
        command = [python, "-m", "benchmarks.peers", "--only", name, "--data", str(chosen.data)]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{name}: {done.stderr}")
        rows[name] = json.loads(done.stdout)
    figures = next(iter(rows.values()))
    sys.stdout.write(f"| | {' | '.join(figures)} |\n|{'---|' * (len(figures) + 1)}\n")
    for name, row in rows.items():
        shown = [f"{v:.3f}" if "recall" in key else f"{v:.1f}" for key, v in row.items()]
        sys.stdout.write(f"| {name} | {' | '.join(shown)} |\n")


if __name__ == "__main__":
    main()
