"""A document's way in: kept, read, cut, embedded, committed, told to the index.

`add` acknowledges: when it returns, the originals are safe on disk and `process` can be interrupted at
any moment and run again, with the same result as if nothing had happened.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from chatbot.errors import (
    Cancelled,
    ChatbotError,
    ChildError,
    DiskFullError,
    DocumentError,
    EmptyDocument,
    NotFoundError,
    UnreadableDocument,
    UnsupportedDocument,
)
from chatbot.failpoints import failpoint
from chatbot.library.chunking import Draft
from chatbot.library.documents import label
from chatbot.library.importing import opened
from chatbot.library.readers import Reader
from chatbot.library.readers.kinds import HEAD_BYTES, sniff
from chatbot.library.store import DocumentStore
from chatbot.library.window import Window, cut_by
from chatbot.settings import SAMPLES
from chatbot.types import Document

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)

EMBED_BATCH = 64
_SYSTEM_FILES = frozenset(["thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"])

OnProgress = Callable[[float], None]
File = Path | tuple[str, bytes | IO[bytes]]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did with the file's documents; `doubles` were here already."""

    documents: int
    doubles: int
    unread: int
    without_vectors: int


class PassageIndex(Protocol):
    """What ingest needs of the search index: an embedder with a stamp, and to be told of changes."""

    @property
    def stamp(self) -> str:
        """Which embedder, revision, prefixes and chunker the vectors are made by."""
        ...

    def embed(self, texts: Sequence[str], kind: str) -> np.ndarray:
        """float32 (texts, dimension)."""
        ...

    def add(self, document_ids: Sequence[str]) -> None: ...

    def remove(self, document_ids: Sequence[str]) -> None: ...

    def announce(self, added: Sequence[str], removed: Sequence[str]) -> None:
        """Begin what `add` and `remove` wait for."""
        ...

    def rebuild(self) -> None:
        """Forget everything and begin anew from the store, in the background."""
        ...


class Ingest:
    """Takes files in and documents out, keeping store and index together."""

    def __init__(
        self,
        store: DocumentStore,
        reader: Reader,
        index: PassageIndex,
        window: Callable[[], Window | None] = lambda: None,
    ) -> None:
        """`window` tells how much the index's embedder reads at once; passages are cut to that."""
        self._store = store
        self._reader = reader
        self._index = index
        self._window = window

    def add(
        self,
        files: Sequence[File],
        collection: str = "documents",
        conversation: str | None = None,
    ) -> list[Document]:
        """Keep files, folders (recursively) and (name, content) pairs; one document for each file found.

        Files of one content are one document, told of under each file's own name.
        A waiting document is safe on disk and wants `process`; a ready one was there already, with the
        same content; a failed one was refused and says why. Raises DiskFullError, NotFoundError.
        """
        documents: list[Document] = []
        for file in files:
            if isinstance(file, tuple):
                name, content = file
                documents.append(self._add_one(content, name, collection, conversation))
            elif file.is_dir():
                documents.extend(
                    self._add_one(f, f.name, collection, conversation)
                    for f in files_in(file, self._store.originals.own_folder)
                )
            elif file.is_file():
                documents.append(self._add_one(file, file.name, collection, conversation))
            else:
                raise NotFoundError(str(file))
        return documents

    def take_in(
        self, file: Path, collection: str | None = None, on_progress: OnProgress | None = None
    ) -> Imported:
        """Take in an exported collection, under another name where one is given; `on_progress` gets 0..1.

        Vectors made by the embedder in use here are taken as they are, others are made anew in the
        background; documents that were not ready there wait for `process`. What `on_progress` raises ends
        the import after a whole document; begun again, it goes on there. Raises BrokenCollectionFile with
        nothing changed, DiskFullError.
        """
        report = on_progress or (lambda _fraction: None)
        name = label(collection) if collection is not None else None
        stamp = self._stamp()
        taken: list[str] = []
        doubles = unread = without_vectors = 0
        with opened(file, self._store, lambda done: report(0.5 * done)) as content:
            total = content.manifest["counts"]["documents"]
            try:
                for found in content.documents(stamp):
                    row = {**found.row, "collection": name} if name else found.row
                    vectors = None if found.vectors is None else (stamp or "", found.vectors)
                    with content.original(row["sha256"]) as original:
                        document = self._store.take_in(
                            row, found.pages, found.passages, vectors, original
                        )
                    if document is None:
                        doubles += 1
                    else:
                        taken.append(document.id)
                        unread += document.state == "waiting"
                        without_vectors += bool(found.passages) and vectors is None
                    report(0.5 + 0.5 * (len(taken) + doubles) / total)
            finally:
                self._tell_index(added=taken)
        return Imported(len(taken), doubles, unread, without_vectors)

    def unfinished(self) -> tuple[str, ...]:
        """Documents that wait or were interrupted, in the order in which to process them."""
        return self._store.unfinished()

    def process(
        self,
        document_id: str,
        on_progress: OnProgress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Document:
        """Read a kept document and make it ready, or failed with the reason; `on_progress` gets 0..1.

        Raises Cancelled (the document is then failed), DiskFullError and ChildError (it waits for the
        next attempt). A document removed meanwhile comes back as it was.
        """
        document = self._store.begin(document_id)
        report = on_progress or (lambda _fraction: None)
        is_cancelled = cancelled or (lambda: False)
        failpoint("begun")
        try:
            reading = self._reader.read(
                self._store.file(document_id),
                document.name,
                lambda page, pages: report(0.5 * page / pages),
                is_cancelled,
                self._window(),
            )
            failpoint("read")
            stamp, vectors = self._embed(document.name, reading.passages, report, is_cancelled)
            failpoint("embedded")
            replaced = self._store.commit(document_id, reading, stamp, vectors)
        except NotFoundError:
            return document
        except (DocumentError, Cancelled) as error:
            self._store.fail(document_id, error)
            if isinstance(error, Cancelled):
                raise
            return self._store.get(document_id)
        except (DiskFullError, ChildError) as error:
            self._note_for_later(document_id, error)
            raise
        failpoint("committed")
        # While more documents wait, the next one is read as the index takes in this one.
        behind = document.conversation is None and bool(self._store.unfinished())
        self._tell_index(added=[document_id], removed=replaced, behind=behind)
        failpoint("indexed")
        report(1.0)
        return self._store.get(document_id)

    def cut_otherwise(self) -> tuple[str, ...]:
        """Documents whose passages older rules cut, or ones for another embedder."""
        return self._store.cut_otherwise(cut_by(self._window()))

    def recut(self, document_id: str, cancelled: Callable[[], bool] | None = None) -> None:
        """Cut a document's stored text anew; what it has answers until its new passages are in place.

        A text that the cutting child dies of keeps its passages. Raises Cancelled, DiskFullError and the
        index's ChildError with nothing changed.
        """
        window = self._window()
        try:
            document = self._store.get(document_id)
            contents = self._store.contents
            pages, headings = contents.pages(document_id), contents.headings(document_id)
            drafts = self._reader.cut(pages, headings, document.name, window)
        except (NotFoundError, ChildError) as error:
            log.warning("not cut anew: %s", error)
            return
        stamp, vectors = self._embed(
            document.name, drafts, lambda _fraction: None, cancelled or (lambda: False)
        )
        try:
            self._store.recut(document_id, drafts, cut_by(window), stamp, vectors)
        except NotFoundError:  # removed meanwhile, or being read anew
            return
        self._tell_index(added=[document_id])

    def read_again(self, *document_ids: str) -> None:
        """Let documents be processed once more, for instance after a failure; the old text answers meanwhile."""
        self._store.take_up_again(*document_ids)

    def remove(self, *document_ids: str) -> None:
        """Move documents to the trash: searches no longer find them, `restore` brings them back."""
        self._store.trash.put(*document_ids)
        self._tell_index(removed=document_ids)

    def restore(self, *document_ids: str) -> tuple[str, ...]:
        """Bring documents back from the trash; returns those that came back."""
        restored = self._store.trash.restore(*document_ids)
        self._tell_index(added=restored)
        return restored

    def follow(self, places: Mapping[str, Path]) -> tuple[str, ...]:
        """Files were renamed or moved: their documents bear the new path and name, and are not read again.

        Returns the ids of those documents that are still there.
        """
        names = self._store.named(list(places))
        followed = self._store.follow(places)
        # Of all this the index knows names only: moving a whole folder is no work for it.
        self._tell_index(added=[d for d in followed if names.get(d) != label(places[d].name)])
        return followed

    def move(self, document_ids: Sequence[str], collection: str) -> tuple[str, ...]:
        """Take documents into another collection; returns those that it held already, now in the trash.

        The index needs no change: which collection a passage is in is asked of the store.
        """
        doubles = self._store.collections.move(document_ids, collection)
        self._tell_index(removed=doubles)
        return doubles

    def remove_collection(self, name: str) -> tuple[str, ...]:
        """Take a collection away and its documents to the trash; returns their ids, to be restored."""
        removed = self._store.collections.remove(name)
        self._tell_index(removed=removed)
        return removed

    def purge(self, *document_ids: str, on_progress: OnProgress | None = None) -> None:
        """Erase documents for good: original, text, vectors, index; `on_progress` gets 0..1."""
        if self._store.trash.purge(*document_ids, on_progress=on_progress):
            self._tell_index(removed=document_ids)
            self._index.rebuild()  # an index only marks removed words; they must leave the disk too

    def _stamp(self) -> str | None:
        """The stamp of the embedder in use; None while it cannot be loaded."""
        try:
            return self._index.stamp
        except ChatbotError as error:
            log.warning("imported without vectors, the embedder is not there: %s", error)
            return None

    def _add_one(
        self, source: Path | bytes | IO[bytes], name: str, collection: str, conversation: str | None
    ) -> Document:
        try:
            _refuse_at_sight(source, name)
            kept = self._store.keep(source, name, collection, conversation)
        except DocumentError as error:
            origin = source if isinstance(source, Path) else None
            return self._store.refuse(name, error, origin, collection, conversation)
        if kept.superseded:
            self.purge(*kept.superseded)
        return replace(kept.document, name=label(name))

    def _embed(
        self,
        name: str,
        passages: Sequence[Draft],
        report: OnProgress,
        is_cancelled: Callable[[], bool],
    ) -> tuple[str, np.ndarray | None]:
        """The passages' vectors and the stamp of the embedder that made all of them."""
        import numpy as np

        from chatbot.library.embedders import contextual_text

        texts = [contextual_text(name, d.path, d.text) for d in passages]
        while True:
            stamp, batches = self._index.stamp, []
            for start in range(0, len(texts), EMBED_BATCH):
                if is_cancelled():
                    raise Cancelled
                batch = texts[start : start + EMBED_BATCH]
                batches.append(self._index.embed(batch, kind="passage"))
                report(0.5 + 0.45 * (start + len(batch)) / len(texts))
            if self._index.stamp == stamp:  # the person may have chosen another embedder meanwhile
                return stamp, np.vstack(batches) if batches else None

    def _tell_index(
        self, added: Sequence[str] = (), removed: Sequence[str] = (), *, behind: bool = False
    ) -> None:
        """The index follows the store; when it cannot, its own check finds the difference and rebuilds.

        `behind` lets it be a few documents late.
        """
        try:
            if behind:
                self._index.announce(added, removed)
                return
            if removed:
                self._index.remove(list(removed))
            if added:
                self._index.add(list(added))
        except ChatbotError:
            log.exception("the index missed a change; its next check will find it")

    def _note_for_later(self, document_id: str, error: ChatbotError) -> None:
        try:
            self._store.fail(document_id, error, retry=True)
        except DiskFullError:
            log.warning("no room even to note that there is no room")


def files_in(
    folder: Path, own: Path, on_error: Callable[[OSError], None] | None = None
) -> Iterator[Path]:
    """The files of a folder and its subfolders by name; hidden and system files are left out.

    So is what Hearth itself keeps in its data folder `own`, all but the samples: nobody means to add
    the copies of documents that are already there. `on_error` hears of folders that cannot be listed.
    """
    for place, folders, names in os.walk(folder.resolve(), onerror=on_error):
        if Path(place) == own:
            folders[:] = [f for f in folders if f == SAMPLES.name and own / f == SAMPLES]
            continue
        folders[:] = sorted(f for f in folders if not _is_hidden(Path(place, f)))
        for name in sorted(names):
            file = Path(place, name)
            if not _is_hidden(file) and name.lower() not in _SYSTEM_FILES and file.is_file():
                yield file


def _is_hidden(path: Path) -> bool:
    if path.name.startswith((".", "~$", "__MACOSX")):
        return True
    try:
        attributes = getattr(path.lstat(), "st_file_attributes", 0)
    except OSError:
        return True
    return bool(attributes & (stat.FILE_ATTRIBUTE_HIDDEN | stat.FILE_ATTRIBUTE_SYSTEM))


def _refuse_at_sight(source: Path | bytes | IO[bytes], name: str) -> None:
    """Raise for what the first bytes already rule out, so that a film is not copied to be refused."""
    try:
        if isinstance(source, Path):
            with source.open("rb") as file:
                head = file.read(HEAD_BYTES)
        elif isinstance(source, bytes):
            head = source[:HEAD_BYTES]
        else:
            head = source.read(HEAD_BYTES)
            source.seek(0)
    except OSError as error:
        raise UnreadableDocument(error.strerror or str(error), name=name) from error
    kind = sniff(head)
    if kind == "empty":
        raise EmptyDocument(name=name)
    if kind is None:
        raise UnsupportedDocument(name=name)
