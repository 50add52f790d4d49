"""The worked example of docs/encoders.md, installed as its reader would: one file, one line, and it is an encoder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples"

USE = """
import sys
from pathlib import Path

import numpy as np

from encoders.catalogue import chosen, config_of, describe, encoders, load
from encoders.identity import identity
from store.artifacts import digest, to_bytes, token_arrays
from store.records import Artifact, Frames
from store.settings import EncoderChoice, Settings

cache = Path(sys.argv[1])
settings = Settings(data=cache, encoders=EncoderChoice(vision="colour-moments"))
spec = chosen(settings)["vision"]
assert spec == encoders()["colour-moments"], spec
assert [entry["installed"] for entry in describe(cache) if entry["name"] == spec.name] == [True]

encoder = load(spec, config_of(spec, settings), cache, 1)


def frames(*colours):
    pixels = np.zeros((len(colours), 40, 60, 3), np.uint8)
    for picture, (sky, ground) in zip(pixels, colours, strict=True):
        picture[:20], picture[20:] = sky, ground
    return Frames(pixels, np.arange(len(colours), dtype=np.float64), float(len(colours)), len(colours), None, False)


def artifact(encoded):
    attributes = encoded.attributes.model_dump()
    return to_bytes(Artifact("vision", "v", "0" * 32, "", attributes, token_arrays(encoded.tokens)))


sunset, dusk, snow = ((250, 140, 40), (40, 20, 30)), ((230, 120, 50), (30, 20, 30)), ((200, 220, 250), (250, 250, 255))
encoded = encoder(frames(sunset, dusk, snow, ((9, 9, 9), (9, 9, 9))))
tokens = encoded.tokens
assert tokens.embeddings.shape == (4, spec.dim), tokens
np.testing.assert_allclose(np.linalg.norm(tokens.embeddings, axis=1), 1.0, atol=1e-5)
alike = tokens.embeddings @ tokens.embeddings.T
assert alike[0, 1] > 0.95 > 0.5 > alike[0, 2], alike
assert tokens.salience[0] > 0.9 and tokens.salience[3] < 1e-6, tokens.salience
assert tokens.start_seconds.tolist() == [0.0, 0.5, 1.5, 2.5] and tokens.end_seconds.tolist() == [0.5, 1.5, 2.5, 4.0]
assert artifact(encoder(frames(sunset, snow))) == artifact(encoder(frames(sunset, snow)))
assert encoder(frames()).tokens.embeddings.shape == (0, spec.dim)
smallest = Frames(np.zeros((1, 1, 1, 3), np.uint8), np.zeros(1), 1.0, 1, 1, False)
assert np.isfinite(encoder(smallest).tokens.embeddings).all()

other = Settings(data=cache, options={"colour-moments": {"contrast": 0.2}})
versions = {digest(identity(spec, config_of(spec, choice), cache)) for choice in (settings, other)}
assert len(versions) == 2
print("ok")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example as pip installs it, in a folder of its own."""
    root = tmp_path_factory.mktemp("example")
    shutil.copytree(EXAMPLE, root / "source", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
    install = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps", "--no-index"]
    subprocess.run([*install, "--no-build-isolation", "--target", root / "site", root / "source"], check=True)
    return root / "site"


def test_one_file_and_one_line_add_an_encoder(installed: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(installed), "REELSENSE_CONFIG": os.devnull}
    found = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path)], capture_output=True, text=True, env=environment, check=False
    )
    assert found.stderr == ""
    assert found.stdout == "ok\n"


def test_the_line_in_the_file_is_the_line_that_is_installed() -> None:
    shown = (EXAMPLE / "colour_encoder.py").read_text()
    line = 'colour-moments = "colour_encoder:SPEC"'
    assert line in shown
    assert line in (EXAMPLE / "pyproject.toml").read_text().splitlines()
