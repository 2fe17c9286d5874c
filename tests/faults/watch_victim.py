"""A process to be killed: compares every linked folder with the library and reads what is new.

    python -m tests.faults.watch_victim DATA_FOLDER

It first takes up what an earlier, killed run left unfinished, as the application does at start.
"""

from __future__ import annotations

import sys
from pathlib import Path

from chatbot.database import Database
from chatbot.library.ingest import Ingest
from chatbot.library.readers import Reader
from chatbot.library.store import DocumentStore
from chatbot.library.watch import LinkedFolders
from chatbot.settings import Paths
from tests.faults.ingest_victim import HashIndex


def main(data: Path) -> None:
    paths = Paths(data)
    database, reader = Database(paths.database), Reader()
    store = DocumentStore(database, paths, spare_bytes=0)
    ingest = Ingest(store, reader, HashIndex())
    folders = LinkedFolders(database, store, lambda: ingest, lambda: None)
    print("opened", flush=True)
    for folder in folders.list():
        folders.sync(folder.id)
    for document_id in ingest.unfinished():
        ingest.process(document_id)
    reader.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
