"""A job whose encoder is broken stops by itself at its sample: real clips, real workers' code, real broken weights."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from encoders import catalogue as encoder_catalogue
from store.settings import load_settings
from tests import clips
from tests.workers.test_reembedding import JobHouse
from workers import extraction, reembedding
from workers.reembedding import Request

pytestmark = pytest.mark.models
# Moving pictures that differ from each other.
SOURCES: tuple[tuple[str, dict[str, object]], ...] = (
    ("testsrc", {}),
    ("testsrc2", {}),
    ("mandelbrot", {}),
    ("life", {"seed": 1, "mold": 10, "ratio": 0.3}),
    ("cellauto", {"seed": 3}),
    ("sierpinski", {}),
    ("gradients", {"seed": 1, "speed": 0.05}),
    ("gradients", {"seed": 11, "speed": 0.05, "n": 6}),
    ("smptebars", {}),
)
ENCODER = '''"""An encoder as a package brings it, whose weights lie in a file beside it."""
import numpy as np
from pathlib import Path
from pydantic import BaseModel, ConfigDict
from safetensors.numpy import load_file
from encoders.specs import EncoderSpec
from store.records import Encoded, Tokens, VisionAttributes


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    gain: float = 1.0


SPEC = EncoderSpec(
    name="noise-weights", modality="vision", dim=64, weights=(), modules=("noise_encoder",), preprocessing="16 x 16",
    licence="Apache-2.0", config="noise_encoder:Config", encoder="noise_encoder:Encoder", data=("noise.safetensors",),
)


class Encoder:
    def __init__(self, config, cache, threads=1):
        stored = load_file(Path(__file__).parent / "noise.safetensors")
        self.layers = [config.gain * stored[name] for name in sorted(stored)]

    def __call__(self, frames):
        rows = []
        for pixels in frames.pixels:
            down, across = (np.linspace(0, size - 1, 16).astype(int) for size in pixels.shape[:2])
            found = pixels[down][:, across].reshape(-1) / 127.5 - 1.0
            for layer in self.layers:
                found = np.tanh(found @ layer)
            rows.append(found + 1e-6)
        count = len(rows)
        times = np.linspace(0, frames.duration_seconds, count + 1).astype(np.float32)
        rows = np.array(rows, np.float32).reshape(count, 64)
        tokens = Tokens(rows, times[:-1], times[1:], np.ones(count, np.float32))
        return Encoded(tokens, VisionAttributes())
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The encoder above, installed by hand, with weights that are noise."""
    from safetensors.numpy import save_file

    site = tmp_path / "site"
    (site / "noise_encoder-1.0.dist-info").mkdir(parents=True)
    (site / "noise_encoder.py").write_text(ENCODER)
    (site / "noise_encoder-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: noise-encoder\nVersion: 1.0\n"
    )
    (site / "noise_encoder-1.0.dist-info" / "entry_points.txt").write_text(
        "[reelsense.encoders]\nnoise-weights = noise_encoder:SPEC\n"
    )
    random = np.random.default_rng(5)
    widths = [768, *[64] * 13]
    layers = {f"layer{place:02}": random.normal(size=pair) for place, pair in enumerate(pairwise(widths))}
    save_file({name: layer.astype(np.float32) for name, layer in layers.items()}, site / "noise.safetensors")
    monkeypatch.syspath_prepend(str(site))
    encoder_catalogue.encoders.cache_clear()
    yield site
    encoder_catalogue.encoders.cache_clear()


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("gain", [1.0, 0.0])
def test_a_broken_encoder_stops_at_the_sample(tmp_path: Path, gain: float) -> None:
    """Weights of noise tear the frames of a video apart; weights of nothing say the same of all."""
    house = JobHouse(load_settings(data=tmp_path / "data"))
    encoders = extraction.Encoders(house.settings)
    for number, (source, options) in enumerate(SOURCES if gain else SOURCES[:3]):
        stream = clips.source(source, 2.0, "192x144", 10, **options).filter("format", "yuv420p")
        house.add(clips.render(tmp_path / f"{number}.mp4", stream, vcodec="libx264"), title=f"{source} {number}")
    house.drain(encoders)
    old = dict(house.graph.versions)
    request = Request(overrides={"encoders.vision": "noise-weights", "options.noise-weights.gain": gain})
    job = reembedding.start(house.graph, request, "ana")
    assert job.stages == ["vision", "fused", "published"]
    ran = house.play(encoders, ("failed", "running", "complete"))
    job = house.job()
    assert job.state == "failed", job.canary
    assert job.reason["code"] == "job.canary_failed"
    assert "vision tokens" in job.reason["message"]
    assert job.canary["modalities"]["vision"]["videos"] == len(house.catalogue.videos())
    assert len(ran) == 3 * len(house.catalogue.videos())
    house.graph.refresh()
    assert len(house.graph.plans) == 1, "nobody follows it any more"
    house.feeder.feed()
    assert house.sent == []
    assert dict(house.graph.versions) == old
    house.catalogue.close()
