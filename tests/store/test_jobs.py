"""Jobs, shards, encodings and the census, over both databases."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from store.catalogue import Catalogue, RunKey, Video
from store.errors import InputError, ReelsenseError
from store.jobs import ENCODING, Job, Jobs, Shard, Target, encoding_id
from store.records import MediaInfo, Metadata

TARGET = Target(
    versions={"vision": "new-vision", "topics": "new-topics", "published": "new-published"},
    ends={"topics": True, "published": True},
)
LAST = "g"


@pytest.fixture(params=["sqlite", "postgresql"])
def catalogue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalogue]:
    if request.param == "sqlite":
        catalogue = Catalogue(f"sqlite:///{tmp_path / 'catalogue.sqlite3'}")
    else:
        import sqlalchemy as sa

        from store.catalogue import tables
        from store.jobs import job_tables

        catalogue = Catalogue(request.getfixturevalue("postgresql"))
        Jobs(catalogue)
        with catalogue.engine.begin() as connection:
            for table in (*tables.tables.values(), *job_tables.tables.values()):
                connection.execute(sa.delete(table))
    yield catalogue
    catalogue.close()


def put(catalogue: Catalogue, number: int, region: str = "DE", uploaded_at: float = 1.0) -> str:
    media = MediaInfo(container="mp4", bytes=100, width=2, height=2, video_codec="h264", duration=1.0)
    video = Video(
        id=f"{number:032x}", revision=f"r{number}", file_name="x", metadata=Metadata(region=region), media=media,
        uploaded_at=uploaded_at,
    )  # fmt: skip
    catalogue.put_video(video)
    return video.id


def job_of(name: str, where: str = "", stages: tuple[str, ...] = ("vision", "fused")) -> Job:
    overrides = {"frames": 3, "note": name}
    return Job(
        id=name, state="planned", encoding=encoding_id(overrides), overrides=overrides, previous="",
        stages=list(stages), where=where, concurrency=1, videos=1, versions="v", created_at=time.time(),
        started_by="ana",
    )  # fmt: skip


def key(video: str, stage: str, revision: str) -> RunKey:
    return RunKey(video_id=video, stage=stage, version=TARGET.versions[stage], revision=revision)


def test_a_job_is_written_and_read_back(catalogue: Catalogue) -> None:
    jobs = Jobs(catalogue)
    job = job_of("aa11", "region = 'DE'")
    shard = Shard(job="aa11", number=0, after="", last=LAST, cursor="", videos=3)
    jobs.create(job, [shard])
    assert jobs.job("aa") == job
    assert jobs.shards("aa11") == [shard]
    assert jobs.any_open()
    assert jobs.open_encodings() == (("aa11", job.encoding, False),)
    for prefix in ("", "bb"):
        with pytest.raises(InputError) as caught:
            jobs.job(prefix)
        assert caught.value.code == "job.unknown"


def test_jobs_overlap_where_a_video_and_a_stage_do(catalogue: Catalogue) -> None:
    jobs = Jobs(catalogue)
    put(catalogue, 1, "DE")
    put(catalogue, 2, "FR")
    jobs.create(job_of("aa", "region = 'DE'"), [])
    jobs.create(job_of("bb", "region = 'FR'"), [])
    jobs.create(job_of("cc", "", ("speakers",)), [])
    with pytest.raises(InputError) as caught:
        jobs.create(job_of("dd", "uploaded_at < 2026-01-01"), [])
    assert caught.value.code == "job.overlaps"
    assert [job.id for job in jobs.jobs()] == ["aa", "bb", "cc"]
    for name in ("aa", "bb"):
        jobs.change(jobs.job(name), ("planned",), "cancelled", "cancel", "ana")
    jobs.create(job_of("dd"), [])


def test_a_census_counts_each_video_once(catalogue: Catalogue) -> None:
    jobs = Jobs(catalogue)
    whole, half, unpublished, broken, late = (
        put(catalogue, number, uploaded_at=9.0 if number == 5 else 1.0) for number in range(1, 6)
    )
    for number, video in ((1, whole), (3, unpublished)):
        for stage in ("topics", "published"):
            catalogue.finish(key(video, stage, f"r{number}"), 1.0)
    catalogue.publish(whole, "new-published", "r1")
    catalogue.finish(key(half, "topics", "r2"), 1.0)
    catalogue.claim(key(broken, "vision", ""), "worker", 30)
    catalogue.fail(key(broken, "vision", ""), InputError("media.no_frames", "No picture."))
    found = jobs.census("", LAST, "", TARGET, begun=5.0)
    assert (found.videos, found.done, found.failed, found.late, found.missing) == (5, 1, 1, 1, 2)
    assert [video.id for video in jobs.videos_between("", LAST, "", 10, lacking=TARGET)] == [
        half, unpublished, broken, late,
    ]  # fmt: skip
    assert jobs.unsettled([whole, half, broken, late], TARGET) == [half, late]
    assert jobs.done_between("", 10, TARGET) == [(whole, "r1")]
    assert jobs.census(half, unpublished, "region = 'de'", TARGET, begun=5.0).videos == 1
    assert jobs.sizes("", LAST, "region = 'DE'") == (5, 500)
    assert jobs.done_by_stage("", LAST, "region = 'DE'", TARGET.versions) == {"topics": 3, "published": 2}
    assert jobs.range_end("", 2) == half
    assert jobs.range_end(half, 10) == late
    assert jobs.range_end(late, 10) is None


def test_words_that_changed_make_a_video_lack_again(catalogue: Catalogue) -> None:
    jobs = Jobs(catalogue)
    video = put(catalogue, 1)
    for stage in ("topics", "published"):
        catalogue.finish(key(video, stage, "older"), 1.0)
    catalogue.publish(video, "new-published", "older")
    assert jobs.census("", LAST, "", TARGET, begun=5.0).done == 0


def test_one_feeder_at_a_time(catalogue: Catalogue) -> None:
    jobs = Jobs(catalogue)
    jobs.create(job_of("aa"), [])
    assert jobs.lease("aa", "one", 30)
    assert jobs.lease("aa", "one", 30)
    assert not jobs.lease("aa", "two", 30)
    jobs.note("aa", feeder_until=0.0)
    assert jobs.lease("aa", "two", 30)


def test_a_job_begins_behind_uploads_and_once_when_it_starves(catalogue: Catalogue) -> None:
    jobs = Jobs(catalogue)
    video = put(catalogue, 1)
    mine = key(video, "vision", "")
    jobs.create(job_of("aa"), [])
    catalogue.mark_queued(mine)
    ask: Any = {"job_versions": {"new-vision"}, "lease_seconds": 30.0, "starve_seconds": 60.0}
    assert not jobs.may_start("aa", mine, **ask), "a planned job has not begun"
    jobs.change(jobs.job("aa"), ("planned",), "running", "run", "ana", last_started=time.time())
    assert jobs.may_start("aa", mine, **ask)
    upload = RunKey(video_id=video, stage="audio", version="old", revision="")
    catalogue.mark_queued(upload)
    assert not jobs.may_start("aa", mine, **ask)
    run = catalogue.run(mine)
    assert run is not None
    assert run.queued_at == 0.0
    jobs.note("aa", last_started=time.time() - 61)
    assert jobs.may_start("aa", mine, **ask)
    assert not jobs.may_start("aa", mine, **ask), "one, and then it waits again"
    catalogue.claim(upload, "worker", 30)
    assert not jobs.may_start("aa", mine, **ask), "running counts as well as waiting"
    catalogue.finish(upload, 1.0)
    assert jobs.may_start("aa", mine, **ask)


def test_a_switch_is_both_or_neither(catalogue: Catalogue) -> None:
    jobs = Jobs(catalogue)
    job = job_of("aa")
    jobs.create(job, [])
    with pytest.raises(InputError) as caught:
        jobs.serve(job, job.encoding, ("complete",), "switched", "switch", "ana")
    assert caught.value.code == "job.wrong_state"
    assert ENCODING not in catalogue.choices()
    jobs.change(job, ("planned",), "complete", "run", "feeder")
    assert jobs.serve(job, job.encoding, ("complete",), "switched", "switch", "ana").previous == ""
    assert catalogue.choices()[ENCODING] == job.encoding
    assert jobs.overrides(job.encoding) == job.overrides
    assert jobs.serve(job, "", ("switched",), "rolled_back", "rollback", "ana").previous == job.encoding
    assert ENCODING not in catalogue.choices()
    with pytest.raises(ReelsenseError):
        jobs.overrides("f" * 16)
