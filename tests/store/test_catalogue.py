"""One suite over both databases: SQLite, and a real PostgreSQL where one can be started."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.catalogue import Catalogue, RunKey, StoredEvent, Video
from store.errors import InputError, NotFoundError, PassingError
from store.event_log import EventLog
from store.records import MediaInfo, Metadata
from tests.store.servers import free_port

MEDIA = MediaInfo(container="mp4", bytes=1, duration=1.0, width=2, height=2, video_codec="h264")


@pytest.fixture(params=["sqlite", "postgresql"])
def catalogue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalogue]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'deep' / 'catalogue.sqlite3'}"
    else:
        url = request.getfixturevalue("postgresql")
    catalogue = Catalogue(url)
    yield catalogue
    catalogue.close()


def new_id() -> str:
    return uuid.uuid4().hex


def video(video_id: str, title: str = "", revision: str = "r1") -> Video:
    return Video(
        id=video_id,
        revision=revision,
        file_name="a.mp4",
        metadata=Metadata(title=title),
        media=MEDIA,
        uploaded_at=time.time(),
    )


def run_key(video_id: str | None = None, stage: str = "vision") -> RunKey:
    return RunKey(video_id=video_id or new_id(), stage=stage, version="v1", revision="")


def test_a_video_is_found_by_its_id_and_by_a_prefix(catalogue: Catalogue) -> None:
    name = new_id()
    catalogue.put_video(video(name, "one"))
    assert catalogue.video(name).metadata.title == "one"
    assert catalogue.video(name[:10]).id == name


@pytest.mark.parametrize("wrong", ["", "ab", "%%%%", "____", "not-there", "\\", "x" * 300])
def test_an_unknown_id_is_coded(catalogue: Catalogue, wrong: str) -> None:
    catalogue.put_video(video(new_id()))
    with pytest.raises(NotFoundError) as caught:
        catalogue.video(wrong)
    assert caught.value.code == "video.unknown"


def test_an_ambiguous_prefix_is_refused(catalogue: Catalogue) -> None:
    shared = new_id()[:20]
    for end in ("0" * 12, "1" * 12):
        catalogue.put_video(video(shared + end))
    with pytest.raises(NotFoundError, match="More than one"):
        catalogue.video(shared)


def test_new_words_keep_the_place_of_the_old(catalogue: Catalogue) -> None:
    name = new_id()
    catalogue.put_video(video(name, "old"))
    before = catalogue.video(name)
    catalogue.put_video(video(name, "new", "r2"))
    after = catalogue.video(name)
    assert (after.metadata.title, after.revision) == ("new", "r2")
    assert after.uploaded_at == before.uploaded_at


def test_an_attempt_is_counted_before_the_work(catalogue: Catalogue) -> None:
    key = run_key()
    catalogue.mark_queued(key)
    assert catalogue.claim(key, "host/1", lease_seconds=30) == 1
    run = catalogue.run(key)
    assert run is not None
    assert (run.state, run.attempts, run.worker) == ("running", 1, "host/1")


def test_a_fresh_lease_keeps_others_out_and_a_stale_one_does_not(catalogue: Catalogue) -> None:
    key = run_key()
    now = time.time()
    assert catalogue.claim(key, "host/1", 30, now=now) == 1
    assert catalogue.claim(key, "host/2", 30, now=now + 29) is None
    assert catalogue.claim(key, "host/2", 30, now=now + 31) == 2


def test_a_beat_renews_the_lease_of_its_holder_alone(catalogue: Catalogue) -> None:
    key = run_key()
    catalogue.claim(key, "host/1", 30, now=time.time() - 100)
    catalogue.beat(key, "host/2")
    assert catalogue.claim(key, "host/2", 30) == 2
    catalogue.beat(key, "host/2")
    assert catalogue.claim(key, "host/3", 30) is None


def test_of_many_workers_one_gets_the_run(catalogue: Catalogue) -> None:
    key = run_key()
    taken: list[int] = []
    barrier = threading.Barrier(8)

    def claim(number: int) -> None:
        barrier.wait()
        attempt = catalogue.claim(key, f"host/{number}", 30)
        if attempt is not None:
            taken.append(attempt)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken == [1]


def test_what_is_done_is_not_claimed_again(catalogue: Catalogue) -> None:
    key = run_key()
    catalogue.claim(key, "host/1", 30)
    catalogue.finish(key, 2.5)
    assert catalogue.claim(key, "host/2", 30) is None
    catalogue.mark_queued(key)
    run = catalogue.run(key)
    assert run is not None
    assert (run.state, run.seconds) == ("done", 2.5)


def test_a_passing_error_does_not_count_as_an_attempt(catalogue: Catalogue) -> None:
    key = run_key()
    for _ in range(5):
        assert catalogue.claim(key, "host/1", 30) == 1
        catalogue.release(key, PassingError("store.unavailable", "away"))


def test_failures_stay_until_they_are_reset(catalogue: Catalogue) -> None:
    key = run_key()
    catalogue.claim(key, "host/1", 30)
    catalogue.fail(key, InputError("media.no_frames", "none"), "a traceback")
    catalogue.mark_queued(key)
    run = catalogue.run(key)
    assert run is not None
    assert (run.state, run.error_code, run.traceback) == ("failed", "media.no_frames", "a traceback")
    assert catalogue.claim(key, "host/1", 30) is None
    catalogue.reset([key])
    assert catalogue.claim(key, "host/1", 30) == 1


def test_publishing_twice_is_publishing_once(catalogue: Catalogue) -> None:
    version = new_id()
    name = new_id()
    for _ in range(3):
        catalogue.publish(name, version, "r1")
    catalogue.publish(name, version, "r2")
    rows = catalogue.publications(version)
    assert [(row.video_id, row.revision) for row in rows] == [(name, "r1"), (name, "r2")]
    assert [row.revision for row in catalogue.publications(version, after=rows[0].sequence)] == ["r2"]


def test_a_revision_that_comes_back_is_seen_to_come_back(catalogue: Catalogue) -> None:
    version, name = new_id(), new_id()
    for revision in ("r1", "r2"):
        catalogue.publish(name, version, revision)
    last = catalogue.publications(version)[-1].sequence
    catalogue.publish(name, version, "r1")
    assert [row.revision for row in catalogue.publications(version, after=last)] == ["r1"]
    assert [row.revision for row in catalogue.publications(version)] == ["r2", "r1"]


def test_events_come_back_in_time_order_and_once(catalogue: Catalogue) -> None:
    user = new_id()
    late, early = (
        StoredEvent(id=new_id(), user_id=user, video_id="v", kind="view", watched_seconds=1.0, at=at)
        for at in (9.0, 3.0)
    )
    assert EventLog(catalogue).add([late, early]) == 2
    assert EventLog(catalogue).add([late]) == 0
    assert [event.at for event in EventLog(catalogue).of(user)] == [3.0, 9.0]


def test_a_database_that_is_away_is_a_passing_error(tmp_path: Path) -> None:
    with pytest.raises(PassingError) as caught:
        Catalogue(f"postgresql://nobody:secret-word@127.0.0.1:{free_port()}/none")
    assert caught.value.code == "database.unavailable"
    assert "secret-word" not in caught.value.message
    (tmp_path / "file").write_text("not a database, but long enough to be looked at as one" * 100)
    with pytest.raises(PassingError):
        Catalogue(f"sqlite:///{tmp_path / 'file'}")


def test_a_text_that_the_database_cannot_hold_is_the_callers_fault(catalogue: Catalogue) -> None:
    # PostgreSQL refuses it, SQLite finds nothing; neither is a database that is away.
    try:
        found = catalogue.video("ab\0cd")
    except InputError as error:
        assert error.code in ("request.invalid", "video.unknown")
    else:
        raise AssertionError(found)
