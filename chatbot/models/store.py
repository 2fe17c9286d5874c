"""The models on this PC: a folder with a manifest each, and a table that lists them.

The manifest is written last and the folder appears under its name in one rename, so that a folder
with an id for a name is whole. Linked models have a manifest only; their files stay where they are.
Folders that Hearth began and did not finish start with a dot and are cleared at the next start, but for a
download whose journal lies beside it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from chatbot.database import Database
from chatbot.errors import ModelError, NotFoundError
from chatbot.i18n import N_
from chatbot.memory.adapter import CONFIG as ADAPTER_CONFIG
from chatbot.models.files import StoredFile
from chatbot.settings import Paths, sync, write_atomically
from chatbot.text import fold, nfc
from chatbot.types import ModelArtifact, ModelFormat, ModelRole

if TYPE_CHECKING:
    from chatbot.memory.facts import ModelFacts

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
UNFINISHED = ".unfinished-"
REMOVED = ".removed-"
DOWNLOAD = ".download-"
State = Literal["ready", "missing", "changed"]
_SPLIT = re.compile(r"-\d{5}-of-\d{5}$")
_SAYS_NOTHING = re.compile(r"(ggml-)?model([-_.].*)?|sha256[-:].*|[0-9a-f]{32,}", re.IGNORECASE)


class ModelStore:
    """Lists, adds and removes models; only the process that owns the data folder may build one."""

    def __init__(self, database: Database, paths: Paths) -> None:
        """Clear what was never finished and make the table agree with the manifests."""
        self.folder = paths.models
        self._database = database
        self._noting = threading.Lock()
        self.folder.mkdir(parents=True, exist_ok=True)
        for begun in [*self.folder.glob(".*"), *self.folder.glob(f"*/.{MANIFEST}.*.tmp")]:
            if begun.is_file():
                if begun.suffix == ".tmp" or _is_dead_download(begun):
                    begun.unlink(missing_ok=True)
            elif begun.name.startswith((UNFINISHED, REMOVED)) or _is_dead_download(begun):
                shutil.rmtree(begun, ignore_errors=True)
        self._read_manifests()

    def list(self) -> list[ModelArtifact]:
        """Every model, the newest first."""
        rows = self._database.rows("SELECT * FROM models ORDER BY added_at DESC, id")
        return [_artifact(row) for row in rows]

    def get(self, model_id: str) -> ModelArtifact:
        """That model. Raises NotFoundError."""
        if model := self.find(model_id):
            return model
        raise NotFoundError(model_id)

    def find(self, model_id: str) -> ModelArtifact | None:
        """That model, or None."""
        row = self._database.row("SELECT * FROM models WHERE id = ?", (model_id,))
        return _artifact(row) if row else None

    def linked_from(self, path: Path) -> ModelArtifact | None:
        """The model that is used where it lies, at exactly that path."""
        row = self._database.row("SELECT * FROM models WHERE path = ? AND linked", (str(path),))
        return _artifact(row) if row else None

    def state(self, model: ModelArtifact) -> State:
        """Whether its files are where they were: ready, missing, or changed since they were added."""
        home = home_of(model)
        for file in model.manifest.get("files", ()):
            try:
                found = (home / file["name"]).stat()
            except OSError:
                return "missing"
            if found.st_size != file["size"]:
                return "changed"
            if model.linked and found.st_mtime_ns != file["modified_ns"]:
                return "changed"
        return "ready"

    def begin(self) -> Path:
        """A new folder to put a model's files into; without `add` it is cleared at the next start."""
        folder = self.folder / f"{UNFINISHED}{uuid.uuid4().hex}"
        folder.mkdir()
        return folder

    def add(
        self,
        facts: ModelFacts,
        files: Sequence[StoredFile],
        begun: Path | None = None,
        *,
        name: str = "",
        role: ModelRole = "chat",
        **notes: Any,
    ) -> ModelArtifact:
        """Take a model into the list: linked where `facts` found it, or copied into the folder `begun`.

        The same content twice is one model; a copy takes the place of a link to it, and of a copy that was
        damaged since, and keeps id, name and notes. `notes` become entries of the manifest: `origin` (hub repository and commit),
        `made` (the step that made it and its figures), `verdict`, …
        """
        name, digest = nfc(name or _name(facts)), _digest(file.sha256 for file in files)
        model_id, kept = f"{_slug(name)}-{digest[:8]}", dict[str, Any]()
        for model in self._with_content(digest):
            sound = self._is_sound(model)
            if sound and (begun is None or not model.linked):
                if begun is not None:
                    shutil.rmtree(begun, ignore_errors=True)
                return self._made_again(model, notes.get("made") or {})
            model_id, name, kept = model.id, model.name, {**kept, **model.manifest}
            if not sound:
                kept.pop("verdict", None)
            self.remove(model.id)
        if begun is None and (before := self.linked_from(Path(facts.path))):
            self.remove(before.id)  # the file there is another one now
        manifest = _manifest(model_id, name, facts, files, role=role, linked=begun is None)
        manifest = {**kept, **manifest, **notes}
        unfinished = begun or self.begin()
        write_atomically(unfinished / MANIFEST, json.dumps(manifest, ensure_ascii=False).encode())
        home = self.folder / model_id
        if home.exists():  # its manifest could not be read, so it was not listed
            home.rename(self.folder / f"{REMOVED}{uuid.uuid4().hex}")
        unfinished.rename(home)
        sync(self.folder)
        model = _from_manifest(manifest, home)
        try:
            self._insert(model)
        except BaseException:  # a full disk: what is not listed must not stay
            home.rename(unfinished)
            if begun is None:
                shutil.rmtree(unfinished, ignore_errors=True)
            raise
        return model

    def note(self, model_id: str, **notes: Any) -> ModelArtifact:
        """The model with these entries of its manifest written anew, such as `verdict` or `bench`."""
        with self._noting:  # a page and a job may note different things at the same moment
            model = self.get(model_id)
            home, manifest = self.folder / model.id, {**model.manifest, **notes}
            write_atomically(home / MANIFEST, json.dumps(manifest, ensure_ascii=False).encode())
            noted = _from_manifest(manifest, home)
            self._insert(noted)
        return noted

    def remove(self, model_id: str) -> None:
        """Take a model off the list; its copy is deleted, a linked original stays untouched."""
        model = self.get(model_id)
        home, trash = self.folder / model.id, self.folder / f"{REMOVED}{uuid.uuid4().hex}"
        try:
            if home.exists():
                home.rename(trash)
        except OSError as error:  # Windows does not move what a process has open
            raise ModelError(
                N_("its files are in use; unload it first."), name=model.name
            ) from error
        self._database.execute("DELETE FROM models WHERE id = ?", (model_id,))
        shutil.rmtree(trash, ignore_errors=True)

    def _with_content(self, digest: str) -> tuple[ModelArtifact, ...]:
        rows = self._database.rows("SELECT * FROM models WHERE id LIKE ?", (f"%-{digest[:8]}",))
        found = [_artifact(row) for row in rows]  # eight digits may be equal by chance
        return tuple(
            model
            for model in found
            if _digest(file["sha256"] for file in model.manifest["files"]) == digest
        )

    def _made_again(self, model: ModelArtifact, made: dict[str, Any]) -> ModelArtifact:
        """The model; where what it was made from has gone, what it was made from now takes that place."""
        before = (model.manifest.get("made") or {}).get("parent")
        known = self._database.row("SELECT id FROM models WHERE id = ?", (before,))
        if known or made.get("parent") in (None, model.id):
            return model
        return self.note(model.id, made=made)

    def _is_sound(self, model: ModelArtifact) -> bool:
        """Whether its files are there, and no check found one changed that has kept its size."""
        checks = (model.manifest.get("verdict") or {}).get("checks", ())
        damaged = any(c["name"] == "files" and c["verdict"] == "fail" for c in checks)
        return self.state(model) == "ready" and not damaged

    def _read_manifests(self) -> None:
        found = []
        for file in sorted(self.folder.glob(f"*/{MANIFEST}")):
            try:
                found.append(_from_manifest(json.loads(file.read_bytes()), file.parent))
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("%s is left out: %s", file.parent.name, error)
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM models")
            for model in found:
                _insert(connection, model)

    def _insert(self, model: ModelArtifact) -> None:
        with self._database.transaction() as connection:
            _insert(connection, model)


def home_of(model: ModelArtifact) -> Path:
    """The folder that holds the model's files."""
    path = Path(model.path)
    return path.parent if in_files(model.manifest) else path


def in_files(manifest: dict[str, Any]) -> bool:
    """Whether the model is a GGUF file, of a model or a LoRA, and no folder."""
    if manifest["format"] != "adapter":
        return bool(manifest["format"] == "gguf")
    return all(file["name"] != ADAPTER_CONFIG for file in manifest["files"])


def _is_dead_download(begun: Path) -> bool:
    """Whether it is a download's folder without its journal, or the other way round."""
    if not begun.name.startswith(DOWNLOAD):
        return False
    if begun.is_dir():
        return not begun.with_name(f"{begun.name}.journal").exists()
    return begun.suffix == ".journal" and not begun.with_suffix("").exists()


def _insert(connection: sqlite3.Connection, model: ModelArtifact) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO models (id, format, role, path, name, size, linked, architecture,"
        " parameters, context, manifest, added_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            model.id,
            model.format,
            model.role,
            model.path,
            model.name,
            model.size,
            model.linked,
            model.architecture,
            model.parameters,
            model.context,
            json.dumps(model.manifest, ensure_ascii=False),
            model.added_at,
        ),
    )


def _artifact(row: sqlite3.Row) -> ModelArtifact:
    return ModelArtifact(
        id=row["id"],
        format=row["format"],
        role=row["role"],
        path=row["path"],
        name=row["name"],
        size=row["size"],
        linked=bool(row["linked"]),
        added_at=row["added_at"],
        architecture=row["architecture"],
        parameters=row["parameters"],
        context=row["context"],
        manifest=json.loads(row["manifest"]),
    )


def _manifest(
    model_id: str,
    name: str,
    facts: ModelFacts,
    files: Sequence[StoredFile],
    *,
    role: ModelRole,
    linked: bool,
) -> dict[str, Any]:
    return {
        "version": 1,
        "id": model_id,
        "name": name,
        "format": facts.format,
        "role": role,
        "linked": linked,
        "source": facts.path,
        "added_at": time.time(),
        "architecture": facts.architecture,
        "parameters": facts.parameters,
        "context": facts.context,
        "vocabulary": facts.vocabulary,
        "layers": len(facts.layers),
        "quantisation": facts.quantisation,
        "types": facts.size_by_type(),
        "chat_template": facts.chat_template,
        **({"adapter": asdict(facts.adapter)} if facts.adapter else {}),
        "files": [asdict(file) for file in files],
    }


def _from_manifest(manifest: dict[str, Any], home: Path) -> ModelArtifact:
    """The model a manifest describes; a copied one lies beside it, wherever the data folder is now."""
    path = Path(manifest["source"]) if manifest["linked"] else home
    if not manifest["linked"] and in_files(manifest):
        path = home / manifest["files"][0]["name"]
    if manifest["format"] not in get_args(ModelFormat) or manifest["id"] != home.name:
        raise ValueError("the manifest belongs to another model")
    return ModelArtifact(
        id=manifest["id"],
        format=manifest["format"],
        role=manifest.get("role", "chat"),
        path=str(path),
        name=manifest["name"],
        size=sum(file["size"] for file in manifest["files"]),
        linked=manifest["linked"],
        added_at=manifest["added_at"],
        architecture=manifest["architecture"],
        parameters=manifest["parameters"],
        context=manifest["context"],
        manifest=manifest,
    )


def _name(facts: ModelFacts) -> str:
    """What people call it: the file's own name, or the header's where the file's says nothing."""
    if not facts.in_files:
        return facts.name
    stem = _SPLIT.sub("", Path(facts.path).stem)
    if _SAYS_NOTHING.fullmatch(stem):
        return f"{facts.name} {facts.quantisation}"
    return stem


def _digest(hashes: Iterable[str]) -> str:
    """Equal for equal content, whatever the files are called."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", fold(name)).strip("-.")[:48].strip("-.") or "model"
