"""What turns text into vectors: the built-in one, static models, sentence-transformers models.

    hearth-surface        built in, no download; sees spelling, not meaning (SurfaceEmbedder)
    a model2vec folder    one vector per word piece, averaged (StaticEmbedder)
    any other folder      or Hugging Face name: sentence-transformers (TransformerEmbedder)

An embedder is known by its stamp; vectors of different stamps are never compared.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from chatbot.errors import BrokenModel, ChatbotError, MissingBackend, OfflineError
from chatbot.settings import offline
from chatbot.text import folded_words, words
from chatbot.types import Language

Kind = Literal["query", "passage"]
Vectors = NDArray[np.float32]

SURFACE = "hearth-surface"


class Embedder(Protocol):
    """Text in, vectors of length 1 out."""

    @property
    def id(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def dimension(self) -> int: ...
    @property
    def query_prefix(self) -> str: ...
    @property
    def passage_prefix(self) -> str: ...

    def embed(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """One float32 row per text, L2-normalised; a text without words gives a row of zeros."""
        ...

    def weight(self, language: Language) -> float:
        """How much of a fused score its similarities may make up for questions in that language."""
        ...


def load_embedder(name: str, *, allow_download: bool = False) -> Embedder:
    """The embedder of that name: `hearth-surface`, a model folder, or a Hugging Face repository.

    Raises BrokenModel for a folder that cannot be used, OfflineError for a repository that is not
    on this disk when downloading is not allowed.
    """
    if name == SURFACE:
        return SurfaceEmbedder()
    folder = local_folder(name, allow_download=allow_download)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config.get("model_type") == "model2vec":
            return StaticEmbedder(folder)
        return TransformerEmbedder(folder, config)
    except ChatbotError:
        raise
    except Exception as error:  # parsers of damaged files raise whatever they like
        raise BrokenModel(f"{type(error).__name__}: {error}", name=name) from error


def stamp_of(embedder: Embedder, chunker_version: str) -> str:
    """Everything that decides a stored vector, in one line; equal stamps, comparable vectors."""
    prefixes = f"{embedder.query_prefix}\0{embedder.passage_prefix}"
    return (
        f"{embedder.id}@{embedder.revision}/{embedder.dimension}"
        f"/{hashlib.sha256(prefixes.encode()).hexdigest()[:8]}/{chunker_version}"
    )


def contextual_text(name: str, path: str, text: str) -> str:
    """What is embedded for a passage: where it stands, then its words."""
    return f"{readable_name(name)} › {path}\n{text}" if path else f"{readable_name(name)}\n{text}"


def readable_name(name: str) -> str:
    """A file name as words: 'quy_che-dao-tao.pdf' → 'quy che-dao-tao'."""
    return re.sub(r"\.[A-Za-z0-9]{1,5}$", "", name).replace("_", " ")


class SurfaceEmbedder:
    """Vectors from spelling alone: needs no download, no training data, no corpus.

    Each folded word is a fixed random projection of its letter groups (three and four letters, and the
    whole word), a text is the weighted sum of its words. Words spelt alike are near: typing errors,
    missing accents, English inflections. It does not know that 'car' and 'vehicle' are related.
    Alone it finds less than the lexical index on every set we measured; it helps where a question's
    words are misspelt, and so it is fused with a small weight (benchmarks: docs/decisions.md).
    """

    id = SURFACE
    revision = "1"
    dimension = 384
    query_prefix = ""
    passage_prefix = ""

    _CACHED_WORDS = 20_000

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._vectors: Vectors = np.empty((256, self.dimension), np.float32)

    def embed(self, texts: Sequence[str], kind: Kind) -> Vectors:  # noqa: ARG002  both kinds alike
        result = np.zeros((len(texts), self.dimension), np.float32)
        for number, text in enumerate(texts):
            counts = Counter(folded_words(text))
            if not counts:
                continue
            if len(self._rows) + len(counts) > self._CACHED_WORDS:
                self._rows.clear()
            rows = [self._row(word) for word in counts]
            weights = [
                # Long words tell more; a word that fills every text tells little.
                (count * len(word)) ** 0.5 * (0.2 if word in _COMMON else 1.0)
                for word, count in counts.items()
            ]
            result[number] = np.asarray(weights, np.float32) @ self._vectors[rows]
        return normalised(result)

    def weight(self, language: Language) -> float:  # noqa: ARG002  spelling has no language
        return 0.03

    def _row(self, word: str) -> int:
        row = self._rows.get(word)
        if row is None:
            row = self._rows[word] = len(self._rows)
            if row >= len(self._vectors):
                grown = np.empty((2 * len(self._vectors), self.dimension), np.float32)
                grown[: len(self._vectors)] = self._vectors
                self._vectors = grown
            self._vectors[row] = self._word_vector(word)
        return row

    def _word_vector(self, word: str) -> Vectors:
        framed = f"<{word}>"
        grams, weights = [framed], [1.0]
        for length in (3, 4):
            found = [framed[i : i + length] for i in range(len(framed) - length + 1)]
            grams += found
            weights += [(2 * max(1, len(found))) ** -0.5] * len(found)
        vector: Vectors = np.asarray(weights, np.float32) @ self._projections(grams)
        return vector / np.float32(np.linalg.norm(vector))

    def _projections(self, grams: Sequence[str]) -> Vectors:
        """A row of ±1 per letter group, from its hash alone (splitmix64), equal on every machine."""
        seeds = np.array([zlib.crc32(gram.encode()) for gram in grams], "<u8")
        steps = np.arange(1, self.dimension // 64 + 1, dtype="<u8")
        mixed = seeds[:, None] + np.uint64(0x9E3779B97F4A7C15) * steps[None]
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
        bits = np.unpackbits(mixed.astype("<u8").view(np.uint8), axis=1)
        return bits.astype(np.float32) * 2 - 1


class StaticEmbedder:
    """A model2vec folder: a text's vector is the weighted mean of its word pieces' vectors."""

    query_prefix = ""
    passage_prefix = ""

    def __init__(self, folder: Path) -> None:
        """Read the folder's tensors and tokenizer. Raises OSError, ValueError or KeyError."""
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        tensors = load_file(folder / "model.safetensors")
        vectors = tensors["embeddings"].astype(np.float32)
        if "mapping" in tensors:
            vectors = vectors[tensors["mapping"]]
        if "weights" in tensors:
            vectors = vectors * tensors["weights"].astype(np.float32)[:, None]
        self.id = folder.name
        self.revision = _revision(folder)
        self.dimension = int(vectors.shape[1])
        self._vectors: Vectors = vectors
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def embed(self, texts: Sequence[str], kind: Kind) -> Vectors:  # noqa: ARG002  both kinds alike
        result = np.zeros((len(texts), self.dimension), np.float32)
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        for number, encoding in enumerate(encoded):
            if encoding.ids:
                result[number] = self._vectors[encoding.ids].mean(axis=0)
        return normalised(result)

    def weight(self, language: Language) -> float:
        pieces = self._tokenizer.encode(_SAMPLE[language], add_special_tokens=False).tokens
        # A mean of word pieces is a weak judge of meaning: a fifth of what a transformer gets.
        return _trusted(len(pieces), language) / 5


class TransformerEmbedder:
    """A sentence-transformers folder, with the prompts its own configuration names.

    Code from the folder never runs: modules outside sentence-transformers, `auto_map` entries and
    weights other than safetensors are refused.
    """

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        """Load the model. Raises BrokenModel, MissingBackend, OSError or ValueError."""
        refuse_foreign_code(folder, config)
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise MissingBackend(str(error), name=folder.name) from error
        self._model = SentenceTransformer(
            str(folder),
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        )
        self.id = _model_name(folder)
        self.revision = _revision(folder)
        self.dimension = int(self._model.get_embedding_dimension() or 0)
        self.query_prefix, self.passage_prefix = self._prefixes()

    def embed(self, texts: Sequence[str], kind: Kind) -> Vectors:
        prefix = self.query_prefix if kind == "query" else self.passage_prefix
        vectors = self._model.encode(
            [prefix + text for text in texts],
            prompt="",
            batch_size=16,
            normalize_embeddings=True,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        return np.asarray(vectors, np.float32).reshape(len(texts), self.dimension)

    def weight(self, language: Language) -> float:
        return _trusted(len(self._model.tokenizer.tokenize(_SAMPLE[language])), language)

    def _prefixes(self) -> tuple[str, str]:
        prompts = self._model.prompts or {}
        query = prompts.get("query") or ""
        passage = prompts.get("document") or prompts.get("passage") or ""
        if not query and not passage and re.search(r"(^|[-_/])e5[-_]", self.id.lower()):
            return "query: ", "passage: "  # the E5 family's card; its configuration is silent
        return query, passage


def normalised(vectors: Vectors) -> Vectors:
    """Each row divided by its length; rows of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)


def _trusted(pieces: int, language: Language) -> float:
    """The fusion weight of a semantic model: half, unless its tokenizer shatters the language.

    A vocabulary that was made for a language needs 1.1–1.3 pieces a word; all-MiniLM (English) needs
    1.2 for English and 1.7 for Vietnamese, where giving it half costs 5 to 15 points of recall@1.
    """
    return 0.5 if pieces / len(words(_SAMPLE[language])) < 1.5 else 0.03


def local_folder(name: str, *, allow_download: bool) -> Path:
    """Where a model lies that is named by folder or repository. Raises BrokenModel, OfflineError."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if "/" not in name or Path(name).is_absolute():
        raise BrokenModel("no such folder", name=name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                name,
                local_files_only=not allow_download or offline(),
                allow_patterns=["*.json", "*.txt", "*.model", "*.safetensors", "*/config.json"],
                ignore_patterns=["onnx/*", "openvino/*"],
            )
        )
    except LocalEntryNotFoundError as error:
        raise OfflineError(name) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise BrokenModel(f"{type(error).__name__}: {error}", name=name) from error


def _model_name(folder: Path) -> str:
    """A folder's name; for a hub snapshot (models--owner--name/snapshots/commit) owner/name."""
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/")
    return folder.name


def _revision(folder: Path) -> str:
    """A short hash of the files that decide the vectors: of large ones the ends and the size."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix not in (".json", ".safetensors", ".txt", ".model") or not file.is_file():
            continue
        size = file.stat().st_size
        digest.update(f"{file.relative_to(folder).as_posix()}\0{size}\0".encode())
        with file.open("rb") as content:
            digest.update(content.read(1 << 20))
            if size > 2 << 20:
                content.seek(-(1 << 20), 2)
                digest.update(content.read())
    return digest.hexdigest()[:12]


def refuse_foreign_code(folder: Path, config: dict[str, Any]) -> None:
    """Raise BrokenModel for a folder with code of its own or weights that could hold code."""
    modules_file = folder / "modules.json"
    modules = json.loads(modules_file.read_text(encoding="utf-8")) if modules_file.exists() else []
    foreign = [m["type"] for m in modules if not m["type"].startswith("sentence_transformers.")]
    if "auto_map" in config:
        foreign.append("auto_map")
    if foreign:
        raise BrokenModel(f"it brings its own code ({', '.join(foreign)})", name=folder.name)
    if not any(folder.rglob("*.safetensors")):
        raise BrokenModel("no .safetensors weights", name=folder.name)


# Words that stand in nearly every text of their language; weighed low, never dropped.
_COMMON = frozenset(
    """la va cua co khong duoc cho cac nhung trong nguoi khi nao nhu the theo phai bi bao nhieu toi gi
    voi mot ve tai hay den tu nay do thi hoac ma dung sai da se dang o ra vao tren duoi sau truoc neu
    the of and to in is are was were what when how who which for a an be with on by must may can does
    did i my from that this at as it its or not has have had where why whom whose than then there
    their they he she his her""".split()  # noqa: SIM905  words read as words
)

_SAMPLE: dict[Language, str] = {
    "vi": "Người lao động có quyền đơn phương chấm dứt hợp đồng nhưng phải báo trước cho người sử dụng "
    "lao động ít nhất ba mươi ngày, trừ trường hợp pháp luật quy định khác.",
    "en": "An employee may end the contract at any time but must give the employer at least thirty days "
    "of notice in writing, unless the law provides otherwise.",
}
