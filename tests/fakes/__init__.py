"""Made-up hardware at the boundary of the drivers' libraries.

In a test: `monkeypatch.setitem(sys.modules, "pynvml", fake_pynvml(pc("eight")))`, the same with `fake_amdsmi`.
A whole app on made-up cards: `environment(file, cards)` for its process; what is written into the file later
(`write_cards`) happens to the running app.
"""

from tests.fakes.amd import AmdCard, fake_amdsmi
from tests.fakes.nvidia import GIB, PCS, Card, fake_pynvml, pc
from tests.fakes.on_disk import environment, read_cards, write_cards

__all__ = [
    "GIB", "PCS", "AmdCard", "Card", "environment", "fake_amdsmi", "fake_pynvml", "pc", "read_cards",
    "write_cards",
]  # fmt: skip
