"""A process to be killed: adds the files of a folder and processes them, telling each step on stdout.

    python -m tests.faults.ingest_victim DATA_FOLDER SOURCE_FOLDER [purge]

It first takes up what an earlier, killed run left unfinished, as the application does at start. With
`purge` it erases one document at the end and adds it again.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from chatbot.database import Database
from chatbot.failpoints import failpoint
from chatbot.library.ingest import Ingest, files_in
from chatbot.library.readers import Reader
from chatbot.library.store import DocumentStore
from chatbot.settings import Paths


class HashIndex:
    """Vectors from hashes; the search index itself is not what is tested here."""

    stamp = "hash@1/8"

    def embed(self, texts: Sequence[str], kind: str) -> np.ndarray:
        digests = [hashlib.sha256(t.encode()).digest()[:8] for t in texts]
        return np.array([list(d) for d in digests], dtype=np.float32)

    def add(self, document_ids: Sequence[str]) -> None: ...

    def announce(self, added: Sequence[str], removed: Sequence[str]) -> None: ...

    def remove(self, document_ids: Sequence[str]) -> None: ...

    def rebuild(self) -> None: ...


def main(data: Path, source: Path, *, purge: bool) -> None:
    paths = Paths(data)
    paths.make()
    reader = Reader()
    store = DocumentStore(Database(paths.database), paths, spare_bytes=0)
    ingest = Ingest(store, reader, HashIndex())
    print("opened", flush=True)
    for document_id in ingest.unfinished():
        ingest.process(document_id)
    for file in files_in(source, paths.data):
        (document,) = ingest.add([file])
        print("acknowledged", document.sha256, flush=True)
        if document.state == "waiting":
            ingest.process(document.id)
    if purge:
        doomed = store.list()[0]
        ingest.purge(doomed.id)
        failpoint("purged")
        ingest.add([Path(doomed.origin or "")])
        for document_id in ingest.unfinished():
            ingest.process(document_id)
    reader.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), purge="purge" in sys.argv[3:])
