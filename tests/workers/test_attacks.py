"""The attack corpus: each file gives its code within bounds of time and memory, reads nothing, calls nobody, and leaves
the next upload alone. All of it runs in forked children in the sandbox; some of it through the real probe as well."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.sandboxed import Outcome, apart, probed_and_decoded
from store.artifacts import source_key
from store.catalogue import Catalogue
from store.errors import CODES, InputError, MediaError
from store.objects import open_objects
from store.settings import Limits, Settings
from tests.attacks import ATTACKS, CANARY, Attack, Bait, alias, came_of, clip, full, movie, picture
from workers.captions import find_sidecars, read_embedded, read_sidecar
from workers.containers import opened
from workers.decoder_limits import NamelessFile, open_options, refuse_to_open
from workers.frame_decoding import read_frames
from workers.frame_sampling import FrameSampling
from workers.intake import metadata_of, take_in
from workers.sound_decoding import read_sound

LIMITS = Limits()
BY_NAME = {attack.name: attack for attack in ATTACKS}
# The dearest of the corpus unpacks an index to 222 MB and is refused.
MOST_BYTES = 400 * 2**20
MOST_CPU_SECONDS = 5.0
ROOT = Path(__file__).parent.parent.parent
PROBING = """
import json, resource, sys
from pathlib import Path
from store.errors import MediaError
from store.settings import Limits
from workers.probe import probe
try:
    found, told = None, probe(Path(sys.argv[1]), Limits()).model_dump_json()
except MediaError as error:
    found, told = error.code, error.message + error.hint
print(json.dumps([found, told, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))
"""


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.fixture
def bait(tmp_path: Path, listener: socket.socket) -> Bait:
    file = tmp_path / "canary.txt"
    file.write_text(CANARY)
    return Bait(file, listener.getsockname()[1])


def nobody_called(listener: socket.socket) -> bool:
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return True
    return False


def run(data: bytes, limits: Limits = LIMITS, seconds: float = 60) -> Outcome:
    return apart(lambda: probed_and_decoded(data, limits), limits, seconds)


def harmless() -> dict[str, Any]:
    """What the next upload gives."""
    answer = run(clip("mp4")).answer
    assert answer is not None
    return answer


def test_the_corpus_is_large_and_named_apart() -> None:
    assert len(ATTACKS) == len(BY_NAME) >= 40
    assert all(attack.code is None or attack.code == "any" or attack.code in CODES for attack in ATTACKS)


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    found = harmless()
    assert came_of(found) == "accepted"
    assert found["decoded"] == 20
    return found


@pytest.mark.parametrize(
    "attack", [pytest.param(a, id=a.name, marks=[pytest.mark.slow] if a.slow else []) for a in ATTACKS]
)
def test_attack(attack: Attack, bait: Bait, listener: socket.socket, undisturbed: dict[str, Any]) -> None:
    outcome = run(attack.make(bait))
    assert outcome.fault == ""
    assert outcome.status == 0
    assert outcome.answer is not None
    came = came_of(outcome.answer)
    assert came == attack.expected or (attack.code == "any" and came in {*CODES, "degraded", "accepted"})
    if not attack.slow:
        assert outcome.cpu_seconds < MOST_CPU_SECONDS
    assert outcome.peak_bytes < MOST_BYTES
    assert CANARY not in json.dumps(outcome.answer)
    assert nobody_called(listener)
    assert harmless() == undisturbed


@pytest.mark.parametrize(
    "name",
    [
        *(
            "hls_named.mp4",
            "reference_to_file.mp4",
            "reference_alias.mov",
            "video_then_playlist.mp4",
            "pixels_8192.mov",
        ),
        *("index_unpacks_to_4_GB.mov", "tracks_2000.mp4", "sound_255_channels.avi", "flipped.matroska"),
    ],
)
def test_the_real_probe_says_the_same(name: str, tmp_path: Path, bait: Bait, listener: socket.socket) -> None:
    attack = BY_NAME[name]
    path = tmp_path / name
    path.write_bytes(attack.make(bait))
    began = time.monotonic()
    # A process of its own: this one's children so far are many, and the system tells only of the largest of them.
    ran = subprocess.run([sys.executable, "-c", PROBING, path], capture_output=True, text=True, check=True, cwd=ROOT)
    found, told, peak_kilobytes = json.loads(ran.stdout)
    assert found == attack.code or (attack.code == "any" and (found is None or found in CODES))
    assert CANARY not in told
    assert nobody_called(listener)
    assert time.monotonic() - began < LIMITS.probe_seconds
    assert peak_kilobytes * 1024 < MOST_BYTES


def test_memory_beyond_the_limit_is_refused_not_taken(bait: Bait) -> None:
    """The index that unpacks to 256 MB, in a child that may take 128 MB more than it has."""
    small = LIMITS.model_copy(update={"memory_bytes": 2**27})
    outcome = run(BY_NAME["index_unpacks_to_256_MB.mov"].make(bait), small)
    assert outcome.answer is not None
    assert came_of(outcome.answer) in ("media.unreadable", "media.too_many_pixels")
    assert outcome.peak_bytes < 2**27


def test_a_loop_is_ended_by_its_cpu_time() -> None:
    def loop() -> dict[str, Any]:
        while True:
            pass

    outcome = apart(loop, LIMITS.model_copy(update={"probe_cpu_seconds": 0.5}), 60)
    assert outcome.fault == "hang"
    assert outcome.cpu_seconds < 3


# --- what a decoder is given, sandbox or not --------------------------------------------------------------------------


def _samples_elsewhere(reference: bytes) -> bytes:
    """A movie whose samples lie in another file: at their places, this one has nothing."""
    whole = movie([picture()] * 25, references=reference)
    start, moov = whole.index(b"mdat") + 4, whole.index(b"moov") - 4
    return whole[:start] + b"\0" * (moov - start) + whole[moov:]


def test_samples_in_another_file_are_not_fetched(tmp_path: Path) -> None:
    import av

    other, path = tmp_path / "other.bin", tmp_path / "movie.mp4"
    other.write_bytes(movie([picture()] * 25))
    path.write_bytes(_samples_elsewhere(full(b"url ", f"file://{other}\0".encode())))
    with pytest.raises(MediaError, match="picture"):
        read_frames(path, FrameSampling(), LIMITS)
    # QuickTime's way to name a file is the one that ffmpeg follows; without our options and asked to, it does so.
    path.write_bytes(_samples_elsewhere(alias(other)))
    asked = {"enable_drefs": "1", "use_absolute_path": "1"}
    with av.open(str(path), format="mov", options=asked) as container:
        assert sum(1 for _ in container.decode(video=0)) == 25, "the attack bites where nothing guards"
    with pytest.raises(MediaError, match="picture"):
        read_frames(path, FrameSampling(), LIMITS)
    # Each of the walls holds by itself: the default that is set again, and the refusal to open.
    refused: list[str] = []

    def note(url: str, flags: int, options: dict[str, str]) -> Any:
        refused.append(url)
        return refuse_to_open(url, flags, options)

    options = open_options("mov", LIMITS) | asked
    with path.open("rb") as stream, pytest.raises(av.FFmpegError, match="may not open"):
        av.open(NamelessFile(stream), format="mov", options=options, io_open=note)
    assert [url for url in refused if "other.bin" in url], "the decoder did ask"


def test_a_playlist_that_gets_past_the_sniffing_still_opens_nothing(tmp_path: Path, listener: socket.socket) -> None:
    """Were a playlist ever forced open as what it is, its segments would be refused one by one."""
    import av

    segment = tmp_path / "segment.ts"
    segment.write_bytes(clip("mpegts"))
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{segment}\n#EXTINF:2,\n"
    text += f"http://127.0.0.1:{listener.getsockname()[1]}/x.ts\n#EXT-X-ENDLIST\n"
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(text)
    with av.open(
        str(playlist), format="hls", options={"allowed_extensions": "ALL", "protocol_whitelist": "file"}
    ) as bites:
        assert next(bites.decode(video=0)).width == 64, "the attack bites where nothing guards"
    with pytest.raises(av.FFmpegError):
        av.open(
            NamelessFile(io.BytesIO(text.encode())),
            format="hls",
            options=open_options("hls", LIMITS) | {"allowed_extensions": "ALL"},
            io_open=refuse_to_open,
        ).close()
    assert nobody_called(listener)


_FORMATS = (("mp4", "mov"), ("avi", "avi"), ("webm", "matroska"), ("mpegts", "mpegts"), ("ogg", "ogg"), ("asf", "asf"))


def test_every_container_is_opened_behind_these_walls(monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    clips = [(io.BytesIO(clip(container)), name) for container, name in _FORMATS]
    given: dict[str, Any] = {}
    real = av.open

    def watched(file: Any, **options: Any) -> Any:
        given.update(options, file=file)
        return real(file, **options)

    monkeypatch.setattr(av, "open", watched)
    for data, name in clips:
        with opened(data, LIMITS):
            assert isinstance(given["file"], NamelessFile)
            assert given["io_open"] is refuse_to_open
            assert given["format"] == name
            assert given["options"].items() >= {"protocol_whitelist": "pipe", "enable_drefs": "0"}.items()
            assert given["options"]["format_whitelist"].split(",")[0] == name


def test_decoders_are_given_no_name(tmp_path: Path) -> None:
    path = tmp_path / "secret-name.mp4"
    path.write_bytes(clip("mp4"))
    for source in (path, io.BytesIO(clip("mp4"))):
        with opened(source, LIMITS) as container:
            assert container.name == "<none>"
    with path.open("rb") as stream, opened(stream, LIMITS) as container:
        assert container.name == "<none>"


# --- limits that hold while decoding ----------------------------------------------------------------------------------


def test_limits_hold_while_decoding() -> None:
    """Whatever the header says: each limit one below what the clip holds, and at it."""
    mp4 = clip("mp4")
    for limits, code in (
        (Limits(frames=19), "media.too_many_frames"),
        (Limits(pixels=64 * 64 - 1), "media.too_many_pixels"),
        (Limits(seconds=1.5), "media.too_long"),
        (Limits(packets=10), "media.too_many_packets"),
        (Limits(streams=1), "media.too_many_streams"),
    ):
        with pytest.raises(MediaError) as caught:
            read_frames(io.BytesIO(mp4), FrameSampling(), limits)
        assert caught.value.code == code
    for limits, code in (
        (Limits(audio_rate_hz=47_999), "media.sound_out_of_range"),
        (Limits(packets=10), "media.too_many_packets"),
    ):
        with pytest.raises(MediaError) as caught:
            read_sound(io.BytesIO(mp4), 16_000, limits)
        assert caught.value.code == code
    exact = Limits(
        frames=20, pixels=64 * 64, seconds=2.1, packets=100, streams=2, audio_rate_hz=48_000, audio_channels=1
    )
    assert read_frames(io.BytesIO(mp4), FrameSampling(), exact).decoded == 20
    assert read_sound(io.BytesIO(mp4), 16_000, exact).samples.shape[1] > 30_000
    short = read_sound(io.BytesIO(mp4), 16_000, Limits(seconds=1.0))
    assert (short.samples.shape[1], short.degraded) == (16_000, True)


def test_embedded_captions_are_bounded(bait: Bait) -> None:
    data = BY_NAME["captions_60000_lines.mkv"].make(bait)
    with pytest.raises(MediaError) as caught:
        read_embedded(io.BytesIO(data), Limits(packets=1000, caption_bytes=2**24))
    assert caught.value.code == "media.too_many_packets"
    with pytest.raises(InputError) as refused:
        read_embedded(io.BytesIO(BY_NAME["captions_3_MB_line.mkv"].make(bait)), LIMITS)
    assert refused.value.code == "caption.unreadable"


# --- names and caption files ------------------------------------------------------------------------------------------

_LINE = "1\n00:00:01,000 --> 00:00:02,000\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x7fELF" + bytes(range(256)) * 40, "caption.unreadable"),
        (b"\0" * 1000, "caption.unreadable"),
        ((_LINE + "x" * (3 * 2**20)).encode(), "caption.unreadable"),
        (f"#EXTM3U\nfile:///{CANARY}\n".encode(), "caption.unreadable"),
        (b"<!DOCTYPE html><script>alert(1)</script>", "caption.unreadable"),
        ((_LINE + "<script>alert(1)</script>Hello &lt;b&gt;").encode(), "alert(1)Hello <b>"),
        # Quadratic once: minutes for a file of 2 MB. Braces that are never closed, in SubRip and in ASS.
        ((_LINE + "{\\" * 900_000).encode(), "{\\" * 900_000),
        ((_LINE + "&#" + "9" * 5000 + ";").encode(), "&#" + "9" * 5000 + ";"),
    ],
    ids=["binary", "zeros", "huge", "playlist", "page", "script", "open braces", "many digits"],
)
def test_caption_files(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "clip.en.srt"
    path.write_bytes(content)
    began = time.process_time()
    try:
        found = " ".join(line.text for line in read_sidecar(path, LIMITS, None).segments)
    except InputError as error:
        found = error.code
        assert CANARY not in error.message
    assert found == expected
    assert time.process_time() - began < 3


def test_open_braces_in_ass_take_no_time(tmp_path: Path) -> None:
    path = tmp_path / "clip.ass"
    head = "[Script Info]\nScriptType: v4.00+\n[V4+ Styles]\n[Events]\n"
    path.write_text(head + "Dialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,," + "{" * 500_000 + "\n")
    began = time.process_time()
    (line,) = read_sidecar(path, LIMITS, None).segments
    assert line.text == "{" * 500_000
    assert time.process_time() - began < 3


def test_a_caption_file_beside_is_never_a_link(tmp_path: Path) -> None:
    video = tmp_path / "clip.mp4"
    video.write_bytes(clip("mp4"))
    secret = tmp_path / "elsewhere.srt"
    secret.write_text(_LINE + CANARY)
    (tmp_path / "clip.srt").symlink_to(secret)
    assert find_sidecars(video) == []
    assert metadata_of(video, limits=LIMITS).captions == ()
    assert metadata_of(video, captions=[tmp_path / "clip.srt"], limits=LIMITS).captions[0].segments[0].text == CANARY


def test_intake_of_hostile_names_touches_nothing_else(tmp_path: Path, bait: Bait, listener: socket.socket) -> None:
    """Names that climb, control terminals and turn letters round; what is stored lies under its digest."""
    settings = Settings(data=tmp_path / "data", cache=tmp_path / "cache")
    objects, catalogue = open_objects(settings), Catalogue(settings.database_url())
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    names = {
        "..\\..\\outside.mp4": "outside.mp4",
        "\x1b[2Jclear.mp4": "[2Jclear.mp4",
        "holiday\u202e4pm.exe": "holiday4pm.exe",
        "-i file:concat:x|y.mp4": "-i file:concat:x|y.mp4",
        "' OR 1=1; --<script>.mp4": "' OR 1=1; --<script>.mp4",
    }
    for number, (name, shown) in enumerate(names.items()):
        path = uploads / name
        path.write_bytes(clip("mp4") + bytes([number]))
        caption = uploads / f"..%2f{number}.en.srt"
        caption.write_text(_LINE + "Hello")
        taken = take_in(path, metadata_of(path, captions=[caption], limits=LIMITS), settings, objects, catalogue)
        assert taken.video.file_name == shown
        assert objects.size(source_key(taken.video.id)) == path.stat().st_size
    hostile = uploads / "reference.mov"
    hostile.write_bytes(BY_NAME["reference_to_file.mp4"].make(bait))
    take_in(hostile, metadata_of(hostile, limits=LIMITS), settings, objects, catalogue)
    for name in ("hls_named.mp4", "page_then_video.mp4"):
        refused = uploads / name
        refused.write_bytes(BY_NAME[name].make(bait))
        with pytest.raises(MediaError) as caught:
            take_in(refused, metadata_of(refused, limits=LIMITS), settings, objects, catalogue)
        assert str(tmp_path) not in caught.value.message
    catalogue.close()
    assert {file.name for file in tmp_path.iterdir()} == {"data", "uploads", "canary.txt"}
    stored = [file for file in settings.data.rglob("*") if file.is_file()]
    assert len(stored) > 2 * len(names)
    assert not [file for file in stored if CANARY.encode() in file.read_bytes()]
    assert nobody_called(listener)


def test_the_table_of_the_docs_is_the_corpus() -> None:
    page = (ROOT / "docs" / "hostile-media.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `") and line.count("|") == 3]
    found = {row.split("|")[1].strip(" `"): row.split("|")[2].strip(" `") for row in rows}
    assert {attack.name: "any code" if attack.code == "any" else attack.expected for attack in ATTACKS} == found
