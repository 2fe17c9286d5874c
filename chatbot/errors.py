"""Everything that can go wrong on purpose, as one tree.

    ChatbotError                 has a code, what happened, what to do; translated when shown
    ├── SettingsError            a setting or an argument that cannot be used
    ├── OwnerError               another Hearth holds the data folder
    │   ├── OwnerMissing         no Hearth runs, and the step needs one
    │   └── OwnerSilent          the Hearth that holds it does not answer
    ├── DatabaseError            the data folder's database cannot be opened or is newer than this Hearth
    ├── DiskFullError            no room to write
    ├── ChildError               a helper process failed
    │   ├── ChildDied            it ended without answering
    │   ├── ChildHung            it stopped giving signs of life
    │   └── ChildTimeout         it took longer than allowed
    ├── Cancelled                the person pressed cancel
    ├── DocumentError            a document cannot be added
    │   ├── UnsupportedDocument  not a kind of file we read
    │   ├── UnreadableDocument   broken, encrypted or hostile
    │   ├── EmptyDocument        nothing in it
    │   └── UndrawablePage       a page of it cannot be shown as a picture
    ├── CollectionError          a collection cannot be made, renamed or deleted
    ├── BrokenCollectionFile     an exported collection is damaged, cut off or not one
    ├── FolderError              a folder cannot be linked
    ├── NotFoundError            no such document, conversation, model, job
    ├── ModelError               a model cannot be used
    │   ├── BrokenModel          the file or folder is damaged, incomplete or refused
    │   ├── ModelDoesNotFit      the memory plan says no
    │   ├── ModelInUse           it is loaded, searched with, or read by a job
    │   ├── FailedCheck          what was made is not what it was made from
    │   ├── CannotConvert        it cannot be made into the form or type that was asked for
    │   ├── CannotPack           its zip cannot be written where it was asked for
    │   ├── MissingBackend       the library that runs this model is not installed
    │   └── NoReranker           reranking was asked for, and no cross-encoder is chosen
    ├── EngineError              an answer could not be written
    │   ├── ContextOverflow      the prompt is longer than the model can read
    │   ├── OutOfMemory          memory ran out while loading or answering
    │   ├── Busy                 the queue of questions is full
    │   └── RemoteError          a remote endpoint refused or could not be reached
    ├── HubError                 the model hub refused, or could not be reached
    │   └── GatedModel           its owner gives it only to people who accepted the terms
    └── OfflineError             the step needs the internet and HEARTH_OFFLINE forbids it

Raise with values: `raise UnreadableDocument(name="a.pdf", detail="…")`. Each class has its own
sentence (`happened`) and cure (`next_step`), both English msgids with `{named}` values; `text(language)`
gives both in the person's language. Errors cross process borders as `to_dict` / `from_dict`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from chatbot.i18n import GB, N_, figure, filled, translate
from chatbot.types import Language

MemoryPhase = Literal["load", "prefill", "decode"]
MemoryPlace = Literal["ram", "gpu"]


class ChatbotError(Exception):
    """Something went wrong that a person can be told about: a code, what happened, what to do next."""

    code: ClassVar[str] = "error"
    happened: ClassVar[str] = N_("Something went wrong: {detail}")
    next_step: ClassVar[str] = N_("Try again; if it happens twice, send the diagnostic report.")

    def __init__(self, detail: str = "", **values: Any) -> None:
        self.values: dict[str, Any] = {"detail": detail, **values}
        super().__init__(self.text("en"))

    def text(self, language: Language) -> str:
        """What happened and what to do, as one paragraph in that language."""
        sentences = (translate(self.happened, language), translate(self.next_step, language))
        return " ".join(_ended(self._fill(s, language)) for s in sentences if s).strip()

    def _fill(self, sentence: str, language: Language) -> str:
        # A detail may itself be one of our own sentences; a foreign one is shown as it came.
        values = {key: _shown(value, language) for key, value in self.values.items()}
        if isinstance(values.get("detail"), str):  # one of our own may name what it is about
            values["detail"] = _PLACE.sub(
                lambda place: str(values.get(place[1], "")), values["detail"]
            )
        return sentence.format_map(_Named(values))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form that `from_dict` turns back into the same class."""
        return {"code": self.code, "values": self.values}

    def to_json(self) -> str:
        """`to_dict` as text, as it is stored in a row."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> ChatbotError:
        """The error that `to_dict` described; an unknown code becomes a plain ChatbotError."""
        known = {cls.code: cls for cls in every_error()}
        error = known.get(str(data.get("code")), ChatbotError)()
        error.values = dict(data.get("values", {}))
        error.args = (error.text("en"),)
        return error

    @staticmethod
    def from_json(text: str) -> ChatbotError:
        """The error that `to_json` wrote."""
        return ChatbotError.from_dict(json.loads(text))


_PLACE = re.compile(r"\{(part|theirs|ours)\}")


def _shown(value: Any, language: Language) -> Any:
    if isinstance(value, str):
        return translate(value, language)
    return figure(value, language) if isinstance(value, float) else value


def _ended(sentence: str) -> str:
    """With a full stop, which a detail at its end may lack."""
    sentence = sentence.strip()
    return sentence if sentence.endswith((".", "!", "?", "…", ".”")) else f"{sentence}."


class _Named(dict[str, Any]):
    """Leaves a placeholder without a value empty instead of failing inside an error message."""

    def __missing__(self, key: str) -> str:
        return ""


def every_error() -> list[type[ChatbotError]]:
    """Every class of the tree, the root first."""
    found: list[type[ChatbotError]] = [ChatbotError]
    for cls in found:
        found.extend(cls.__subclasses__())
    return found


class SettingsError(ChatbotError):
    code = "settings"
    happened = N_("This setting cannot be used: {detail}")
    next_step = N_("Correct it and try again.")


class OwnerError(ChatbotError):
    code = "owner"
    happened = N_("Hearth is already running on this data folder, at {address}.")
    next_step = N_("Use that window, or close it first.")


class OwnerMissing(OwnerError):
    code = "owner_missing"
    happened = N_("No Hearth is running on this data folder that could keep a model loaded.")
    next_step = N_("Start Hearth and try again.")


class OwnerSilent(OwnerError):
    code = "owner_silent"
    happened = N_("The Hearth at {address} does not answer: {detail}")
    next_step = N_("It may be starting or closing; try again in a moment.")


class DatabaseError(ChatbotError):
    code = "database"
    happened = N_("The data folder's database cannot be opened: {detail}")
    next_step = N_("Update Hearth, or restore a backup.")


class DiskFullError(ChatbotError):
    code = "disk_full"
    happened = N_("There is not enough room on the disk: {detail}")
    next_step = N_("Free some space and try again. Nothing was half-stored.")


class ChildError(ChatbotError):
    code = "child"
    happened = N_("A helper process failed: {detail}")
    next_step = N_("Hearth starts it again by itself; please repeat the last step.")


class ChildDied(ChildError):
    code = "child_died"
    happened = N_("The helper process {name} ended unexpectedly ({detail}).")


class ChildHung(ChildError):
    code = "child_hung"
    happened = N_("The helper process {name} stopped responding and was ended.")


class ChildTimeout(ChildError):
    code = "child_timeout"
    happened = N_("The helper process {name} took longer than {seconds} seconds and was ended.")
    next_step = N_("The input may be damaged or too large; try a smaller one.")


class Cancelled(ChatbotError):
    code = "cancelled"
    happened = N_("Cancelled.")
    next_step = ""


class DocumentError(ChatbotError):
    code = "document"
    happened = N_("“{name}” cannot be added: {detail}")
    next_step = N_("Check the file and add it again.")


class UnsupportedDocument(DocumentError):
    code = "unsupported_document"
    happened = N_("“{name}” is not a kind of file Hearth reads.")
    next_step = N_(
        "Add PDF, Word (DOCX), Excel (XLSX), PowerPoint (PPTX), OpenDocument, RTF, EPUB, mail (EML, MSG), CSV,"
        " HTML, Markdown, plain text, or a picture (PNG, JPEG, TIFF)."
    )


class UnreadableDocument(DocumentError):
    code = "unreadable_document"
    happened = N_("“{name}” cannot be read: {detail}")
    next_step = N_("Open it in its own program, save it anew and add that copy.")


class EmptyDocument(DocumentError):
    code = "empty_document"
    happened = N_("“{name}” is empty.")
    next_step = N_("Choose a file with text in it.")


class FolderError(ChatbotError):
    code = "folder"
    happened = N_("The folder “{path}” cannot be linked: {detail}")
    next_step = N_("Name another folder, or end the other link first.")


class UndrawablePage(DocumentError):
    code = "undrawable_page"
    happened = N_("Page {page} of “{name}” cannot be shown: {detail}")
    next_step = N_(
        "Look at the text that Hearth read, or save the original file and open it in its own program."
    )


class CollectionError(ChatbotError):
    code = "collection"
    happened = N_("The collection cannot be called “{name}”: {detail}")
    next_step = N_("Choose another name.")


class BrokenCollectionFile(ChatbotError):
    code = "broken_collection_file"
    happened = N_("“{name}” cannot be imported: {detail}")
    next_step = N_("Export the collection again on the other PC and copy the whole file here.")


class NotFoundError(ChatbotError):
    code = "not_found"
    happened = N_("Not found: {detail}")
    next_step = N_("It may have been deleted; look at the list again.")


class ModelError(ChatbotError):
    code = "model"
    happened = N_("The model “{name}” cannot be used: {detail}")
    next_step = N_("Choose another model, or go on without one.")


class BrokenModel(ModelError):
    code = "broken_model"
    happened = N_("The model “{name}” is damaged or not safe to open: {detail}")
    next_step = N_("Download or copy it again, then import it once more.")


class ModelDoesNotFit(ModelError):
    code = "model_does_not_fit"
    happened = N_(
        "The model “{name}” does not fit in memory: it needs {needed} GB; {free} GB are free, and other"
        " programs must keep some of that."
    )
    next_step = N_("Choose a smaller model or a shorter context, or press “load anyway”.")


class ModelInUse(ModelError):
    code = "model_in_use"
    happened = N_("The model “{name}” is in use: {detail}")
    next_step = N_("Wait until that ends, or end it, and try again.")


class FailedCheck(ModelError):
    code = "failed_check"
    happened = N_("The model “{name}” did not pass its check: {failed} of {checks} parts failed.")
    next_step = N_(
        "It stays on the list, marked. Look at the figures on its card, and make it again; its answers may"
        " be wrong."
    )


class CannotConvert(ModelError):
    code = "cannot_convert"
    happened = N_("The model “{name}” cannot be converted: {detail}")
    next_step = N_("The model itself is unchanged; choose another type or another model.")


class CannotPack(ModelError):
    code = "cannot_pack"
    happened = N_("The zip of the model “{name}” cannot be written: {detail}")
    next_step = N_("Choose another folder or disk for it and try again.")


class MissingBackend(ModelError):
    code = "missing_backend"
    happened = N_("The library that runs “{name}” is not installed: {detail}")
    next_step = N_("The README's set-up section names the one line that installs it.")


class NoReranker(ModelError):
    code = "no_reranker"
    happened = N_("No model for reranking is chosen.")
    next_step = N_("Name a cross-encoder in the settings, or search without reranking.")


class EngineError(ChatbotError):
    code = "engine"
    happened = N_("The answer could not be written: {detail}")
    next_step = N_("Ask again, or choose another model.")


class ContextOverflow(EngineError):
    code = "context_overflow"
    happened = N_(
        "The question and its context need {needed} tokens, but the model can read {context}."
    )
    next_step = N_("Shorten the question, choose fewer documents, or load a longer context.")


class OutOfMemory(EngineError):
    """Carries, once its process is gone: `phase`, `place`, `freed` (bytes [before, after] by place), `cures`."""

    code = "out_of_memory"
    happened = N_("Memory ran out while running “{name}”.")
    next_step = N_("The model was unloaded. Try a shorter context or a smaller model.")
    during: ClassVar[dict[str, str]] = {
        "load": N_("Memory ran out while the model “{name}” was being loaded."),
        "prefill": N_("Memory ran out while the model “{name}” was reading the question."),
        "decode": N_("Memory ran out while the model “{name}” was writing the answer."),
    }

    def add(self, **values: Any) -> None:
        """Keep what was found out since it was raised."""
        self.values.update(values)
        self.args = (self.text("en"),)

    def text(self, language: Language) -> str:
        """What happened, what came back, and what would help first."""
        sentences = [*self.sentences(language)]
        if cures := self.values.get("cures"):
            way = filled(cures[0]["words"], cures[0]["values"], language)
            sentences.append(translate(N_("This would help. {way}."), language).format(way=way))
        else:
            sentences.append(translate(self.next_step, language))
        return " ".join(sentences)

    def sentences(self, language: Language) -> Iterator[str]:
        """What happened, and how much memory is free again."""
        happened = self.during.get(self.values.get("phase", ""), self.happened)
        yield self._fill(translate(happened, language), language)
        words = {
            "ram": N_("Main memory in use: {before} GB then, {after} GB now."),
            "gpu": N_("Graphics memory in use: {before} GB then, {after} GB now."),
        }
        for place, (before, after) in self.values.get("freed", {}).items():
            figures = {"before": before / GB, "after": after / GB}
            yield filled(words[place], figures, language)


class Busy(EngineError):
    code = "busy"
    happened = N_("Too many questions are waiting ({waiting}).")
    next_step = N_("Try again in a moment.")


class RemoteError(EngineError):
    code = "remote"
    happened = N_("The remote model at {address} did not answer: {detail}")
    next_step = N_("Check the address, the key and that the server is running.")


class HubError(ChatbotError):
    code = "hub"
    happened = N_("“{name}” could not be fetched from or sent to {address}: {detail}")
    next_step = N_("Check the internet connection and try again; what has arrived is kept.")


class GatedModel(HubError):
    code = "gated_model"
    happened = N_("“{name}” is given only to people who accepted its terms: {detail}")
    next_step = N_(
        "Sign in at {page} and accept the terms, make an access token in your account there, enter it in"
        " Hearth, and press Download again."
    )


class OfflineError(ChatbotError):
    code = "offline"
    happened = N_("This step needs the internet, and Hearth is set to stay offline.")
    next_step = N_("Unset HEARTH_OFFLINE to allow it.")
