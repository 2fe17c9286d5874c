"""Pictures (PNG, JPEG, TIFF and the like): the text in them, by recognition."""

from __future__ import annotations

import warnings
from pathlib import Path

from chatbot.errors import UnreadableDocument
from chatbot.i18n import N_
from chatbot.library.readers.archive import TOO_BIG_INSIDE
from chatbot.library.readers.composing import Composer, notes
from chatbot.library.readers.kinds import DAMAGED
from chatbot.library.readers.layout import Page, compose, remove_running_lines
from chatbot.library.readers.ocr import DPI, MAX_PIXELS, Picture, Recogniser
from chatbot.library.readers.progress import Progress
from chatbot.types import ReadDocument

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "MPO")
MAX_FRAMES = 2_000
NO_TEXT_SEEN = N_("No text was recognised in this picture.")
MORE_FRAMES = N_("This file holds more pages than Hearth reads; the rest was left out.")

_LEAST_DPI, _MOST_DPI = 70, 1_200
_SMALL_SIDE = 1_000  # pixels; screenshots are read better when enlarged


def read_picture(path: Path, name: str, progress: Progress) -> ReadDocument:
    """A picture, or every page of a TIFF. Raises UnreadableDocument for damaged and oversized ones."""
    from PIL import Image, UnidentifiedImageError

    recogniser = Recogniser()
    pages: list[Page] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow says here what it raises for far larger ones
        try:
            with Image.open(path, formats=FORMATS) as image:
                media_type = image.get_format_mimetype() or "image/*"
                frames = 1 if image.format in ("MPO", "WEBP", "PNG") else getattr(image, "n_frames", 1)  # fmt: skip
                for number in range(min(frames, MAX_FRAMES)):
                    if number:
                        image.seek(number)
                    page = recogniser.page(_grey(image))
                    pages.append(page or Page(0.0, 0.0, [], has_pictures=True))
                    progress(number + 1, frames, recogniser.seconds)
        except Image.DecompressionBombError as error:
            raise UnreadableDocument(TOO_BIG_INSIDE, name=name) from error
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
            raise UnreadableDocument(DAMAGED, name=name) from error
    warning = recogniser.notes
    if not warning and not any(page.lines for page in pages):
        warning = NO_TEXT_SEEN
    remove_running_lines(pages)
    composer = Composer()
    compose(pages, composer)
    return composer.document(
        media_type, warning=notes(warning, MORE_FRAMES if frames > MAX_FRAMES else None)
    )


def _grey(image: object) -> Picture:
    """The frame upright, on white, in grey and of a size that recognition likes."""
    import numpy as np
    from PIL import Image, ImageOps

    assert isinstance(image, Image.Image)
    said = float((image.info.get("dpi") or (0, 0))[0])
    dpi = said if _LEAST_DPI <= said <= _MOST_DPI else DPI
    frame = ImageOps.exif_transpose(image)
    if frame.has_transparency_data:
        frame = Image.alpha_composite(Image.new("RGBA", frame.size, "white"), frame.convert("RGBA"))
    grey = frame.convert("L")
    shrink = min(1.0, (MAX_PIXELS / (grey.width * grey.height)) ** 0.5)
    factor = shrink if shrink < 1 else 2 if min(grey.size) < _SMALL_SIDE and grey.width * grey.height < 4_000_000 else 1  # fmt: skip
    if factor != 1:
        size = (max(round(grey.width * factor), 1), max(round(grey.height * factor), 1))
        grey = grey.resize(size, Image.Resampling.LANCZOS)
    return Picture(np.asarray(grey), dpi * factor)
