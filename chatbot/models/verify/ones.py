"""An embedding of ones, saved as this model is saved and loaded again: its mean must still be 1."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from chatbot.i18n import N_
from chatbot.memory.facts import Tensor
from chatbot.models.state_dict import StateDictWriter
from chatbot.models.verify import thresholds
from chatbot.models.verify.check import Check, check, skipped
from chatbot.models.verify.number_types import FLOATS, Requantiser, Values, decode
from chatbot.models.verify.stored import Stored, StoredModel, tensors_of
from chatbot.models.weights import Writer, dtype_of

VALUES = 1 << 18
"""How many ones at most: rows of the table's own width."""
OFF_ONES = N_("An embedding set to ones comes back with mean {mean}.")
NO_TABLE = N_("There is no embedding table.")
UNWRITTEN = N_("Nothing here writes the type {kind}.")


def ones(made: StoredModel) -> Check:
    """Whether ones in the type, width and file format of the embedding table come back with mean 1."""
    table = next((t for n, t in made.tensors.items() if is_embedding(n)), None)
    if table is None:
        return skipped("ones", NO_TABLE)
    rows = max(1, min(table.rows, VALUES // table.width))
    with TemporaryDirectory(prefix="hearth-ones-", ignore_cleanup_errors=True) as folder:
        try:
            saved = _saved(made, table, rows, Path(folder))
        except (ImportError, OSError, KeyError):  # no llama.cpp here, or a type of its own
            return skipped("ones", UNWRITTEN, kind=table.type)
        loaded = tensors_of(saved)[table.name]
        back = decode(loaded.read(0, loaded.rows), loaded.type, loaded.width)
        if back is None:
            return skipped("ones", UNWRITTEN, kind=table.type)
        mean = float(back.mean(dtype=np.float64))
    allowed = 0.0 if table.type in FLOATS else thresholds.RELATIVE.get(table.type, 1.0)
    kept = loaded.type == table.type and back.shape == (rows, table.width)
    fault = "" if kept and abs(mean - 1) <= allowed else OFF_ONES  # NaN is a fault, too
    measured = {"type": loaded.type, "mean": mean, "rows": rows}
    shown = {"mean": f"{mean:.4g}"} if fault else {}
    return check("ones", fault, measured=measured, limit={"distance": allowed}, **shown)


def is_embedding(name: str) -> bool:
    """Whether that tensor is the embedding table."""
    return name == "token_embd.weight" or name.endswith(
        ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")
    )


def _saved(made: StoredModel, table: Stored, rows: int, folder: Path) -> Path:
    """A file of the model's format with nothing in it but ones."""
    if made.form == "gguf":
        return _gguf(made, table, rows, folder / "ones.gguf")
    import torch

    size = rows * table.row_size
    coming = (Tensor(table.name, (rows, table.width), table.type, size),)
    writer = StateDictWriter(folder, coming) if made.form == "pt" else Writer(folder, coming)
    with writer:
        writer.put(table.name, [torch.ones(rows, table.width, dtype=dtype_of(table.type))])
    return folder / writer.files[0].name


def _gguf(made: StoredModel, table: Stored, rows: int, file: Path) -> Path:
    import gguf

    kind = gguf.GGMLQuantizationType[table.type]
    flat = np.ones((rows, table.width), np.float32)
    raw: Values
    if table.type in FLOATS:
        raw = gguf.quants.quantize(flat, kind) if table.type != "F64" else flat.astype(np.float64)
    else:
        with closing(Requantiser(1)) as requantiser:
            raw = requantiser.rows(flat, table.type, np.ones(table.width, np.float32))
    writer = gguf.GGUFWriter(file, made.architecture)
    try:
        writer.add_tensor(table.name, raw, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    return file
