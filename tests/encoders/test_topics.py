"""Topics: planted ones are found, real texts part by what they are about, and inference needs no scikit-learn."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.quality_topics import largest_topics, module_documents, planted_documents, planted_word, purity
from encoders.topics import TopicConfig, TopicModel, topic_count, train_topics
from store.errors import InputError, PassingError
from store.records import TextPiece

TOPICS = 4
QUICK = TopicConfig(topics=TOPICS, passes=30, starts=3)
Documents = dict[str, list[TextPiece]]


@pytest.fixture(scope="module")
def planted() -> tuple[Documents, dict[str, int]]:
    return planted_documents(TOPICS, 60, 50, seed=3)


@pytest.fixture(scope="module")
def model(planted: tuple[Documents, dict[str, int]]) -> TopicModel:
    return train_topics(planted[0], QUICK)


def piece(text: str) -> TextPiece:
    return TextPiece(source="transcript", text=text)


def test_planted_topics_are_found(model: TopicModel, planted: tuple[Documents, dict[str, int]]) -> None:
    documents, truth = planted
    assert purity(largest_topics(model, documents), truth) >= 0.95
    assert len(set(largest_topics(model, documents).values())) == TOPICS
    new, truth = planted_documents(TOPICS, 40, 50, seed=99)
    assert purity(largest_topics(model, new), truth) >= 0.95


def test_a_topic_is_named_by_its_own_words_and_not_by_those_of_all(model: TopicModel) -> None:
    for words in model.words:
        assert len(words) == QUICK.words
        assert len({word[0] for word in words}) == 1
        assert words[0][0] != planted_word(TOPICS, 1)[0]
    assert {words[0][0] for words in model.words} == {planted_word(topic, 1)[0] for topic in range(TOPICS)}


def test_a_word_of_all_topics_names_none_unless_only_probability_is_asked() -> None:
    counts = np.array([[50, 30, 1, 1], [50, 1, 30, 1]], np.float32)
    vocabulary = ("common", "fish", "garden", "rare")
    assert [words[0] for words in TopicModel(counts, vocabulary, 9, TopicConfig(relevance=0.5)).words] == [
        "fish",
        "garden",
    ]
    assert {words[0] for words in TopicModel(counts, vocabulary, 9, TopicConfig(relevance=1.0)).words} == {"common"}


def test_a_video_of_two_topics_has_both(model: TopicModel) -> None:
    text = " ".join([planted_word(0, 1)] * 6 + [planted_word(0, 2)] * 4 + [planted_word(1, 1)] * 4)
    found = model.infer([piece(text)])
    assert found.model == model.version
    assert [topic.words[0][0] for topic in found.topics] == [planted_word(0, 1)[0], planted_word(1, 1)[0]]
    assert found.topics[0].share > found.topics[1].share >= QUICK.min_share
    assert sum(topic.share for topic in found.topics) <= 1.001
    assert found.topics[0].name == ", ".join(found.topics[0].words[:3])


def test_a_title_weighs_more_than_a_sentence(model: TopicModel) -> None:
    pieces = [piece(planted_word(0, 1)), TextPiece(source="title", text=planted_word(1, 1))]
    assert model.infer(pieces).topics[0].words[0][0] == planted_word(1, 1)[0]


def test_words_the_model_does_not_know_are_no_topic(model: TopicModel) -> None:
    found = model.infer([piece("completely unheard of")])
    assert (found.model, found.topics) == (model.version, [])
    assert model.infer([]).topics == []


def test_inference_is_that_of_scikit_learn(model: TopicModel, planted: tuple[Documents, dict[str, int]]) -> None:
    from sklearn.decomposition import LatentDirichletAllocation
    from sklearn.feature_extraction.text import CountVectorizer

    documents = [pieces[0].text for pieces in planted[0].values()]
    counts = CountVectorizer(vocabulary=list(model.vocabulary)).fit_transform(documents).astype(np.float64)
    reference = LatentDirichletAllocation(TOPICS, doc_topic_prior=QUICK.document_prior, max_iter=1, random_state=0)
    reference.fit(counts)
    reference.components_ = model.components.astype(np.float64)
    logs = np.log(reference.components_)
    assert np.isfinite(logs).all()
    from sklearn.decomposition._lda import _dirichlet_expectation_2d

    reference.exp_dirichlet_component_ = np.exp(_dirichlet_expectation_2d(reference.components_))
    expected = reference.transform(counts)
    dense = counts.toarray()
    found = np.array([model.shares(np.flatnonzero(row).tolist(), row[row > 0].tolist()) for row in dense])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-9)


def test_the_same_videos_give_the_same_bytes_in_any_order(
    model: TopicModel, planted: tuple[Documents, dict[str, int]]
) -> None:
    again = train_topics(dict(reversed(planted[0].items())), QUICK)
    assert again.to_bytes() == model.to_bytes()
    assert again.version == model.version
    other = train_topics(planted[0], QUICK.model_copy(update={"seed": 5}))
    assert other.version != model.version


def test_a_model_survives_its_bytes(model: TopicModel, planted: tuple[Documents, dict[str, int]]) -> None:
    read = TopicModel.from_bytes(model.to_bytes())
    assert read.version == model.version
    for pieces in list(planted[0].values())[:5]:
        assert read.infer(pieces) == model.infer(pieces)


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "nan"])
def test_damaged_bytes_are_a_coded_error(model: TopicModel, damage: str) -> None:
    data = model.to_bytes()
    if damage == "nan":
        broken = TopicModel(np.full_like(model.components, np.nan), model.vocabulary, 1, QUICK).to_bytes()
    else:
        broken = {"cut": data[:-7], "empty": b"", "other": b"PK\x03\x04" + bytes(64)}[damage]
    with pytest.raises(PassingError) as caught:
        TopicModel.from_bytes(broken)
    assert caught.value.code == "store.artifact_damaged"


def test_too_small_a_catalogue_says_how_many_videos_are_needed() -> None:
    few, _ = planted_documents(2, 7, 50, seed=1)
    with pytest.raises(InputError, match=r"7 videos.* need 8") as caught:
        train_topics(few, TopicConfig())
    assert caught.value.code == "topics.too_few_videos"
    with pytest.raises(InputError, match="need 40"):
        train_topics(planted_documents(2, 30, 50, seed=1)[0], TopicConfig(topics=20))
    with pytest.raises(InputError, match="0 videos"):
        train_topics({}, TopicConfig())
    alone = {f"v{number}": [piece(f"word{chr(97 + number)} only here")] for number in range(20)}
    with pytest.raises(InputError) as caught:
        train_topics(alone, TopicConfig(most_share_of_word=0.2))
    assert caught.value.code == "topics.too_few_videos"


def test_the_number_of_topics_grows_with_the_catalogue_within_bounds() -> None:
    counts = [topic_count(videos, TopicConfig()) for videos in (8, 50, 200, 5_000, 1_000_000)]
    assert counts == [2, 5, 10, 50, 50]
    assert topic_count(8, TopicConfig(topics=3)) == 3


def test_words_of_every_video_and_of_one_alone_do_not_count() -> None:
    documents, _ = planted_documents(2, 20, 40, seed=4)
    for number, pieces in enumerate(documents.values()):
        pieces.append(piece(f"subscribe channel lonely{chr(97 + number)}"))
    found = train_topics(documents, TopicConfig(passes=2, starts=1))
    assert not {"subscribe", "channel"} & set(found.vocabulary)
    assert not any(word.startswith("lonely") for word in found.vocabulary)
    assert list(found.vocabulary) == sorted(found.vocabulary)


def test_real_prose_parts_by_what_it_is_about() -> None:
    documents = module_documents()
    truth = {name: name.partition("/")[0] for name in documents}
    held = {name: pieces for place, (name, pieces) in enumerate(documents.items()) if place % 5 == 4}
    seen = {name: pieces for name, pieces in documents.items() if name not in held}
    found = train_topics(seen, TopicConfig(topics=4))
    assert purity(largest_topics(found, seen), truth) >= 0.85
    assert purity(largest_topics(found, held), truth) >= 0.85
    named = {word for words in found.words for word in words}
    assert {"librosa", "sqlalchemy", "celery", "image"} <= named


INFER = """
import sys
from pathlib import Path
from encoders.topics import TopicModel
from store.records import TextPiece

model = TopicModel.from_bytes(Path(sys.argv[1]).read_bytes())
print(model.infer([TextPiece(source="transcript", text=sys.argv[2])]).model_dump_json())
print(sorted({"sklearn", "torch"} & set(sys.modules)))
"""


def test_another_process_infers_the_same_without_scikit_learn(model: TopicModel, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(model.to_bytes())
    text = f"{planted_word(2, 1)} {planted_word(2, 3)}"
    found = subprocess.run(
        [sys.executable, "-c", INFER, str(tmp_path / "model"), text], capture_output=True, text=True, check=True
    )
    answer, modules = found.stdout.splitlines()
    assert json.loads(answer) == model.infer([piece(text)]).model_dump(mode="json")
    assert modules == "[]"
    assert model.version == hashlib.sha256(model.to_bytes()).hexdigest()[:16]
