"""Linked folders: what is added or changed in them is read at once, what is gone waits for a person.

Folders are compared, not events replayed: an event only says when to look.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from chatbot.database import Database
from chatbot.errors import ChatbotError, FolderError, NotFoundError
from chatbot.i18n import N_
from chatbot.library.documents import label
from chatbot.library.folder_sync import FolderSync, Report, is_half_written
from chatbot.library.ingest import Ingest
from chatbot.library.links import LinkedFolder, Links, MissingFile, beneath
from chatbot.library.store import DocumentStore

log = logging.getLogger(__name__)

_QUIET_MILLISECONDS, _MOST_MILLISECONDS = 500, 10_000
"""A burst of events ends with so long a silence (a file that is being copied is never silent), or after
so long at the latest."""
_LOOK_SECONDS = 30.0
"""How often a folder is looked at that sends no events: on a network drive, out of reach, too large."""
_SELDOM_SECONDS = 600.0
"""How often any other is, in case an event was lost."""
_REMOTE = frozenset([
    "9p", "afpfs", "ceph", "cifs", "davfs", "drvfs", "fuse.davfs", "fuse.rclone", "fuse.sshfs", "glusterfs",
    "nfs", "nfs4", "smb3", "smbfs", "vboxsf", "vmhgfs", "webdav",
])  # fmt: skip


class LinkedFolders:
    """Keeps folders in sync, on demand and from a thread that watches them; safe to use from many threads."""

    def __init__(
        self,
        database: Database,
        store: DocumentStore,
        ingest: Callable[[], Ingest],
        read: Callable[[], object],
    ) -> None:
        """`ingest` gives the present way in, `read` begins to read what waits."""
        self._links = Links(database)
        self._store = store
        self._own = store.originals.own_folder.resolve()
        self._ingest = ingest
        self._sync = FolderSync(self._links, self._own, ingest, read, self._is_ended)
        self._syncing = threading.Lock()
        self._looking: str | None = None
        self._errors: dict[str, ChatbotError] = {}
        self._unreachable: set[str] = set()
        self._halted: set[str] = set()
        self._looked_at: dict[str, float] = {}
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    # --- links ------------------------------------------------------------------------------

    def link(self, path: Path, collection: str = "documents") -> LinkedFolder:
        """Keep a folder in sync from now on; `sync` or `look` takes in what is there.

        Linking it again changes nothing. Raises FolderError.
        """
        try:
            place = path.expanduser().resolve()
            is_folder = place.is_dir()
        except (OSError, RuntimeError, ValueError):  # a loop of links, no such home, a NUL
            is_folder = False
        if not is_folder:
            raise FolderError(N_("it is not there, or is not a folder"), path=str(path))
        if place.is_relative_to(self._own):
            raise FolderError(N_("Hearth keeps its own data there"), path=str(place))
        folder = self._links.add(place, label(collection))
        if folder.collection != label(collection):
            raise FolderError(N_("it is linked already, to another collection"), path=str(place))
        self._store.collections.add(folder.collection)
        return folder

    def unlink(self, folder_id: str, *, remove: bool = False) -> tuple[str, ...]:
        """End a link; its documents stay, or go to the trash. Returns the ids of those in the trash.

        What another linked folder holds too stays in any case.
        """
        self._halted.add(folder_id)
        with self._syncing:
            folder = self._links.get(folder_id)
            known = self._links.known(folder)
            documents = [d for d in self._links.documents(folder) if d.path in known]
            elsewhere = self._links.elsewhere(folder)
            self._links.remove(folder_id)
            self.look()
        if not remove:
            return ()
        held = {d.id: Path(elsewhere[d.sha256]) for d in documents if d.sha256 in elsewhere}
        self._ingest().follow(held)
        return self._remove([d.id for d in documents if d.id not in held])

    def pause(self, folder_id: str) -> None:
        """Leave a folder alone until `resume`; a sync that is at work ends early."""
        self._halted.add(folder_id)
        self._links.change(folder_id, paused=True)
        self.look()

    def resume(self, folder_id: str) -> None:
        """Go on with a paused folder."""
        self._halted.discard(folder_id)
        self._links.change(folder_id, paused=False)
        self.look()

    def at(self, path: Path) -> LinkedFolder:
        """The link of the folder at that path. Raises NotFoundError."""
        return self._links.at(path.expanduser().resolve())

    def forget(self) -> None:
        """End every link; documents are left as they are."""
        for folder in self._links.list():
            self.unlink(folder.id)

    # --- what is gone -------------------------------------------------------------------------

    def missing(self, folder_id: str) -> tuple[MissingFile, ...]:
        """Files that are gone from the folder while their documents are still in the library."""
        return self._links.missing(folder_id)

    def remove_missing(self, folder_id: str) -> tuple[str, ...]:
        """Move the documents of missing files to the trash; returns their ids, for `restore`."""
        gone = self._links.missing(folder_id)
        self._links.let_go_of_missing(folder_id, [file.path for file in gone])
        return self._remove([d for file in gone for d in file.documents])

    def keep_missing(self, folder_id: str, *paths: str) -> None:
        """Leave the documents of missing files in the library, as if they had been added by hand.

        All of them unless some are named.
        """
        every = [file.path for file in self._links.missing(folder_id)]
        self._links.let_go_of_missing(folder_id, paths or every)

    def _remove(self, document_ids: Sequence[str]) -> tuple[str, ...]:
        if document_ids:
            self._ingest().remove(*document_ids)
        return tuple(document_ids)

    # --- one look at one folder -----------------------------------------------------------------

    def sync(self, folder_id: str) -> Report:
        """Compare a folder with the library, take in what is new or changed, and tell what was found.

        A folder that cannot be reached is left as it was. Raises NotFoundError, DiskFullError.
        """
        with self._syncing:
            folder = self._links.get(folder_id)
            self._looking = folder_id
            try:
                report = self._sync.run(folder)
            except NotFoundError:
                raise
            except ChatbotError as error:
                self._errors[folder_id] = error
                raise
            finally:
                self._looking = None
                self._looked_at[folder_id] = time.monotonic()
            self._errors.pop(folder_id, None)
            change = self._unreachable.discard if report.reachable else self._unreachable.add
            change(folder_id)
        if report.again:
            self.look()
        return report

    def _is_ended(self, folder_id: str) -> bool:
        return self._closing.is_set() or folder_id in self._halted

    # --- the thread -------------------------------------------------------------------------------

    def start(self) -> None:
        """Look at every folder, then again whenever something changes in it."""
        self._thread = threading.Thread(target=self._watch, name="folders", daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Ask the thread to look at every folder now."""
        self._wake.set()

    def close(self) -> None:
        """End the watching; what has not been taken in yet, the next start does."""
        self._closing.set()
        self._wake.set()
        if self._thread:
            self._thread.join(10)

    def _watch(self) -> None:
        while not self._closing.is_set():
            self._wake.clear()
            folders = [folder for folder in self._links.list() if not folder.paused]
            loud = [
                f.path for f in folders if Path(f.path).is_dir() and not is_remote(Path(f.path))
            ]
            self._looked_at.clear()
            for changed in self._events(loud):
                for folder in folders:
                    root, since = beneath(folder.path), self._looked_at.get(folder.id)
                    silent = folder.path not in loud or folder.id in self._errors
                    due = _LOOK_SECONDS if silent or changed is None else _SELDOM_SECONDS
                    if (
                        since is None
                        or time.monotonic() - since >= due
                        or any((path + os.sep).startswith(root) for path in changed or ())
                    ):
                        self._try(folder)

    def _events(self, paths: Sequence[str]) -> Iterator[set[str] | None]:
        """Changed paths, at least once a second, until woken; None where nothing can be watched."""
        roots = [beneath(path) for path in paths]

        def matters(_change: Any, path: str) -> bool:
            if Path(path).is_relative_to(self._own):
                return False
            inner = next((path[len(root) :] for root in roots if path.startswith(root)), "")
            parts = Path(inner).parts
            return not any(p.startswith((".", "~$")) or is_half_written(p) for p in parts)

        if paths:
            # Imported here: it brings native code that only linked folders need.
            from watchfiles import watch

            try:
                for changes in watch(
                    *paths,
                    watch_filter=matters,
                    debounce=_MOST_MILLISECONDS,
                    step=_QUIET_MILLISECONDS,
                    rust_timeout=1000,
                    yield_on_timeout=True,
                    stop_event=self._wake,
                    raise_interrupt=False,
                    ignore_permission_denied=True,
                ):
                    yield {path for _change, path in changes}
            except (OSError, RuntimeError) as error:  # the system's limit, a folder just gone
                log.warning("changes in linked folders are looked for from time to time: %s", error)
        while not self._wake.wait(1.0):  # which a watch that ended well has already
            yield None

    def _try(self, folder: LinkedFolder) -> None:
        was_reachable = folder.id not in self._unreachable
        try:
            report = self.sync(folder.id)
            if report.reachable != was_reachable:
                self.look()  # another set of folders to watch
        except (
            NotFoundError,
            FileNotFoundError,
        ):  # a link or a file is gone: look at what is there
            self.look()
        except ChatbotError as error:
            log.warning("a linked folder could not be synced: %s", error.code)
        except Exception as error:  # shown beside the folder and kept in the log; the others go on
            log.exception("a linked folder could not be synced")
            self._errors[folder.id] = ChatbotError(f"{type(error).__name__}: {error}")

    # Last, because inside the class its name hides the built-in type.
    def list(self) -> list[LinkedFolder]:
        """Every link with its state, by path."""
        return [self._with_state(folder) for folder in self._links.list()]

    def _with_state(self, folder: LinkedFolder) -> LinkedFolder:
        error = self._errors.get(folder.id)
        if folder.paused:
            return replace(folder, state="paused")
        if folder.id in self._unreachable:
            return replace(folder, state="unreachable")
        if self._looking == folder.id or (self._wake.is_set() and self._thread):
            return replace(folder, state="looking")
        if error:
            return replace(folder, state="failed", error=error)
        return replace(folder, state="reading" if folder.unread else "current")


def is_remote(path: Path) -> bool:
    """Whether the folder lies on another machine, whose changes send no events here."""
    import psutil

    if path.drive.startswith("\\\\"):
        return True
    disks = [d for d in psutil.disk_partitions(all=True) if path.is_relative_to(Path(d.mountpoint))]
    disks.sort(key=lambda d: len(d.mountpoint))  # the innermost last
    return any(d.fstype.lower() in _REMOTE or "remote" in d.opts.split(",") for d in disks[-1:])
