"""What official documents say of themselves: how much of it is found, and how much of what is found is right.

    python -m benchmarks.validity [FOLDER] [--reference]     FOLDER: ../shared/data/phapluat-vi

Against benchmarks/validity.tsv, which a person read from the documents. `--reference` takes the supplied
texts instead of the PDFs: lines broken as they were printed, running heads in between.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from chatbot.library.readers import Reader
from chatbot.library.validity import validity_of
from chatbot.settings import PROJECT
from chatbot.text import nfc
from chatbot.types import Validity

FIELDS = ("number", "kind", "body", "issued", "effective", "expires")
TIES = {"amends": "~", "replaces": "=", "repeals": "-", "consolidates": "+"}


def expectations() -> dict[str, dict[str, set[str]]]:
    """Of each file, the values of each field; a field without a value has none."""
    rows = (Path(__file__).with_suffix(".tsv")).read_text(encoding="utf-8").splitlines()
    found = {}
    for row in rows:
        if not row.startswith("#"):
            stem, number, kind, body, issued, effective, ties = row.split("\t")
            values = (number, kind, body, issued, effective, "")
            found[stem] = {name: {v} - {""} for name, v in zip(FIELDS, values, strict=True)}
            found[stem]["ties"] = set(ties.split())
    return found


def values(said: Validity) -> dict[str, set[str]]:
    """The same of what was found."""
    found = {name: {fact.value} if (fact := getattr(said, name)) else set() for name in FIELDS}
    return {**found, "ties": {TIES[r.kind] + r.number for r in said.relations}}


def main(folder: Path, *, reference: bool) -> None:
    reader = Reader()
    counts = {name: [0, 0, 0] for name in (*FIELDS, "ties")}
    seconds = 0.0
    for stem, expected in expectations().items():
        if reference:
            text = nfc((folder / f"{stem}.txt").read_text(encoding="utf-8"))
        else:
            pages = reader.read(folder / f"{stem}.pdf", stem).document.pages
            text = "".join(page.text for page in pages)
        started = time.perf_counter()
        found = values(validity_of(text))
        seconds += time.perf_counter() - started
        for name, wanted in expected.items():
            right = len(found[name] & wanted)
            for place, count in enumerate((right, len(found[name]), len(wanted))):
                counts[name][place] += count
            if found[name] != wanted:
                print(f"{stem} {name}: {sorted(found[name])} instead of {sorted(wanted)}")
    reader.close()
    for name, (right, filled, wanted) in counts.items():
        print(
            f"{name:10} precision {right / filled if filled else 1:.3f}, recall {right / wanted if wanted else 1:.3f}"
            f"  ({right} right, {filled} found, {wanted} said)"
        )
    print(f"{1000 * seconds / len(expectations()):.1f} ms a document")


if __name__ == "__main__":
    named = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    default = PROJECT.parent / "shared" / "data" / "phapluat-vi"
    main(Path(named[0]) if named else default, reference="--reference" in sys.argv)
