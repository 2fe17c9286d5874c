"""What tests of the library share: a store in a fresh folder, a reader child, files made on the spot."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from chatbot.database import Database
from chatbot.library.ingest import Ingest
from chatbot.library.readers import Reader
from chatbot.library.store import DocumentStore
from chatbot.settings import Paths


class RecordingIndex:
    """The index at ingest's edge: real arithmetic, no model; remembers what it was told."""

    def __init__(self) -> None:
        self.stamp = "test@1/4"
        self.documents: set[str] = set()
        self.embedded = 0
        self.rebuilds = 0

    def embed(self, texts: Sequence[str], kind: str) -> np.ndarray:
        assert kind == "passage"
        self.embedded += len(texts)
        digests = [hashlib.sha256(t.encode()).digest()[:4] for t in texts]
        return np.array([list(d) for d in digests], dtype=np.float32)

    def add(self, document_ids: Sequence[str]) -> None:
        self.documents.update(document_ids)

    def announce(self, added: Sequence[str], removed: Sequence[str]) -> None:
        self.remove(removed)
        self.add(added)

    def remove(self, document_ids: Sequence[str]) -> None:
        self.documents.difference_update(document_ids)

    def rebuild(self) -> None:
        self.rebuilds += 1


@pytest.fixture
def store(database: Database, paths: Paths) -> DocumentStore:
    return DocumentStore(database, paths, spare_bytes=0)


@pytest.fixture(scope="session")
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.close()


@pytest.fixture
def index() -> RecordingIndex:
    return RecordingIndex()


@pytest.fixture
def ingest(store: DocumentStore, reader: Reader, index: RecordingIndex) -> Ingest:
    return Ingest(store, reader, index)


WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


@pytest.fixture
def make_docx(tmp_path: Path) -> Callable[..., Path]:
    """Writes a DOCX from the XML of its body and further parts."""

    def make(body: str, name: str = "tệp.docx", **parts: str) -> Path:
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(
                "word/document.xml",
                f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>',
            )
            for part, xml in parts.items():
                archive.writestr(f"word/{part}.xml", f'<w:{part} xmlns:w="{WORD}">{xml}</w:{part}>')
        return path

    return make


@pytest.fixture
def make_pdf(tmp_path: Path) -> Callable[..., Path]:
    """Writes a PDF; each page is a list of (x, y, text) in 12-point Helvetica (Latin letters only)."""

    def make(pages: Sequence[Sequence[tuple[float, float, str]]], name: str = "tệp.pdf") -> Path:
        path = tmp_path / name
        path.write_bytes(pdf_bytes(pages))
        return path

    return make


def pdf_bytes(pages: Sequence[Sequence[tuple[float, float, str]]]) -> bytes:
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Count {len(pages)}/Kids[{kids}]>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
    ]
    for n, page in enumerate(pages):
        drawn = "".join(f"BT /F 12 Tf {x} {y} Td ({text}) Tj ET\n" for x, y, text in page)
        objects.append(
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents {5 + 2 * n} 0 R"
            "/Resources<</Font<</F 3 0 R>>>>>>"
        )
        objects.append(f"<</Length {len(drawn)}>>stream\n{drawn}\nendstream")
    content, offsets = b"%PDF-1.4\n", []
    for number, item in enumerate(objects, 1):
        offsets.append(len(content))
        content += f"{number} 0 obj\n{item}\nendobj\n".encode("cp1252")
    table = "".join(f"{o:010} 00000 n \n" for o in offsets)
    return (
        content
        + (
            f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
            f"trailer<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{len(content)}\n%%EOF"
        ).encode()
    )
