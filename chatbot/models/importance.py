"""Step `measure_importance`: which inputs of each weight matrix carry the text that a person really reads.

The mean square of every input while the model reads the texts, in the file format of llama.cpp's own
imatrix tool, so that each can quantise with what the other measured.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chatbot.errors import (
    BrokenModel,
    CannotConvert,
    ChatbotError,
    EngineError,
    MissingBackend,
)
from chatbot.hardware.process import physical_cores
from chatbot.i18n import N_
from chatbot.memory.gguf import read_gguf
from chatbot.memory.headers import read_model
from chatbot.models.files import Report
from chatbot.models.llama_log import heard
from chatbot.settings import sync

CHUNK = 512
"""Tokens read at once, each chunk as a text of its own."""
CHUNKS = 64
"""At most so many, spread evenly over the texts: 32,768 tokens."""
FEWEST = 4 * CHUNK
"""Tokens below which the figures say more about chance than about the texts."""
_EVERY = 8  # token whose output is asked for: the last layer computes only those
_SPECIAL, _WITH_DATA = False, True  # texts are no templates; forget also what was computed
_NAME, _SUMS, _COUNTS = 64, ".in_sum2", ".counts"
_READING = N_("Reading your documents, part {part} of {parts}")


class _Tensor(ctypes.Structure):
    """ggml_tensor as far as it is read here; `_checked` holds it against ggml's own functions."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * _NAME),
    )


def measure_importance(
    report: Report,
    *,
    source: Path,
    file: Path,
    texts: Sequence[str] | str,
    threads: int | None = None,
) -> dict[str, Any]:
    """Write the importance matrix of the GGUF `source` to `file`: {tokens, chunks, tensors, size, seconds}.

    `texts` are texts, or the path of a UTF-8 text file. Experts of mixture models are left out. Raises
    CannotConvert for too little text or a model that is no float GGUF, BrokenModel, EngineError.
    """
    started = time.monotonic()
    facts = read_model(source)
    if facts.format != "gguf" or not facts.writes_text:
        raise CannotConvert(
            N_("importance is measured on a GGUF file of a model that writes text."),
            name=facts.name,
        )
    if isinstance(texts, str):
        texts = [Path(texts).read_text(encoding="utf-8")]
    try:
        from llama_cpp import llama_cpp
    except ImportError as error:
        raise MissingBackend(str(error), name=facts.name) from error
    with heard(llama_cpp), _Reader(facts.path, facts.name, threads) as reader:
        chunks = reader.chunks(texts)
        for number, chunk in enumerate(chunks):
            report(number / len(chunks), _READING, part=number + 1, parts=len(chunks))
            reader.read(chunk, report, number / len(chunks))
        _write(file, reader.sums, reader.counts, len(chunks))
    return {
        "tokens": sum(len(chunk) for chunk in chunks),
        "chunks": len(chunks),
        "tensors": len(reader.sums),
        "size": file.stat().st_size,
        "seconds": round(time.monotonic() - started, 3),
    }


def read_importance(file: Path) -> dict[str, Any]:
    """Mean squares (float32 arrays) by tensor name. Raises BrokenModel for anything else than such a file."""
    import numpy as np
    from gguf import GGUFReader

    header = read_gguf(file)
    if header.values.get("general.type") != "imatrix":
        raise BrokenModel(N_("it is not an importance matrix."), name=file.name)
    tensors = {tensor.name: tensor.data for tensor in GGUFReader(file).tensors}
    found = {}
    for name, sums in tensors.items():
        counts = tensors.get(f"{name.removesuffix(_SUMS)}{_COUNTS}")
        if not name.endswith(_SUMS):
            continue
        if counts is None or sums.dtype != np.float32 or counts.size * sums.shape[-1] != sums.size:
            raise BrokenModel(N_("it is not an importance matrix."), name=file.name)
        means = sums.reshape(counts.size, -1) / np.maximum(counts.reshape(-1, 1), 1)
        if not np.isfinite(means).all() or (means < 0).any():
            raise BrokenModel(N_("it is not an importance matrix."), name=file.name)
        found[name.removesuffix(_SUMS)] = np.ascontiguousarray(means, np.float32).reshape(-1)
    return found


class _Reader:
    """A model that reads text and adds up the squares of what enters its weight matrices."""

    def __init__(self, path: str, name: str, threads: int | None) -> None:
        from llama_cpp import llama_cpp
        from llama_cpp._ggml import libggml

        self.sums: dict[str, Any] = {}
        self.counts: dict[str, int] = {}
        self._c: Any = llama_cpp
        self._name = name
        self._ended: ChatbotError | None = None
        self._op_name = libggml.ggml_op_desc
        self._op_name.argtypes, self._op_name.restype = [ctypes.c_void_p], ctypes.c_char_p
        self._name_of = libggml.ggml_get_name
        self._name_of.argtypes, self._name_of.restype = [ctypes.c_void_p], ctypes.c_char_p
        self._callback = llama_cpp.ggml_backend_sched_eval_callback(self._seen)
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0  # what a GPU computes cannot be read from here
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), params)
        if not self._model:
            raise BrokenModel(N_("llama.cpp cannot load it."), name=name)
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = CHUNK
        options.n_threads = options.n_threads_batch = threads or physical_cores()
        options.cb_eval = self._callback
        self._context = llama_cpp.llama_init_from_model(self._model, options)
        if not self._context:
            raise EngineError("llama_init_from_model")
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self._checked = False
        self._report: Report | None = None
        self._at = 0.0

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._c.llama_free(self._context)
        self._c.llama_model_free(self._model)

    def chunks(self, texts: Sequence[str]) -> list[list[int]]:
        """Pieces of the texts' tokens, spread evenly over all of them."""
        tokens = [token for text in texts for token in self._tokens(text)]
        if len(tokens) < FEWEST:
            raise CannotConvert(
                N_("there is too little text to measure with ({part} tokens)."),
                name=self._name,
                part=f"{len(tokens)} < {FEWEST}",
            )
        start = [self._c.llama_vocab_bos(self._vocab)]
        first = start if self._c.llama_vocab_get_add_bos(self._vocab) else []
        size = CHUNK - len(first)
        whole = len(tokens) // size
        count = min(whole, CHUNKS)
        places = [number * whole // count * size for number in range(count)]
        return [[*first, *tokens[at : at + size]] for at in places]

    def read(self, chunk: list[int], report: Report, fraction: float) -> None:
        """Let the model read one chunk, afresh."""
        c = self._c
        self._report, self._at = report, fraction
        c.llama_memory_clear(c.llama_get_memory(self._context), _WITH_DATA)
        batch = c.llama_batch_init(len(chunk), 0, 1)
        try:
            batch.n_tokens = len(chunk)
            for place, token in enumerate(chunk):
                batch.token[place], batch.pos[place] = token, place
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
                batch.logits[place] = place % _EVERY == _EVERY - 1
            code = c.llama_decode(self._context, batch)
        finally:
            c.llama_batch_free(batch)
        if self._ended is not None:
            raise self._ended
        if code:
            raise EngineError(f"llama_decode: {code}")

    def _tokens(self, text: str) -> list[int]:
        encoded = text.encode()
        room = (ctypes.c_int32 * (len(encoded) + 8))()
        count = self._c.llama_tokenize(
            self._vocab,
            encoded,
            len(encoded),
            room,
            len(room),
            _SPECIAL,
            _SPECIAL,
        )
        return list(room[: max(count, 0)])

    def _seen(self, address: int, asked: bool, _data: object) -> bool:
        """ggml asks of every step whether its result is wanted, and shows it when it is."""
        try:
            step = _Tensor.from_address(address)
            if asked:
                return self._op_name(address) == b"MUL_MAT" and self._weight(step) is not None
            self._take(address, step)
        except ChatbotError as error:  # a callback from C cannot raise; `read` does
            self._ended = error
            return False
        return True

    def _weight(self, step: _Tensor) -> str | None:
        name: str = _Tensor.from_address(step.src[0]).name.decode("utf-8", "replace")
        return name if name.startswith("blk.") and name.endswith(".weight") else None

    def _take(self, address: int, step: _Tensor) -> None:
        import numpy as np

        if not self._checked:
            self._check(address, step)
        assert self._report is not None
        self._report(self._at)
        name, entering = self._weight(step), _Tensor.from_address(step.src[1])
        assert name is not None
        columns = entering.ne[0]
        rows = entering.ne[1] * entering.ne[2] * entering.ne[3]
        if entering.type or entering.nb[1] != 4 * columns:  # not floats in one piece
            return
        floats = ctypes.cast(entering.data, ctypes.POINTER(ctypes.c_float))
        values = np.ctypeslib.as_array(floats, (rows, columns)).astype(np.float64)
        self.sums[name] = self.sums.get(name, 0.0) + np.einsum("rc,rc->c", values, values)
        self.counts[name] = self.counts.get(name, 0) + rows

    def _check(self, address: int, step: _Tensor) -> None:
        """Another version of ggml may lay its tensors out differently; then nothing may be read."""
        if self._name_of(address) != step.name or self._name_of(step.src[0]) != (
            _Tensor.from_address(step.src[0]).name
        ):
            raise EngineError("ggml_tensor")
        self._checked = True


def _write(file: Path, sums: dict[str, Any], counts: dict[str, int], chunks: int) -> None:
    import numpy as np
    from gguf import GGUFWriter

    writer = GGUFWriter(file, "imatrix")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["documents"])
    writer.add_uint32("imatrix.chunk_count", chunks)
    writer.add_uint32("imatrix.chunk_size", CHUNK)
    for name in sorted(sums):
        writer.add_tensor(f"{name}{_SUMS}", sums[name].astype(np.float32).reshape(1, -1))
        writer.add_tensor(f"{name}{_COUNTS}", np.array([[counts[name]]], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    sync(file)
