"""The page of a video: what is understood of it along its time, at every state of its processing, whatever it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from app import video_view
from app.api import create_api
from app.operations import ReelSense
from store.administration import Actor
from store.api_keys import ApiKeys
from store.errors import InputError
from store.records import Metadata
from store.settings import load_settings
from tests import clips
from tests.app.reading import Page
from tests.app.understood import SECONDS, understand

EVIL = "</script><script>alert(1)</script> <img src=x onerror=alert(2)> --> \u202e {{ 7*7 }} 🎬"


@pytest.fixture(scope="module")
def reelsense(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReelSense]:
    reelsense = ReelSense(load_settings(data=tmp_path_factory.mktemp("video") / "data"))
    yield reelsense
    reelsense.catalogue.close()


@pytest.fixture(scope="module")
def client(reelsense: ReelSense) -> Iterator[TestClient]:
    with TestClient(create_api(reelsense.settings), base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture(scope="module")
def dog(reelsense: ReelSense, tmp_path_factory: pytest.TempPathFactory) -> str:
    clip = clips.test_pattern(tmp_path_factory.mktemp("clip") / "a.mp4", seconds=1.0, tone_hz=440.0)
    understand(reelsense, "another dog")
    return understand(
        reelsense,
        "dog",
        clip=clip,
        timed=True,
        metadata=Metadata(title="A dog", creator="ana", description="line\nline"),
    )


def test_all_that_is_understood_stands_on_the_page(client: TestClient, dog: str) -> None:
    page = Page(client.get(f"/videos/{dog}").text)
    assert page.one("h1").text == "A dog"
    for said in (
        "by ana", "Where attention went", "animals", "70 %", "Palette", "Along its time", "speech", "music",
        "Key frames", "dog", "2 faces at most, in 50 % of the frames.", "Motion 25 %.", "the first words",
        "caption: the first words", "written: the first words", "50 % orchestral, calm", "-18.0 LUFS",
        "Similar videos", "another dog.mp4", "Processing", "Waited and ran",
    ):  # fmt: skip
        assert said in page.text, said
    shares = [float(share) for share in re.findall(r"(?:vision|audio|text) (\d+) %", page.text)[:3]]
    assert abs(sum(shares) - 100) <= 2
    palette = page.one("svg", class_="palette")
    assert palette["aria-label"] == "red 60 %, grey 40 %"
    fills = [rect["fill"] for rect in page.all("rect") if rect["fill"].startswith("#")]
    assert fills == ["#aa1122", "#808080"]
    assert len(page.all("rect", class_="vision")) == 4 + 3, "its tokens, its share, and two legends"
    assert "-0.00" not in page.text


def test_everything_with_a_time_seeks_with_script_and_without(client: TestClient, dog: str) -> None:
    page = Page(client.get(f"/videos/{dog}").text)
    links = page.all("a", data_seek="")
    assert {float(link["data-seek"]) for link in links} >= {0.5, 3.5, 6.5, 9.5, 2.0, 5.0, 1.0}
    for link in links:
        assert link["href"] == f"?t={link['data-seek']}#player"
    moved = Page(client.get(f"/videos/{dog}?t=6.5").text)
    assert moved.one("video")["src"] == f"/api/v1/videos/{dog}/media#t=6.50"
    for wrong in ("nan", "inf", "-1", "x", "1e99"):
        assert client.get(f"/videos/{dog}?t={wrong}").status_code == 422


def test_what_the_page_loads_is_there(client: TestClient, dog: str) -> None:
    page = Page(client.get(f"/videos/{dog}").text)
    loaded = [*page.loaded(), page.one("video")["poster"]]
    assert len([address for address in loaded if "/thumbnail?seconds=" in address]) == 4
    for address in loaded:
        assert client.get(address.partition("#")[0]).status_code == 200, address
    tracks = page.all("track")
    assert [(track["kind"], track["srclang"]) for track in tracks] == [("subtitles", "en"), ("captions", "en")]
    answer = client.get(tracks[0]["src"])
    assert answer.headers["content-type"].startswith("text/vtt")
    assert answer.text.splitlines()[:4] == ["WEBVTT", "", "00:00:02.000 --> 00:00:04.000", "the first words"]
    assert client.get(f"/videos/{dog}/captions/99.vtt").status_code == 404
    assert client.get(f"/videos/{dog}/captions/-1.vtt").status_code == 404


def test_a_beginning_of_an_id_leads_to_the_whole(client: TestClient, dog: str) -> None:
    answer = client.get(f"/videos/{dog[:8]}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (302, f"/videos/{dog}")


@pytest.mark.parametrize("stages", [(), ("frames",), ("frames", "vision", "appearance"), ("audio", "transcript")])
def test_it_reads_before_all_is_done_and_follows_what_changes(
    client: TestClient, reelsense: ReelSense, stages: tuple[str, ...]
) -> None:
    video = understand(reelsense, f"half {stages}", stages=stages)
    page = Page(client.get(f"/videos/{video}").text)
    live = page.one("section", data_live="")
    assert live["data-live"] == f"/api/v1/videos/{video}/events"
    states = {item["data-stage"]: item.text.split()[0] for item in page.all("li", data_stage="")}
    assert {name for name, state in states.items() if state == "done"} == set(stages)
    assert len(states) == 11
    assert page.one("progress", data_done="")["value"] == str(len(stages))
    assert "Similar videos" not in page.text
    for address in page.loaded():
        if "/media" not in address:
            assert client.get(address).status_code == 200, address


def test_a_failure_stands_on_the_page_and_can_be_tried_again(client: TestClient, reelsense: ReelSense) -> None:
    video = understand(reelsense, "failing", stages=())
    key = reelsense.graph.key(reelsense.catalogue.video(video), "audio")
    reelsense.catalogue.mark_queued(key)
    reelsense.catalogue.fail(key, InputError("media.unreadable", f"torn {EVIL}"))
    page = Page(client.get(f"/videos/{video}").text)
    assert f"media.unreadable torn {' '.join(EVIL.split())}" in page.one("p", role="alert").text
    assert page.all("form", action=f"/videos/{video}/retry")
    answer = client.post(f"/videos/{video}/retry", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/videos/{video}#processing")
    run = reelsense.catalogue.run(key)
    assert run is not None
    assert run.state == "queued"


def test_administrators_set_aside_release_and_delete(client: TestClient, reelsense: ReelSense) -> None:
    video = understand(reelsense, "unwanted", metadata=Metadata(title="unwanted"))
    path = f"/videos/{video}"
    actions = {form["action"] for form in Page(client.get(path).text).all("form") if "/key" not in form["action"]}
    assert actions == {f"{path}/quarantine", f"{path}/delete"}
    assert client.post(f"{path}/quarantine", data={"reason": EVIL}, follow_redirects=False).status_code == 303
    page = Page(client.get(path).text)
    assert "video.quarantined" in page.text
    assert not page.all("form", action=f"{path}/quarantine")
    assert client.post(f"{path}/release").status_code == 200
    assert "video.quarantined" not in client.get(path).text
    assert client.post(f"{path}/explode").status_code == 422
    assert client.post(f"{path}/delete").status_code == 422, "only who is sure"
    assert client.get(path).status_code == 200
    answer = client.post(f"{path}/delete", data={"sure": "yes"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/library")
    assert client.get(path).status_code == 404
    assert "unwanted" not in client.get("/library").text
    for name in ("prioritise", "cancel", "retry", "delete"):
        assert client.post(f"{path}/{name}", data={"sure": "yes"}).status_code == 404
    waiting = understand(reelsense, "in line", stages=("frames",))
    for name in ("prioritise", "cancel"):
        assert Page(client.get(f"/videos/{waiting}").text).all("form", action=f"/videos/{waiting}/{name}")
        assert client.post(f"/videos/{waiting}/{name}", follow_redirects=False).status_code == 303
    assert "video.cancelled" in client.get(f"/videos/{waiting}").text


def test_nothing_that_is_said_becomes_markup(client: TestClient, reelsense: ReelSense) -> None:
    video = understand(
        reelsense,
        "evil",
        said=EVIL,
        shown=EVIL,
        topic=EVIL,
        file_name=EVIL,
        metadata=Metadata(title=EVIL, description=EVIL, creator=EVIL, tags=(EVIL[:100],)),
    )
    text = client.get(f"/videos/{video}").text
    page = Page(text)
    assert page.one("h1").text == EVIL
    assert "alert(" not in "".join(element.text for element in page.all("script"))
    assert not [element for element in page.all("img") if element["src"] == "x"]
    assert "49" not in page.one("h1").text
    for link in page.all("a", class_="chip"):
        assert client.get(link["href"]).status_code == 200
    written = client.get(f"/videos/{video}/captions/0.vtt").text
    assert written.count("-->") == 2, "one for each line, and none that a line brought"
    assert "<script>" not in written
    other = understand(reelsense, "beside evil", topic=EVIL)
    assert EVIL in Page(client.get(f"/videos/{other}").text).text, "as a neighbour too"


def test_who_may_see_what(tmp_path: Path) -> None:
    reelsense = ReelSense(load_settings(data=tmp_path))
    video = understand(reelsense, "guarded")
    keys = ApiKeys(reelsense.catalogue)
    read, admin, upload = (keys.create(scope, [scope])[1] for scope in ("read", "admin", "upload"))
    with TestClient(create_api(reelsense.settings), base_url="http://127.0.0.1") as client:

        def get(secret: str) -> tuple[int, str]:
            answer = client.get(f"/videos/{video}", headers={"authorization": f"Bearer {secret}"})
            return answer.status_code, answer.text

        assert get(upload)[0] == 403
        assert "All that happened" not in get(read)[1]
        assert "All that happened" in get(admin)[1] or not reelsense.graph.administration.history.of_video(video)
        assert client.post(f"/videos/{video}/retry", headers={"authorization": f"Bearer {read}"}).status_code == 403
        reelsense.graph.administration.quarantine(video, [], Actor("ana", "cli"), EVIL)
        status, text = get(read)
        assert status == 409
        assert "video.quarantined" in Page(text).text
        status, text = get(admin)
        assert status == 200
        assert "video.quarantined" in Page(text).text
    reelsense.catalogue.close()


def test_a_video_that_is_gone_is_no_page(client: TestClient) -> None:
    answer = client.get("/videos/" + "0" * 32)
    assert answer.status_code == 404
    assert "video.unknown" in answer.text


# --- what is drawn ---------------------------------------------------------------------------------------------------

TIMES = st.floats(-1e6, 1e6, allow_nan=False)


@given(TIMES, TIMES, st.floats(0.01, 1e5))
def test_a_bar_never_leaves_the_line_and_can_be_seen(start: float, end: float, duration: float) -> None:
    bar = video_view.bar(start, end, duration, "vision", "x")
    assert bar.x >= 0
    assert bar.width >= 2
    assert bar.x + bar.width <= 1000.11


@given(
    st.lists(
        st.fixed_dictionaries(
            {"start": st.floats(0, 36_000), "end": st.floats(0, 36_000), "text": st.text(max_size=60)}
        )
    )
)
def test_captions_are_captions_whatever_is_said(lines: list[dict[str, object]]) -> None:
    written = video_view.web_vtt(lines)
    said = [line for line in lines if str(line["text"]).split() and line["end"] > line["start"]]  # type: ignore[operator]
    assert written.count("-->") == len(said)
    assert written.startswith("WEBVTT\n")
    assert "<" not in written


def test_attention_is_compared_within_a_modality(reelsense: ReelSense, dog: str) -> None:
    strips = video_view.attention_strips(reelsense.show(dog))
    assert [strip.name for strip in strips] == ["vision", "audio", "text"]
    for strip in strips:
        assert max(bar.heat for bar in strip.bars) == 1.0
        assert all(0 < bar.heat <= 1 for bar in strip.bars)
        assert [bar.heat for bar in strip.moments] == sorted((bar.heat for bar in strip.bars), reverse=True)[:4]
    assert [source for source, _ in strips[2].whole] == ["title"]
    assert len(strips[2].bars) == 3
    assert abs(sum(strip.share or 0 for strip in strips) - 1) < 1e-3


def test_stages_wait_and_run_on_one_line_of_time(reelsense: ReelSense, dog: str) -> None:
    rows = video_view.stage_rows(reelsense.show(dog), reelsense.catalogue.runs([dog]))
    assert rows[0].name == "frames"
    for row in rows:
        assert row.wait is not None
        assert row.run is not None
        assert row.waited == 1.0
        assert 0 <= row.wait[0] <= row.run[0] <= 1000
    assert video_view.stage_rows(reelsense.show(dog), []) != rows


def test_nothing_is_drawn_of_what_is_not_known(reelsense: ReelSense) -> None:
    shown = reelsense.show(understand(reelsense, "nothing", stages=()))
    assert video_view.attention_strips(shown) == []
    assert video_view.sound_strip(shown) is None
    assert video_view.other_strips(shown) == []
    assert video_view.key_frames(shown) == []
    assert video_view.texts(shown) == []
    assert video_view.ticks(None) == []
    assert video_view.ticks(SECONDS) == [0.0, 3.0, 6.0, 9.0, 12.0]
