"""Detectors of both libraries with random weights: scores, names, batches, weights files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from encoders.objects_detector import DetectorConfig, ObjectsDetector, digests
from store.errors import ModelError
from store.records import Frames
from tests.encoders import tiny_models

FASTER = "fasterrcnn_mobilenet_v3_large_320_fpn"
DOG, NAMELESS = 18, 12  # in COCO's numbering


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: tiny_models.detr(root / kind, kind) for kind in ("rt_detr_v2", "detr")}


def faster_rcnn(path: Path, likely: int) -> Path:
    """Random weights of the real network, but that it takes half of what it sees for one class and half for none."""
    import torch
    from torchvision.models import detection

    with torch.random.fork_rng():
        torch.manual_seed(7)
        state = getattr(detection, FASTER)(weights=None, weights_backbone=None).state_dict()
    bias = state["roi_heads.box_predictor.cls_score.bias"]
    bias[:] = -5.0
    bias[0], bias[likely] = 3.0, 3.0
    state["roi_heads.box_predictor.cls_score.weight"] *= 0.1
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faster_rcnn(tmp_path_factory.mktemp("weights") / "detector.pth", DOG)


def noise(count: int, height: int = 64, width: int = 96, seed: int = 7) -> Frames:
    coarse = np.random.default_rng(seed).integers(0, 256, (count, height // 8, width // 8, 3), np.uint8)
    pixels = coarse.repeat(8, axis=1).repeat(8, axis=2)
    return Frames(pixels, np.arange(count, dtype=np.float64), float(count), count, count, False)


def detector_of(folder: Path, cache: Path, **fields: Any) -> ObjectsDetector:
    return ObjectsDetector(DetectorConfig(model=str(folder), **fields), cache)


@pytest.mark.parametrize("kind", ["rt_detr_v2", "detr"])
def test_scores_are_those_of_the_library(folders: dict[str, Path], cache: Path, kind: str) -> None:
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    frames = noise(2)
    detector = detector_of(folders[kind], cache)
    found = detector.scores(frames.pixels)
    model = AutoModelForObjectDetection.from_pretrained(folders[kind]).eval()
    inputs = AutoImageProcessor.from_pretrained(folders[kind])(
        [Image.fromarray(frame) for frame in frames.pixels], return_tensors="pt"
    )
    with torch.inference_mode():
        logits = model(**inputs).logits
    if kind == "detr":  # each of DETR's queries is one thing, or none: the last class
        shares = logits.softmax(dim=-1)[..., :-1]
        expected = (shares * (shares == shares.max(dim=-1, keepdim=True).values)).max(dim=1).values.numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4)
    else:  # of RT-DETR's pairs of query and class, as many as there are queries are taken, the best first
        best = logits.sigmoid().max(dim=1).values.numpy()
        np.testing.assert_allclose(found[found > 0], best[found > 0], atol=1e-4)
        np.testing.assert_allclose(found.max(axis=1), best.max(axis=1), atol=1e-4)
    assert detector.names == ("person", "dog", "N/A", "bicycle", "cup")


@pytest.mark.parametrize("kind", ["rt_detr_v2", "detr"])
def test_results_do_not_depend_on_the_batch(folders: dict[str, Path], cache: Path, kind: str) -> None:
    videos = [noise(5), noise(1, 128, 64), noise(0), noise(4, seed=9)]
    open_to_all = {"min_score": 0.0, "min_confidence": 0.0}
    alone, together = (detector_of(folders[kind], cache, batch_size=size, **open_to_all) for size in (1, 6))
    for frames, found in zip(videos, together.encode_many(videos), strict=True):
        expected = alone(frames)
        assert [label.name for label in found] == [label.name for label in expected]
        assert [label.confidence for label in found] == pytest.approx(
            [label.confidence for label in expected], abs=2e-4
        )
    assert together(videos[0]) == together(videos[0])
    assert together(videos[0])
    np.testing.assert_allclose(together.scores(videos[0].pixels)[3:4], alone.scores(videos[0].pixels[3:4]), atol=1e-5)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_is_near(folders: dict[str, Path], cache: Path, precision: str) -> None:
    whole = detector_of(folders["detr"], cache).scores(noise(1).pixels)
    half = detector_of(folders["detr"], cache, precision=precision).scores(noise(1).pixels)
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, whole, atol=0.05)


def test_what_is_seen_and_when(weights: Path, cache: Path) -> None:
    detector = ObjectsDetector(DetectorConfig(model=FASTER, weights=str(weights), min_score=0.4), cache)
    (label,) = detector(noise(3))
    assert (label.name, label.seconds) == ("dog", [0.0, 1.0, 2.0])
    assert 0.4 < label.confidence < 0.6
    assert ObjectsDetector(DetectorConfig(model=FASTER, weights=str(weights), min_score=0.9), cache)(noise(1)) == []


def test_a_number_without_a_name_is_no_thing(cache: Path, tmp_path: Path) -> None:
    path = faster_rcnn(tmp_path / "nameless.pth", NAMELESS)
    detector = ObjectsDetector(DetectorConfig(model=FASTER, weights=str(path), min_score=0.4), cache)
    assert detector.scores(noise(1).pixels)[0, NAMELESS] > 0.4
    assert detector(noise(1)) == []


def test_torchvision_does_not_depend_on_the_batch(weights: Path, cache: Path) -> None:
    alone, together = (
        ObjectsDetector(DetectorConfig(model=FASTER, weights=str(weights), batch_size=size), cache) for size in (1, 3)
    )
    pixels = noise(3).pixels
    found = together.scores(pixels)
    np.testing.assert_allclose(found, np.concatenate([alone.scores(frame[None]) for frame in pixels]), atol=1e-5)
    assert found.max() > 0.3


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def address(weights: Path) -> Iterator[str]:
    handler = partial(SimpleHTTPRequestHandler, directory=str(weights.parent))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/{weights.name}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_weights_come_from_an_address_or_a_file(weights: Path, address: str, cache: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    fetched = DetectorConfig(model=FASTER, weights=address, sha256=sha256)
    assert digests(fetched, cache) == {FASTER: sha256}
    assert digests(DetectorConfig(model=FASTER, weights=str(weights)), cache) == {FASTER: sha256}
    save_file(torch.load(weights, weights_only=True), tmp_path / "detector.safetensors")
    kept = DetectorConfig(model=FASTER, weights=str(tmp_path / "detector.safetensors"))
    pixels = noise(1).pixels
    np.testing.assert_array_equal(
        ObjectsDetector(fetched, tmp_path).scores(pixels), ObjectsDetector(kept, cache).scores(pixels)
    )
    assert (tmp_path / "downloads" / sha256 / "detector.pth").is_file()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize("fault", ["missing", "digest", "another network", "no weights", "code"])
def test_other_weights_are_refused(weights: Path, cache: Path, tmp_path: Path, fault: str) -> None:
    import pickle

    import torch

    path, sha256 = tmp_path / "other.pth", ""
    if fault == "digest":
        path, sha256 = weights, "0" * 64
    elif fault == "another network":
        torch.save({"weight": torch.zeros(3)}, path)
    elif fault == "no weights":
        path.write_bytes(b"not at all")
    elif fault == "code":
        path.write_bytes(pickle.dumps(print))
    with pytest.raises(ModelError) as caught:
        ObjectsDetector(DetectorConfig(model=FASTER, weights=str(path), sha256=sha256), cache)
    assert caught.value.code == ("model.missing" if fault == "missing" else "model.damaged")


@pytest.mark.parametrize(
    "fields",
    [
        {"model": FASTER},
        {"model": "PekingU/rtdetr_v2_r18vd", "weights": "a.pth"},
        {"model": FASTER, "weights": "https://example.org/a.pth"},
        {"model": FASTER, "weights": "a.pth", "sha256": "12"},
        {"model": "yolo"},
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DetectorConfig(**fields)
