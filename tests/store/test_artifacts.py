"""Artifacts survive the way to bytes and back, the same artifact is the same bytes, and damage is noticed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from store.artifacts import (
    artifact_key,
    digest,
    from_bytes,
    is_video_id,
    revision_of,
    to_bytes,
    token_arrays,
    video_id_of,
)
from store.errors import PassingError
from store.objects import check_key
from store.records import Artifact, Metadata, Tokens

FINITE = st.floats(-1e6, 1e6, width=32)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ARRAYS = st.dictionaries(
    st.from_regex(r"[a-z_]{1,10}", fullmatch=True),
    hnp.arrays(np.float32, hnp.array_shapes(max_dims=2, min_side=0, max_side=5), elements=FINITE),
    max_size=3,
)


def artifact(attributes: dict[str, object], arrays: dict[str, np.ndarray]) -> Artifact:
    return Artifact("vision", "0123456789abcdef", "a" * 32, "", attributes, arrays)


def test_words_from_before_sounds_keep_their_revision() -> None:
    words = Metadata(title="A", tags=("b",))
    # What was stored before `sound` was a field.
    old = {
        "title": "A",
        "description": "",
        "tags": ["b"],
        "creator": "",
        "region": "",
        "language": "",
        "captions": [],
    }
    assert revision_of(words) == digest(old)
    assert revision_of(Metadata(title="A", tags=("b",), sound="song")) != revision_of(words)


@given(st.dictionaries(st.text(), JSON, max_size=4), ARRAYS)
def test_there_and_back(attributes: dict[str, object], arrays: dict[str, np.ndarray]) -> None:
    back = from_bytes(to_bytes(artifact(attributes, arrays)))
    assert back.attributes == json.loads(json.dumps(attributes))
    assert back.arrays.keys() == arrays.keys()
    assert all(np.array_equal(back.arrays[name], array) for name, array in arrays.items())
    assert (back.stage, back.version, back.video_id, back.revision) == ("vision", "0123456789abcdef", "a" * 32, "")


@given(st.permutations(["alpha", "beta", "gamma", "delta"]))
def test_the_order_of_names_does_not_change_the_bytes(names: list[str]) -> None:
    def build(order: list[str]) -> bytes:
        arrays = {name: np.full((2, 3), len(name), np.float32) for name in order}
        return to_bytes(artifact({name: name for name in order}, arrays))

    assert build(names) == build(sorted(names))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError):
        to_bytes(artifact({}, {"vector": np.array([bad], np.float32)}))
    with pytest.raises(ValueError):
        to_bytes(artifact({"x": bad}, {}))


@given(st.binary(max_size=300))
def test_noise_is_no_artifact(data: bytes) -> None:
    with pytest.raises(PassingError) as caught:
        from_bytes(data)
    assert caught.value.code == "store.artifact_damaged"


def test_a_cut_artifact_is_noticed() -> None:
    whole = to_bytes(artifact({"a": 1}, {"vector": np.ones(64, np.float32)}))
    for length in (0, 7, 20, len(whole) // 2, len(whole) - 1):
        with pytest.raises(PassingError):
            from_bytes(whole[:length])


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_digests_do_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    assert digest(value) == digest(dict(reversed(list(value.items()))))


def test_keys_are_legal_and_never_a_prefix_of_each_other() -> None:
    name = video_id_of("f" * 64)
    assert is_video_id(name)
    plain, revised = artifact_key("text", "v", name, ""), artifact_key("text", "v", name, "r")
    assert check_key(plain) == plain
    assert check_key(revised) == revised
    assert not revised.startswith(plain + "/")


def test_tokens_travel_whole() -> None:
    tokens = Tokens(np.eye(3, 4, dtype=np.float32), *(np.arange(3, dtype=np.float32) for _ in range(3)))
    back = from_bytes(to_bytes(artifact({}, token_arrays(tokens)))).tokens()
    assert np.array_equal(back.embeddings, tokens.embeddings)
    assert np.array_equal(back.salience, tokens.salience)


def test_tokens_of_the_wrong_shape_are_refused() -> None:
    line = np.zeros(2, np.float32)
    with pytest.raises(ValueError, match="embeddings"):
        Tokens(np.zeros(3, np.float32), line, line, line)
    with pytest.raises(ValueError, match="salience"):
        Tokens(np.zeros((2, 4), np.float32), line, line, np.zeros(3, np.float32))
    assert len(Tokens.none(7)) == 0
