"""Where measurements are kept, and what is said of the machine they were made on."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("av", "celery", "ctranslate2", "librosa", "numpy", "onnxruntime", "openai-whisper", "torch", "transformers")


def machine() -> dict[str, Any]:
    """Processor, cores, load, Python and the versions of what does the work."""
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "measured": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def write(name: str, document: dict[str, Any]) -> Path:
    """Write `results/NAME.json` with the machine's description, and return its path."""
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine()} | document, indent=1, ensure_ascii=False, sort_keys=False) + "\n")
    return path
