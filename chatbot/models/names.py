"""Names of files that came from elsewhere: which of them can be written anywhere, inside the folder meant."""

from __future__ import annotations

import re
import unicodedata

MAX_NAME = 1000
"""Bytes of a path, shorter than any system allows."""
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?")
_FORBIDDEN = frozenset('\\:*?"<>|')


def is_safe(name: str) -> bool:
    """Whether a path with slashes stays inside its folder and can be written on every system."""
    parts = name.split("/")
    return len(name.encode("utf-8", "replace")) <= MAX_NAME and all(map(_is_safe_part, parts))


def _is_safe_part(part: str) -> bool:
    return (
        part not in ("", ".", "..")
        and len(part.encode("utf-8", "replace")) <= 255
        and part.isprintable()
        and not _FORBIDDEN & set(part)
        and part[-1] not in ". "
        and part[0] != " "
        and not _RESERVED.fullmatch(part.partition(".")[0].rstrip().casefold())
        and not _RESERVED.fullmatch(unicodedata.normalize("NFKC", part).casefold())
    )
