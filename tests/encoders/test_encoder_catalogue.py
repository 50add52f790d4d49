"""What names an encoder's result: weights, configuration, and code without its comments."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import BaseModel

import encoders as room
from encoders import audio, text, vision, voice_embedding
from encoders.built_in import BUILT_IN, MODEL_SETS
from encoders.catalogue import chosen, config_of, describe, model_set, named
from encoders.identity import code_digest, identity, normalised
from encoders.specs import PLACES
from encoders.weights import WEIGHTS
from store.errors import ModelError, SettingsError
from store.settings import load_settings

ROOM = Path(str(room.__file__)).parent
# What every encoder may import without its result depending on it: where weights lie, not what they say.
NEUTRAL = {"encoders.weights", "encoders.catalogue", "encoders.specs"}

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
    code = "import sys; from encoders.identity import code_digest; print(code_digest('fusion', 'encoders.vision'))"
    check = "; sys.exit(any(name in sys.modules for name in ('fusion', 'encoders.vision', 'torch', 'numpy')))"
    found = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == code_digest("fusion", "encoders.vision")
    assert code_digest("encoders.vision") != code_digest("encoders.text")
    with pytest.raises(FileNotFoundError):
        code_digest("encoders.nowhere")


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_all_code_behind_an_encoder_is_in_its_identity(name: str) -> None:
    listed = set(BUILT_IN[name].modules)
    imported: set[str] = set()
    for module in listed:
        tree = ast.parse((ROOM / f"{module.removeprefix('encoders.')}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("encoders."):
                imported.add(node.module)
            elif isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names if alias.name.startswith("encoders.")}
    assert imported - NEUTRAL <= listed
    assert all((ROOM / file).is_file() for file in BUILT_IN[name].data)


def test_all_data_of_the_room_is_in_an_identity() -> None:
    assert {path.name for path in ROOM.glob("*.json")} == {file for spec in BUILT_IN.values() for file in spec.data}


class _Config(BaseModel):
    size: int = 1
    batch_size: int = 1


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_an_identity_is_json_and_changes_with_the_configuration(name: str, tmp_path: Path) -> None:
    spec = replace(BUILT_IN[name], digests=None)
    one = identity(spec, _Config(), tmp_path)
    assert json.loads(json.dumps(one)) == one == identity(spec, _Config(), tmp_path)
    assert identity(spec, _Config(size=2), tmp_path) != one
    assert identity(spec, _Config(batch_size=2), tmp_path) == one, "what changes no result is no part of a version"
    for weights in spec.weights:
        assert one["weights"][weights] == {file.name: file.sha256 for file in WEIGHTS[weights].files}


def test_a_model_that_nobody_has_has_no_identity(tmp_path: Path) -> None:
    spec = BUILT_IN["siglip2-base"]
    with pytest.raises(ModelError) as raised:
        identity(spec, config_of(spec, load_settings(data=tmp_path)), tmp_path)
    assert raised.value.code == "model.missing"
    assert spec.hub is not None
    assert spec.hub in raised.value.message


def test_declared_dimensions_are_those_of_the_encoders() -> None:
    starter = {place: BUILT_IN[name].dim for place, name in MODEL_SETS["starter"].encoders.items()}
    expected = {"vision": vision.DIM, "audio": audio.AUDIO_DIM, "text": text.DIM, "speakers": voice_embedding.VOICE_DIM}
    assert {place: dim for place, dim in starter.items() if dim is not None} == expected


def test_model_sets_fill_every_place_with_what_fits_there() -> None:
    for chosen_set in MODEL_SETS.values():
        assert set(PLACES) - {"objects"} <= set(chosen_set.encoders)
        for place, name in chosen_set.encoders.items():
            assert BUILT_IN[name].modality == place
            assert (BUILT_IN[name].rate_hz is not None) == (place in ("audio", "speech", "speakers"))
    with pytest.raises(ModelError) as raised:
        model_set("huge")
    assert raised.value.code == "model.unknown"
    assert "starter" in raised.value.hint


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_what_is_declared_can_be_imported_and_goes_to_json_and_back(name: str, tmp_path: Path) -> None:
    spec = BUILT_IN[name]
    config = config_of(spec, load_settings(data=tmp_path))
    assert type(config).model_validate_json(config.model_dump_json()) == config
    assert callable(named(spec.encoder))


def test_one_encoder_is_exchanged_by_its_place(tmp_path: Path) -> None:
    settings = load_settings(data=tmp_path, encoders={"text": "multilingual-e5-small"})
    found = chosen(settings)
    assert found["text"].name == "multilingual-e5-small"
    assert found["vision"].name == "efficientnet-lite0"
    for name in ("efficientnet-lite0", "nothing"):
        with pytest.raises(ModelError) as raised:
            chosen(load_settings(data=tmp_path, encoders={"text": name}))
        assert raised.value.code == "model.unknown"
        assert "minilm-l6-v2" in raised.value.hint


def test_options_reach_the_encoder_and_bad_ones_are_named(tmp_path: Path) -> None:
    spec = BUILT_IN["siglip2-base"]
    settings = load_settings(data=tmp_path, precision="bfloat16", options={"siglip2-base": {"batch_size": 3}})
    config = config_of(spec, settings)
    assert (config.batch_size, config.precision) == (3, "bfloat16")
    with pytest.raises(SettingsError) as raised:
        config_of(spec, load_settings(data=tmp_path, options={"siglip2-base": {"batch": 3}}))
    assert raised.value.code == "settings.invalid"
    assert "batch" in raised.value.message


@pytest.mark.models
def test_every_encoder_is_described_with_origin_digest_and_licence(tmp_path: Path) -> None:
    described = describe(tmp_path)
    assert json.loads(json.dumps(described)) == described
    assert [entry["name"] for entry in described] == list(BUILT_IN)
    for entry in described:
        spec = BUILT_IN[entry["name"]]
        assert entry["licence"]
        assert entry["source"]
        assert entry["installed"] is (spec.hub is None)
        if spec.weights and spec.hub is None:
            assert "==" in entry["package"]
        assert [weights["digest"] for weights in entry["weights"]] == [WEIGHTS[name].sha256 for name in spec.weights]
    assert list(tmp_path.iterdir()) == []  # describing joins nothing
