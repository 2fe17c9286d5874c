"""The child that draws pages: limits its memory, runs nothing that a file brings, answers one at a time."""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from chatbot.child import Event, Request, serve
from chatbot.errors import UndrawablePage
from chatbot.i18n import N_
from chatbot.library.limits import limit_memory, watched
from chatbot.library.readers.kinds import DAMAGED, HEAD_BYTES, NEEDS_PASSWORD, sniff
from chatbot.library.readers.picture import FORMATS

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)

WIDTH = 1400
"""Pixels: sharp on twice the width that a dialog has."""
MOST_PIXELS = 8_000_000
MOST_HEIGHT = 16_000
QUALITY = 88
NEEDS_TOO_MUCH_MEMORY = N_("it needs more memory than a page may")

_PASSWORD, _SECURITY = 4, 5


def draw(request: Request) -> tuple[Event, bytes]:
    """{path, name, page} → {width, height} and a JPEG. Raises UndrawablePage."""
    path, number = Path(request.params["path"]), int(request.params["page"])
    where = {"name": str(request.params["name"]), "page": number + 1}
    with watched():
        try:
            image = _pdf_page(path, number) if _is_pdf(path) else _frame(path, number)
            content = io.BytesIO()
            image.save(content, "JPEG", quality=QUALITY, subsampling=0)
        except UndrawablePage as error:
            raise UndrawablePage(error.values["detail"], **where) from error
        except MemoryError as error:
            raise UndrawablePage(NEEDS_TOO_MUCH_MEMORY, **where) from error
        except Exception as error:
            # Whatever a broken file provokes in a library is that file's fault; the log keeps the kind.
            log.warning("drawing failed: %s", type(error).__name__)
            raise UndrawablePage(DAMAGED, **where) from error
    return {"width": image.width, "height": image.height}, content.getvalue()


def _is_pdf(path: Path) -> bool:
    with path.open("rb") as file:
        return sniff(file.read(HEAD_BYTES)) == "pdf"


def _pdf_page(path: Path, number: int) -> Image:
    """The page on white paper. Forms are not set up, so no script of the file can run."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        locked = error.err_code in (_PASSWORD, _SECURITY)
        raise UndrawablePage(NEEDS_PASSWORD if locked else DAMAGED) from error
    with document:
        page = document[number]
        width, height = page.get_size()
        scale = min(WIDTH / width, MOST_HEIGHT / height, (MOST_PIXELS / (width * height)) ** 0.5)
        image: Image = page.render(scale=scale).to_pil()
        return image.convert("RGB")


def _frame(path: Path, number: int) -> Image:
    """The picture, or a page of a TIFF, upright and on white, as it was read."""
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pictures that are large; far larger ones raise
        with Image.open(path, formats=FORMATS) as image:
            image.seek(number)
            frame = ImageOps.exif_transpose(image)
            if frame.has_transparency_data:
                paper = Image.new("RGBA", frame.size, "white")
                frame = Image.alpha_composite(paper, frame.convert("RGBA"))
            frame = frame.convert("RGB")
            frame.thumbnail((WIDTH, MOST_PIXELS // WIDTH))
            return frame


if __name__ == "__main__":
    import PIL.JpegImagePlugin
    import pypdfium2

    log.debug("limits count from %s and %s on", PIL.__name__, pypdfium2.__name__)
    limit_memory()
    serve({"draw": draw})
