"""The RTF that Outlook keeps in a mail, unpacked (MS-OXRTFCP)."""

from __future__ import annotations

import struct

MAX_BYTES = 50_000_000

# What every text is taken to begin with, so that even its first words can be references.
_BEFORE = (
    rb"{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}{\f0\fnil \froman \fswiss \fmodern \fscript \fdecor "
    rb"MS Sans SerifSymbolArialTimes New RomanCourier{\colortbl\red0\green0\blue0" + b"\r\n"
    rb"\par \pard\plain\f0\fs20\b\i\u\tab\tx"
)
_WINDOW = 4096


def unpack(packed: bytes) -> bytes:
    """The RTF of a PidTagRtfCompressed. Raises ValueError for what is broken or larger than MAX_BYTES."""
    if len(packed) < 16:
        raise ValueError("no header")
    _, size, magic = struct.unpack_from("<II4s", packed)
    if size > MAX_BYTES:
        raise ValueError("too large")
    if magic == b"MELA":  # not packed at all
        return packed[16 : 16 + size]
    if magic != b"LZFu":
        raise ValueError("unknown packing")
    text, position = bytearray(_BEFORE), 16
    end = len(_BEFORE) + size
    while len(text) < end:
        if position >= len(packed):
            raise ValueError("cut off")
        flags = packed[position]
        position += 1
        for bit in range(8):
            if not flags >> bit & 1:
                text += packed[position : position + 1]
                position += 1
                continue
            reference = int.from_bytes(packed[position : position + 2], "big")
            position += 2
            back = (len(text) - (reference >> 4)) % _WINDOW
            if back == 0:  # the mark of the end
                return bytes(text[len(_BEFORE) : end])
            if back > len(text):
                raise ValueError("a reference to before the beginning")
            for _ in range((reference & 15) + 2):  # what it repeats may be what it writes
                text.append(text[-back])
    return bytes(text[len(_BEFORE) : end])
