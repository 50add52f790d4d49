"""Making the worked example of docs/encoders.md an installed package without pip: what an installer writes, by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.conftest import ROOT

EXAMPLE = ROOT / "docs" / "examples" / "colour_encoder.py"


def install_example(folder: Path) -> Path:
    """Put the example and its metadata into `folder`, which is to come into `sys.path` or PYTHONPATH."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(EXAMPLE, folder)
    metadata = folder / "reelsense_colour_moments-0.1.0.dist-info"
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: reelsense-colour-moments\nVersion: 0.1.0\n")
    # The one line that the example's own pyproject.toml declares.
    (metadata / "entry_points.txt").write_text("[reelsense.encoders]\ncolour-moments = colour_encoder:SPEC\n")
    return folder
