"""How the documents page and the chat page bear 10,000 documents: reruns, deleting, undo, moving, the trash.

    python benchmarks/documents_page.py [--documents 10000] [--runs 9]

Makes the rows straight in SQLite (with an original, a page, a passage and a vector each), runs the real
page scripts through Streamlit's AppTest on a data folder of its own, and prints the median and the worst.
The first run, which imports, is left out. Targets: reruns ≤ 0.3 s, deleting everything and undoing it ≤ 5 s.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

_SUBJECTS = ("Hợp đồng lao động", "Quy chế đào tạo", "Biên bản nghiệm thu", "Quyết định bổ nhiệm")


def fill(data: Path, documents: int) -> None:
    """Put that many small documents into the data folder, in ten collections."""
    from chatbot.database import Database
    from chatbot.library import register
    from chatbot.library.chunking import CHUNKER_VERSION
    from chatbot.library.embedders import SurfaceEmbedder, contextual_text, stamp_of
    from chatbot.library.validity import validity_of
    from chatbot.settings import Paths, Settings, save_settings

    paths = Paths(data)
    paths.make()
    save_settings(paths.settings, Settings(language="en", first_run_done=True, samples_added=True))
    database, embedder = Database(paths.database), SurfaceEmbedder()
    stamp, now = stamp_of(embedder, CHUNKER_VERSION), time.time()
    names = [f"{_SUBJECTS[n % 4]} số {n:05}.txt" for n in range(documents)]
    texts = [
        f"Điều 1. {name}\nNội dung thứ {n} nói về mục {n * 7}.\n" for n, name in enumerate(names)
    ]
    vectors = embedder.embed(
        [contextual_text(name, "", text) for name, text in zip(names, texts, strict=True)],
        "passage",
    )
    with database.transaction() as connection:
        for number in range(10):
            connection.execute("INSERT INTO collections VALUES (?, ?)", (f"Bộ {number}", now))
        for number, (name, text) in enumerate(zip(names, texts, strict=True)):
            content = text.encode()
            sha256, key = hashlib.sha256(content).hexdigest(), f"{number:032x}"
            (paths.files / sha256).write_bytes(content)
            connection.execute(
                "INSERT INTO documents (id, collection, name, sha256, media_type, size, state, pages,"
                " passages, language, added_at, cut) VALUES (?, ?, ?, ?, 'text/plain', ?, 'ready', 1, 1, 'vi',"
                " ?, ?)",
                (
                    key,
                    f"Bộ {number % 10}",
                    name,
                    sha256,
                    len(content),
                    now - number,
                    CHUNKER_VERSION,
                ),
            )
            register.write(connection, key, validity_of(text))
            connection.execute(
                "INSERT INTO pages (document_id, ordinal, number, start, text) VALUES (?, 0, 1, 0, ?)",
                (key, text),
            )
            connection.execute(
                'INSERT INTO passages (id, document_id, ordinal, text, start, "end", page, path)'
                " VALUES (?, ?, 0, ?, 0, ?, 1, '')",
                (f"{key}-0", key, text, len(text)),
            )
            connection.execute(
                "INSERT INTO vectors VALUES (?, ?, ?)",
                (f"{key}-0", stamp, vectors[number].astype("<f4").tobytes()),
            )
    database.close()


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=9)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HEARTH_DATA"] = folder
        print(f"made in {_timed(lambda: fill(Path(folder), arguments.documents)):.1f} s")
        from streamlit.testing.v1 import AppTest

        from chatbot.library.listing import Listing
        from chatbot.services import close_services, services

        began = time.perf_counter()
        services().index.open_now()
        services().index.wait_ready(600)
        print(f"index ready after {time.perf_counter() - began:.1f} s")
        for page in ("chat.py", "documents.py", "settings.py"):
            app = AppTest.from_file(str(PROJECT / "pages" / "main.py"), default_timeout=120)
            app.run()
            app.switch_page(str(PROJECT / "pages" / page)).run()
            assert not app.exception, app.exception
            cpu = time.process_time()
            taken = [_timed(app.run) for _ in range(arguments.runs)]
            cpu = (time.process_time() - cpu) / arguments.runs
            figures = f"median {statistics.median(taken):.3f} s, worst {max(taken):.3f} s"
            print(f"{page}: {figures}; processor {cpu:.3f} s")
            if page == "documents.py":
                search = app.text_input(key="documents-filter").input("hop dong 123")
                print(f"  filtered by a name without accents: {_timed(search.run):.3f} s")
        store, ingest = services().store, services().ingest
        every = store.ids(Listing())
        print(f"ids of all: {len(every)}")
        print(f"all to the trash: {_timed(lambda: ingest.remove(*every)):.2f} s")
        assert not services().search.find("hợp đồng lao động").results
        print(f"undo: {_timed(lambda: ingest.restore(*every)):.2f} s")
        assert store.tally().documents == arguments.documents
        print(f"all to one collection: {_timed(lambda: ingest.move(every, 'Bộ 0')):.2f} s")
        print(f"index has followed after {_timed(lambda: services().index.add([])):.1f} s")
        assert services().search.find("hợp đồng lao động").results
        ingest.remove(*every)
        print(f"trash emptied: {_timed(lambda: ingest.purge(*every)):.2f} s")
        close_services()


if __name__ == "__main__":
    main()
