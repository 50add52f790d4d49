"""What names an encoder's result: weights, configuration, and code without its comments."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

import encoders
from encoders import audio, text, vision
from encoders.catalogue import ENCODERS, MODEL_SETS, code_digest, describe, identity, model_set, normalised
from encoders.weights import WEIGHTS
from store.errors import ModelError

ROOM = Path(encoders.__file__).parent
# What every encoder may import without its result depending on it: where weights lie, not what they say.
NEUTRAL = {"encoders.weights", "encoders.catalogue"}

SOURCE = '''"""Module."""

import math  # why


class Shape:
    """Class."""

    # comment
    sides = 4


def area(r: float) -> str:
    """Function,

    of several lines."""
    kept = """# not a comment

    a blank line above  """
    return f"{math.pi * r:{'.2f'}} # {kept!r}"  # comment
'''


def test_comments_docstrings_and_blank_lines_do_not_count() -> None:
    bare = '''import math
class Shape:
    sides = 4
def area(r: float) -> str:
    kept = """# not a comment

    a blank line above  """
    return f"{math.pi * r:{'.2f'}} # {kept!r}"'''
    assert normalised(SOURCE) == bare
    assert normalised(bare) == bare


@pytest.mark.parametrize(
    ("old", "new"),
    [("sides = 4", "sides = 5"), ("a blank line", "a  blank line"), ("\n\n    a bl", "\n    a bl"), ("# {", "#{")],
)
def test_code_and_text_do_count(old: str, new: str) -> None:
    assert old in SOURCE
    assert normalised(SOURCE.replace(old, new)) != normalised(SOURCE)


def test_text_before_a_docstring_may_be_any_script() -> None:
    assert normalised('def ä(ü="…"): "Docstring."; return ü  # ende\n') == 'def ä(ü="…"):; return ü'


def test_a_digest_needs_no_import_and_tells_modules_apart() -> None:
    code = "import sys; from encoders.catalogue import code_digest; print(code_digest('fusion', 'encoders.vision'))"
    check = "; sys.exit(any(name in sys.modules for name in ('fusion', 'encoders.vision', 'torch', 'numpy')))"
    found = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == code_digest("fusion", "encoders.vision")
    assert code_digest("encoders.vision") != code_digest("encoders.text")
    with pytest.raises(FileNotFoundError):
        code_digest("encoders.nowhere")


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_all_code_behind_an_encoder_is_in_its_identity(name: str) -> None:
    listed = set(ENCODERS[name].modules)
    imported: set[str] = set()
    for module in listed:
        tree = ast.parse((ROOM / f"{module.removeprefix('encoders.')}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("encoders."):
                imported.add(node.module)
            elif isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names if alias.name.startswith("encoders.")}
    assert imported - NEUTRAL <= listed
    assert all((ROOM / file).is_file() for file in ENCODERS[name].data)


def test_all_data_of_the_room_is_in_an_identity() -> None:
    assert {path.name for path in ROOM.glob("*.json")} == {file for spec in ENCODERS.values() for file in spec.data}


class _Config(BaseModel):
    size: int = 1


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_an_identity_is_json_and_changes_with_the_configuration(name: str) -> None:
    spec = ENCODERS[name]
    one = identity(spec, _Config())
    assert json.loads(json.dumps(one)) == one == identity(spec, _Config())
    assert identity(spec, _Config(size=2)) != one
    for weights in spec.weights:
        assert one["weights"][weights] == {file.name: file.sha256 for file in WEIGHTS[weights].files}


def test_declared_dimensions_are_those_of_the_encoders() -> None:
    dims = {spec.modality: spec.dim for spec in ENCODERS.values()}
    assert dims == {"vision": vision.DIM, "audio": audio.AUDIO_DIM, "speech": None, "text": text.DIM}


def test_model_sets_name_encoders_of_the_right_modality() -> None:
    for chosen in MODEL_SETS.values():
        for modality in ("vision", "audio", "speech", "text"):
            assert ENCODERS[getattr(chosen, modality)].modality == modality
    with pytest.raises(ModelError) as raised:
        model_set("huge")
    assert raised.value.code == "model.unknown"
    assert "starter" in raised.value.hint


@pytest.mark.models
def test_every_encoder_is_described_with_origin_digest_and_licence(tmp_path: Path) -> None:
    described = describe(tmp_path)
    assert json.loads(json.dumps(described)) == described
    assert [entry["name"] for entry in described] == list(ENCODERS)
    for entry in described:
        assert entry["installed"] is True
        assert entry["licence"]
        assert entry["source"]
        assert "==" in entry["package"]
        assert [weights["digest"] for weights in entry["weights"]] == [
            WEIGHTS[name].sha256 for name in ENCODERS[entry["name"]].weights
        ]
    assert list(tmp_path.iterdir()) == []  # describing joins nothing
