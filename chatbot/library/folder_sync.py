"""One look at a linked folder: what is new or changed is taken in, documents follow their files.

Every step may be interrupted and done again, so a sync that was killed is finished by the next one.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from chatbot.errors import UnreadableDocument
from chatbot.failpoints import failpoint
from chatbot.library.changes import Seen, compare, differing, worth_hashing
from chatbot.library.ingest import Ingest, files_in
from chatbot.library.links import UNSETTLED, LinkedFolder, Links
from chatbot.types import Document

_BATCH = 32
_HALF_WRITTEN = (".crdownload", ".part", ".partial", ".download", ".tmp", "~")


@dataclass(frozen=True, slots=True)
class Report:
    """What one sync found in a folder: paths, and the ids of the documents taken in."""

    folder: str
    reachable: bool = True
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    """Gone from the folder and not reviewed yet."""
    unreadable: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()
    again: bool = False
    """A document was replaced in that very moment: look once more."""


class FolderSync:
    """Brings the library in step with a folder; one at a time."""

    def __init__(
        self,
        links: Links,
        own: Path,
        ingest: Callable[[], Ingest],
        read: Callable[[], object],
        is_ended: Callable[[str], bool],
    ) -> None:
        """`own` is Hearth's data folder; `is_ended` tells that nobody wants the rest of a folder now."""
        self._links = links
        self._own = own
        self._ingest = ingest
        self._read = read
        self._is_ended = is_ended

    def run(self, folder: LinkedFolder) -> Report:
        """Compare, follow, take in; a folder that cannot be reached is left as it was."""
        known, looked_at = self._links.known(folder), time.time_ns()
        look = self._look(folder, known)
        if look is None:
            return Report(folder.path, reachable=False)
        seen, unreadable = look
        known = {p: file for p, file in known.items() if p in seen or _is_gone(p)}
        different = differing(known, seen)
        found: dict[str, str | None] = {p: known[p].sha256 for p in seen if p in known}
        found |= dict.fromkeys(different)
        found |= {path: _hash_of(path) for path in worth_hashing(known, seen, different)}
        documents, elsewhere = self._links.documents(folder), self._links.elsewhere(folder)
        changes = compare(known, found, documents, elsewhere)

        # Documents go to where their content lies before a new version may replace them.
        self._ingest().follow({d: Path(path) for d, path in changes.moves.items()})
        if changes.emptied:
            self._ingest().purge(*changes.emptied)
        failpoint("followed")
        self._links.apply(folder, changes)
        stale = {*different, *(p for p, file in known.items() if file.missing and p in seen)}
        same = [p for p in stale if p in known and found[p] == known[p].sha256]
        files = [(p, seen[p], known[p].sha256) for p in same]
        files += [(new, seen[new], known[old].sha256) for old, new in changes.renamed.items()]
        self._links.note(folder, files, looked_at)
        failpoint("compared")
        taken, again = self._take_in(folder, [*changes.changed, *changes.added], seen)
        self._links.change(folder.id, synced_at=time.time())
        return Report(
            folder.path,
            added=changes.added,
            changed=changes.changed,
            renamed=changes.renamed,
            missing=changes.missing,
            unreadable=unreadable,
            documents=taken,
            again=again,
        )

    def _look(
        self, folder: LinkedFolder, known: Collection[str]
    ) -> tuple[dict[str, Seen], tuple[str, ...]] | None:
        """The folder's files and what could not be looked into; None when the folder is not there."""
        root, errors = Path(folder.path), list[OSError]()
        seen: dict[str, Seen] = {}
        unreadable: list[str] = []
        try:
            device = str(root.stat().st_dev)
        except OSError:
            return None
        for file in files_in(root, self._own, errors.append):
            try:
                facts = file.stat()
                str(file).encode()  # a name that is no text can be neither stored nor shown
            except (OSError, UnicodeEncodeError):
                unreadable.append(ascii(str(file)))
                continue
            if not is_half_written(file.name):
                seen[str(file)] = Seen(facts.st_size, facts.st_mtime_ns)
        closed = [str(error.filename) for error in errors]
        if folder.path in closed or not root.is_dir():
            return None
        if device != folder.device:
            if known and not seen:
                return None  # an empty place where a disk was
            self._links.change(folder.id, device=device)
        return seen, (*unreadable, *closed)

    def _take_in(
        self, folder: LinkedFolder, paths: Sequence[str], seen: Mapping[str, Seen]
    ) -> tuple[tuple[str, ...], bool]:
        """Add the files, some at a time; returns their documents' ids, and whether to look again."""
        taken: list[str] = []
        all_there = True
        for start in range(0, len(paths), _BATCH):
            if self._is_ended(folder.id):
                break
            batch = [p for p in paths[start : start + _BATCH] if Path(p).is_file()]
            looked_at = time.time_ns()
            added = self._ingest().add([Path(p) for p in batch], folder.collection)
            failpoint("taken-in")
            all_there &= self._write_down(
                folder, dict(zip(batch, added, strict=True)), seen, looked_at
            )
            failpoint("written-down")
            taken += [d.id for d in added]
            if any(d.state == "waiting" for d in added):
                self._read()
        return tuple(taken), not all_there

    def _write_down(
        self,
        folder: LinkedFolder,
        taken: Mapping[str, Document],
        seen: Mapping[str, Seen],
        looked_at: int,
    ) -> bool:
        """Note the files as known; a document that was there before belongs to the folder from now on.

        False when one was replaced by a newer version in this very moment.
        """

        def is_at_home(document: Document) -> bool:
            there = taken.get(document.origin or "")
            if there:
                return there.id == document.id
            return self._links.holds(document.origin, document.sha256, folder.collection)

        strays = {d.id: Path(p) for p, d in taken.items() if d.sha256 and not is_at_home(d)}
        self._ingest().follow(strays)
        there = self._links.existing([d.id for d in taken.values()])
        files = []
        for path, document in taken.items():
            if document.id in there:
                # What could not be opened (another program holds it, say) is tried again at every look.
                closed = (document.failure or {}).get("code") == UnreadableDocument.code
                facts = replace(seen[path], mtime_ns=UNSETTLED) if closed else seen[path]
                files.append((path, facts, document.sha256))
        self._links.note(folder, files, looked_at)
        return len(files) == len(taken)


def is_half_written(name: str) -> bool:
    """Whether a browser, an office program or an editor is still busy with a file of that name."""
    return name.lower().endswith(_HALF_WRITTEN)


def _is_gone(path: str) -> bool:
    """Whether the file is truly not there; one that merely cannot be looked at is not gone."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return True  # there, but left out: it was hidden, or a folder has its name now


def _hash_of(path: str) -> str | None:
    """The file's hash; None for one that cannot be read, which is for adding it to find out and say."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
