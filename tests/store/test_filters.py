"""The filter language: its grammar, its mistakes, and that both readings of a tree agree over a real database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.catalogue import Catalogue, Video, videos
from store.errors import InputError
from store.filters import FIELDS, Compare, In, Joined, Node, Not, matches, parse, to_sql
from store.records import MediaInfo, Metadata

REGIONS = ("DE", "de", "FR", "")
TEXTS = ("cat", "Cat", "a cat's nap", 'say "meow"', "100%_x", "ü", "")
TIMES = (0.0, 1767225600.0, 1767225600.5, 1798761600.0)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def catalogue(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalogue]:
    """A video for many combinations of values, every third of them published, in both databases."""
    if request.param == "sqlite":
        catalogue = Catalogue(f"sqlite:///{tmp_path_factory.mktemp('filters') / 'catalogue.sqlite3'}")
    else:
        catalogue = Catalogue(request.getfixturevalue("postgresql"))
    for number in range(60):
        media = MediaInfo(
            container="mp4",
            bytes=1,
            width=2,
            height=2,
            video_codec="h264",
            duration=(None, 0.5, 3.0, 12.25)[number % 4],
        )
        metadata = Metadata(
            title=TEXTS[number % len(TEXTS)],
            creator=TEXTS[(number // 2) % len(TEXTS)],
            region=REGIONS[number % len(REGIONS)],
            language=("en", "pt-BR", "")[number % 3],
            tags=tuple(text for place, text in enumerate(TEXTS[:-1]) if (number >> place) & 1),
        )
        video = Video(
            id=f"{number:032x}", revision="r", file_name="x", metadata=metadata, media=media,
            uploaded_at=TIMES[(number // 3) % len(TIMES)],
        )  # fmt: skip
        catalogue.put_video(video)
        if number % 3 == 0:
            catalogue.publish(video.id, "v", "r" if number % 2 else "older")
    yield catalogue
    catalogue.close()


def records(catalogue: Catalogue) -> dict[str, dict[str, Any]]:
    """Each video as `matches` sees it."""
    published = {row.video_id for row in catalogue.publications("v") if row.revision == "r"}
    return {
        video.id: {
            "uploaded_at": video.uploaded_at,
            "duration": video.media.duration,
            "region": video.metadata.region,
            "language": video.metadata.language,
            "creator": video.metadata.creator,
            "title": video.metadata.title,
            "tags": list(video.metadata.tags),
            "published": video.id in published,
        }
        for video in catalogue.videos()
    }


def selected(catalogue: Catalogue, node: Node | None) -> set[str]:
    with catalogue.engine.begin() as connection:
        condition = to_sql(node, catalogue.engine.dialect.name)
        return set(connection.execute(sa.select(videos.c.id).where(condition)).scalars())


def comparisons() -> st.SearchStrategy[Node]:
    texts, numbers = st.sampled_from(TEXTS), st.sampled_from((0.5, 3.0, 5.0, -1.0))
    order = st.sampled_from(("=", "!=", "<", "<=", ">", ">="))
    same = st.sampled_from(("=", "!="))
    codes = st.sampled_from((*REGIONS, "EN", "pt-br"))
    return st.one_of(
        st.builds(Compare, st.just("uploaded_at"), order, st.sampled_from(TIMES)),
        st.builds(Compare, st.just("duration"), order, numbers),
        st.builds(Compare, st.sampled_from(("region", "language")), same, codes),
        st.builds(Compare, st.sampled_from(("title", "creator")), st.sampled_from(("=", "!=", "has")), texts),
        st.builds(Compare, st.just("tags"), st.just("has"), texts),
        st.builds(Compare, st.just("published"), same, st.booleans()),
        st.builds(In, st.just("duration"), st.lists(numbers, min_size=1, max_size=3).map(tuple)),
        st.builds(In, st.just("title"), st.lists(texts, min_size=1, max_size=3).map(tuple)),
        st.builds(In, st.just("region"), st.lists(codes, min_size=1, max_size=3).map(tuple)),
    )


def trees() -> st.SearchStrategy[Node]:
    return st.recursive(
        comparisons(),
        lambda inner: st.one_of(
            st.builds(Not, inner),
            st.builds(Joined, st.sampled_from(("and", "or")), st.lists(inner, min_size=2, max_size=3).map(tuple)),
        ),
        max_leaves=6,
    )


def written(node: Node) -> str:
    """A filter whose tree is this one."""
    if isinstance(node, Not):
        return f"not ({written(node.item)})"
    if isinstance(node, Joined):
        return f" {node.word} ".join(f"({written(item)})" for item in node.items)
    if isinstance(node, In):
        return f"{node.field} in ({', '.join(value(node.field, item) for item in node.values)})"
    return f"{node.field} {node.operator} {value(node.field, node.value)}"


def value(field: str, held: Any) -> str:
    if FIELDS[field] == "time":
        from datetime import UTC, datetime

        return datetime.fromtimestamp(held, UTC).isoformat()
    if isinstance(held, bool):
        return str(held).lower()
    return repr(held) if isinstance(held, float) else "'" + held.replace("'", "''") + "'"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(node=trees())
def test_the_database_picks_what_python_picks(catalogue: Catalogue, node: Node) -> None:
    assert selected(catalogue, node) == {video for video, held in records(catalogue).items() if matches(node, held)}


@settings(max_examples=150, deadline=None)
@given(node=trees())
def test_what_is_written_is_read_back(node: Node) -> None:
    assert parse(written(node)) == node


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet="regiontlas '\"()=<>!,.-0129andnot\x00é%", max_size=40))
def test_any_text_is_a_tree_or_a_coded_error(text: str) -> None:
    try:
        parse(text)
    except InputError as error:
        assert error.code == "filter.invalid"
        assert "^" in error.hint


def test_the_example_of_the_docs(catalogue: Catalogue) -> None:
    node = parse("uploaded_at > 2025-12-31T23:59:59+00:00 and region = 'DE'")
    assert node == Joined("and", (Compare("uploaded_at", ">", 1767225599.0), Compare("region", "=", "DE")))
    assert selected(catalogue, node) == {
        name for name, held in records(catalogue).items() if held["uploaded_at"] > 1 and held["region"] in ("DE", "de")
    }


def test_and_binds_closer_than_or_and_not_closest() -> None:
    a, b, c = (Compare("title", "=", name) for name in "abc")
    assert parse("title = 'a' or title = 'b' and title = 'c'") == Joined("or", (a, Joined("and", (b, c))))
    assert parse("not title = 'a' and title = 'b'") == Joined("and", (Not(a), b))
    assert parse("TITLE = 'a' AND title not in ('b')") == Joined("and", (a, Not(In("title", ("b",)))))


def test_an_empty_filter_passes_everything(catalogue: Catalogue) -> None:
    assert parse("  ") is None
    assert len(selected(catalogue, None)) == 60


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("region = DE", 9),
        ("uploaded_at >", 13),
        ("uploaded_at > 2026-13-01", 14),
        ("(region = 'x'", 13),
        ("color = 'x'", 0),
        ("title < 'x'", 6),
        ("title = 'x", 8),
        ("a ; b", 2),
        ("duration > 1e999", 11),
        ("region = 'a' region", 13),
        ("tags = 'a'", 5),
        ("published = 'yes'", 12),
        ("region = 'a'; drop table videos", 12),
        ("not " * 60 + "published = true", 200),
    ],
)
def test_a_mistake_is_shown_where_it_is(text: str, place: int) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    assert caught.value.code == "filter.invalid"
    assert f"character {place + 1}:" in caught.value.message
    first, second = caught.value.hint.split("\n")
    assert first == text
    assert second.index("^") == place + 2


def test_values_are_bound_and_never_written_into_the_query() -> None:
    from sqlalchemy.dialects.postgresql import dialect as postgresql_dialect
    from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect

    node = parse("title = 'x'' or 1=1 --' and tags has 'y'';' and region in ('z'';') and creator has 'w;'")
    for name, dialect in (("sqlite", sqlite_dialect()), ("postgresql", postgresql_dialect())):
        text = str(to_sql(node, name).compile(dialect=dialect))
        assert not {"1=1", ";"} & set(text.split()), text
        assert ";" not in text


def test_a_long_filter_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        parse("title = '" + "x" * 5000 + "'")
    assert caught.value.code == "filter.invalid"
