"""A cross-encoder reads question and passage together: slower than any index, and often the better judge.

Any sentence-transformers cross-encoder with safetensors weights, from a folder or the model cache.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from chatbot.errors import BrokenModel, ChatbotError, MissingBackend
from chatbot.library.embedders import local_folder, refuse_foreign_code


class CrossEncoding:
    """One loaded cross-encoder; `name` is what it was asked for by."""

    def __init__(self, name: str, *, allow_download: bool = False) -> None:
        """Load it. Raises BrokenModel, MissingBackend, or OfflineError when it is not on this disk."""
        self.name = name
        folder = local_folder(name, allow_download=allow_download)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            refuse_foreign_code(folder, config)
            try:
                from sentence_transformers import CrossEncoder
            except ImportError as error:
                raise MissingBackend(str(error), name=name) from error
            self._model = CrossEncoder(
                str(folder),
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True},
            )
        except ChatbotError:
            raise
        except Exception as error:  # parsers of damaged files raise whatever they like
            raise BrokenModel(f"{type(error).__name__}: {error}", name=name) from error

    def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        """One score a text; higher is better."""
        if not texts:
            return []
        found = self._model.predict(
            [(question, text) for text in texts], batch_size=8, show_progress_bar=False
        )
        return [float(score) for score in found]
