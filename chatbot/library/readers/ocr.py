"""Text recognition (OCR) by the Tesseract program, Vietnamese and English, one page at a time.

Tesseract is called as a child of the reading child, with a time limit; it gets pixels that Hearth made
itself, never a file from outside.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING

from chatbot.i18n import N_
from chatbot.library.readers.composing import notes
from chatbot.library.readers.layout import Line, Page

if TYPE_CHECKING:
    import numpy as np

DPI = 300
MAX_PIXELS = 30_000_000
SECONDS_PER_PAGE = 45.0
SECONDS_PER_FILE = 3600.0

RECOGNISED = N_(
    "Read from pictures by text recognition (OCR). Compare important words with the original."
)
NOT_INSTALLED = N_(
    "Hearth can read scans and pictures once Tesseract is installed: on Debian and Ubuntu 'sudo apt install"
    " tesseract-ocr tesseract-ocr-vie', on a Mac 'brew install tesseract tesseract-lang', on Windows the installer"
    " from github.com/UB-Mannheim/tesseract with Vietnamese chosen. Then let Hearth read the file again."
)
NO_VIETNAMESE = N_(
    "Text recognition lacks its Vietnamese data, so accents are lost: install 'tesseract-ocr-vie' (on a Mac"
    " 'tesseract-lang', on Windows run the installer again and choose Vietnamese). Then let Hearth read the file"
    " again."
)
TOOK_TOO_LONG = N_("Text recognition took too long; some pages were left without text.")

_LANGUAGES = ("vie", "eng")
_USUAL_FOLDERS = (
    r"%ProgramFiles%\Tesseract-OCR",
    r"%LocalAppData%\Programs\Tesseract-OCR",
    "/opt/homebrew/bin",
    "/usr/local/bin",
)
_SURE = 40.0
"""Below this a line is noise: Tesseract finds letters in leaves and stamps too (its scale ends at 100)."""
_DOUBTFUL = 65.0
"""A page that is read with less may lie on its side; then it is turned and read again."""
_CELL_TO_INK = 1.25
"""How much higher the cell of a letter is than its ink, about."""
_ROTATE = re.compile(rb"Rotate: (90|180|270)")


@dataclass(frozen=True, slots=True)
class Picture:
    """A grey picture: one byte a pixel, row by row; dots per inch."""

    pixels: np.ndarray
    dpi: float


class Recogniser:
    """Recognises the pages of one file until their time is up, and remembers what should be said of it."""

    def __init__(self) -> None:
        self._left = SECONDS_PER_FILE
        self._notes: dict[str, None] = {}
        self.seconds = 0.0
        """How long the last page took."""

    @property
    def notes(self) -> str | None:
        """What a person should know about the recognition, as a warning of a ReadDocument."""
        return notes(*self._notes)

    def page(self, picture: Picture) -> Page | None:
        """That picture's text as a page in points; None where Tesseract is absent or took too long."""
        self.seconds = 0.0
        program = _program()
        if program is None:
            self._notes[NOT_INSTALLED] = None
            return None
        if self._left <= 0:
            self._notes[TOOK_TOO_LONG] = None
            return None
        languages = [w for w in _LANGUAGES if w in _installed(program)]
        if not languages:
            self._notes[NOT_INSTALLED] = None
            return None
        started = time.monotonic()
        try:
            found = _Tesseract(program, languages, started + SECONDS_PER_PAGE).read(picture)
        except subprocess.TimeoutExpired:
            self._notes[TOOK_TOO_LONG] = None
            found = None
        self.seconds = time.monotonic() - started
        self._left -= self.seconds
        if found and found.lines:
            self._notes[RECOGNISED] = None
            if "vie" not in languages:
                self._notes[NO_VIETNAMESE] = None
        return found


class _Tesseract:
    """The program with its languages, for one page and until its time is up."""

    def __init__(self, program: str, languages: list[str], deadline: float) -> None:
        self._program = program
        self._languages = languages
        self._deadline = deadline

    def read(self, picture: Picture) -> Page:
        """The page as it lies, or turned when that reads better."""
        import numpy as np

        page, sureness = self._read(picture)
        if sureness < _DOUBTFUL and (turn := _ROTATE.search(self._run(picture, "--psm", "0"))):
            # It says how far to turn clockwise; numpy turns the other way.
            degrees = int(turn.group(1))
            turned = np.ascontiguousarray(np.rot90(picture.pixels, -degrees // 90))
            other, surer = self._read(Picture(turned, picture.dpi))
            if surer > sureness:
                other.turned = degrees
                return other
        return page

    def _read(self, picture: Picture) -> tuple[Page, float]:
        table = self._run(picture, "-l", "+".join(self._languages), "--psm", "3", "tsv")
        height, width = picture.pixels.shape
        scale = 72 / picture.dpi
        words: dict[tuple[str, ...], list[_Word]] = {}
        for row in table.decode("utf-8", "replace").splitlines():
            cells = row.split("\t")
            if len(cells) == 12 and cells[0] == "5" and cells[11].strip():
                left, top, wide, tall = (int(c) * scale for c in cells[6:10])
                bottom = height * scale - top - tall
                word = _Word(cells[11].strip(), float(cells[10]), left, left + wide, bottom, bottom + tall)  # fmt: skip
                words.setdefault(tuple(cells[1:5]), []).append(word)
        sure = [
            line
            for line in words.values()
            if fmean(w.sureness for w in line) >= _SURE and any(map(str.isalnum, _joined(line)))
        ]
        letters = [w.sureness for line in sure for w in line for _ in w.text]
        page = Page(width * scale, height * scale, _lines(sure), has_pictures=False)
        return page, fmean(letters or [0.0])

    def _run(self, picture: Picture, *options: str) -> bytes:
        height, width = picture.pixels.shape
        process = subprocess.Popen(
            [self._program, "stdin", "stdout", "--dpi", str(round(picture.dpi)), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={
                **os.environ,
                "OMP_THREAD_LIMIT": "1",
            },  # beside other work, its threads wait for each other
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        with process:
            _limit(process.pid)
            content = b"P5\n%d %d\n255\n" % (width, height) + picture.pixels.tobytes()
            try:
                return process.communicate(content, max(self._deadline - time.monotonic(), 0.1))[0]
            except BaseException:
                process.kill()
                raise


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    sureness: float
    left: float
    right: float
    bottom: float
    top: float


def _joined(line: list[_Word]) -> str:
    return " ".join(w.text for w in line)


def _lines(found: list[list[_Word]]) -> list[Line]:
    """Lines of even height: their ink differs with every tall letter, which would read as headings."""
    inks = [max(w.top for w in line) - min(w.bottom for w in line) for line in found]
    usual = median(inks) if inks else 0.0
    lines = []
    for line, ink in zip(found, inks, strict=True):
        height = _CELL_TO_INK * (usual if 0.6 * usual < ink < 1.5 * usual else ink)
        middle = (max(w.top for w in line) + min(w.bottom for w in line)) / 2
        text = _joined(line)
        left, right = min(w.left for w in line), max(w.right for w in line)
        bottom, top = middle - height / 2, middle + height / 2
        places = [(w.left, w.right, bottom, top) for w in line]
        lines.append(Line(text, left, right, bottom, top, places))
    return lines


def _program() -> str | None:
    """Where Tesseract is; its installers for Windows and Mac do not always tell the system."""
    usual = os.pathsep.join(os.path.expandvars(folder) for folder in _USUAL_FOLDERS)
    return shutil.which("tesseract") or shutil.which("tesseract", path=usual)


def _installed(program: str) -> frozenset[str]:
    """The languages that Tesseract has data for."""
    try:
        listed = subprocess.run(
            [program, "--list-langs"],
            capture_output=True,
            timeout=20,
            check=False,
            stdin=subprocess.DEVNULL,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except (OSError, subprocess.TimeoutExpired):
        return frozenset()
    return frozenset(listed.stdout.decode("utf-8", "replace").split())


def _limit(pid: int) -> None:
    # When the reading child is killed nobody would end Tesseract; Linux does after this much work.
    if sys.platform == "linux":
        import resource

        seconds = round(2 * SECONDS_PER_PAGE)
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_CPU, (seconds, seconds))
