"""How busy the GPU of an Apple chip is, as its driver says without administrator rights.

Its power is told to administrators only (powermetrics), so nobody asks for it here.
"""

from __future__ import annotations

import plistlib
import subprocess

IOREG = ("/usr/sbin/ioreg", "-r", "-d", "1", "-c", "IOAccelerator", "-a")


def gpu_load() -> float | None:
    """Percent; None where the driver does not say. Takes some milliseconds."""
    try:
        answer = subprocess.run(IOREG, capture_output=True, timeout=5, check=False).stdout
        cards = plistlib.loads(answer)
    except (OSError, subprocess.TimeoutExpired, plistlib.InvalidFileException, ValueError):
        return None
    for card in cards:
        load = card.get("PerformanceStatistics", {}).get("Device Utilization %")
        if load is not None:
            return float(load)
    return None
