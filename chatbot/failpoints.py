"""Named places where a test may end the process, as a power cut would.

HEARTH_FAILPOINT=name makes `failpoint(name)` end the process at once: nothing is flushed, no cleanup runs.
"""

from __future__ import annotations

import os

EXIT_CODE = 86


def failpoint(name: str) -> None:
    """End the process here when HEARTH_FAILPOINT names this place."""
    if os.environ.get("HEARTH_FAILPOINT") == name:
        os._exit(EXIT_CODE)
