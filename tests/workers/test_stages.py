"""A version names what made a result: change the code of a stage, and that stage and what hangs on it are new."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from workers.stages import STAGES

FUTURE = "from __future__ import annotations"
ROOMS = ("store", "encoders", "fusion", "workers")
PRINT_VERSIONS = """
import json
from store.settings import Settings
from workers.stages import versions
print(json.dumps(versions(Settings())))
"""


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rooms below the faces, copied, so that a test may change their code."""
    folder = tmp_path_factory.mktemp("house")
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def versions_in(folder: Path) -> dict[str, str]:
    """The stage versions that the code in `folder` gives itself, computed by a Python of its own."""
    run = subprocess.run(
        [sys.executable, "-B", "-c", PRINT_VERSIONS], cwd=folder, capture_output=True, text=True, check=True
    )
    return dict(json.loads(run.stdout))


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        (
            "workers/extraction.py",
            'return encoders.get("speech")(sound), {}',
            'return (encoders.get("speech")(sound), {})',
            {"transcript"},
        ),
        ("workers/extraction.py", '["frame"] * len', '["window"] * len', {"fused"}),
        ("workers/frame_decoding.py", "def read_frames(", "def read_frames (", {"frames"}),
        ("workers/sound_decoding.py", "def read_sound(", "def read_sound (", {"audio", "transcript", "speakers"}),
        ("encoders/stop_words.py", FUTURE, FUTURE + ";", {"text", "topics"}),
        ("encoders/signature.py", FUTURE, FUTURE + ";", {"appearance"}),
        ("workers/extraction.py", "Run one stage.", "Run a stage.", set()),
        ("workers/publication.py", FUTURE, FUTURE + ";", {"published"}),
    ],
)
def test_changed_code_renews_its_stage_and_what_hangs_on_it(
    copied: Path, file: str, old: str, new: str, changed: set[str]
) -> None:
    before = versions_in(copied)
    path = copied / file
    source = path.read_text()
    assert source.count(old) == 1
    path.write_text(source.replace(old, new))
    try:
        after = versions_in(copied)
    finally:
        path.write_text(source)
    renewed = {name for name in before if before[name] != after[name]}
    expected = set(changed)
    for stage in STAGES:
        if expected & set(stage.needs):
            expected.add(stage.name)
    assert renewed == expected
