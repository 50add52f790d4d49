"""Models are found, fetched, named by their bytes and refused; all through the real clients, on this machine's
loopback."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from encoders import hub
from encoders.downloads import download
from encoders.hub import HubConfig, device_of, digests, find, load_model, load_part, obtain
from store.errors import ModelError, SettingsError
from tests.encoders import tiny_models

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.sentences(tmp_path_factory.mktemp("models") / "sentences")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test in this process reaches for the real hub; those that fetch do so in processes of their own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def in_hub_cache(folder: Path, cache: Path) -> Path:
    """The model as the hub's client keeps it."""
    repository = cache / "hub" / "models--someone--sentences"
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository / "snapshots" / COMMIT


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "no-owner"},
        {"model": "a/b/c"},
        {"model": ""},
        {"model": "a/b", "revision": "-x"},
        {"model": "a/b", "device": "gpu"},
        {"model": "a/b", "precision": "int8"},
        {"model": "a/b", "batch_size": 0},
        {"model": "a/b", "batches": 3},
    ],
)
def test_what_names_no_model_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HubConfig(**fields)


def test_a_relative_path_is_a_hub_id_wherever_a_worker_starts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path / "someone" / "sentences")
    monkeypatch.chdir(tmp_path)
    assert find(HubConfig(model="someone/sentences"), tmp_path / "cache") is None
    assert find(HubConfig(model="./someone/sentences"), tmp_path / "cache") is not None


def test_the_catalogue_names_the_models_that_are_loaded(tmp_path: Path) -> None:
    from encoders.catalogue import BUILT_IN, config_of
    from store.settings import Settings

    settings = Settings(data=tmp_path)
    named = {spec.name: spec.hub for spec in BUILT_IN.values() if spec.hub is not None}
    assert named == {name: config_of(BUILT_IN[name], settings).model for name in named}
    assert len(named) > 5


# --- where models are ------------------------------------------------------------------------------------------------


def test_a_directory_is_named_by_the_digest_of_every_file(folder: Path, tmp_path: Path) -> None:
    config = HubConfig(model=str(folder))
    assert obtain(config, tmp_path) == hub.Found(folder, None)
    found = digests(config, tmp_path)
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= found.keys()
    assert found["model.safetensors"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    assert digests(HubConfig(model=str(other)), tmp_path) == found
    (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text() + " ")
    assert digests(HubConfig(model=str(other)), tmp_path) != found


def test_the_cache_is_asked_before_the_hub_and_names_the_commit(folder: Path, tmp_path: Path) -> None:
    snapshot = in_hub_cache(folder, tmp_path)
    config = HubConfig(model="someone/sentences")
    assert obtain(config, tmp_path) == hub.Found(snapshot, COMMIT)
    assert digests(config, tmp_path) == {"commit": COMMIT}
    assert find(HubConfig(model="someone/sentences", revision="v2"), tmp_path) is None


def test_a_pinned_commit_needs_no_copy_to_be_named(tmp_path: Path) -> None:
    assert digests(HubConfig(model="a/b", revision=COMMIT), tmp_path) == {"commit": COMMIT}


def test_what_cannot_be_fetched_is_told_with_what_to_do(tmp_path: Path) -> None:
    config = HubConfig(model="someone/sentences", revision="v2")
    for ask in (obtain, digests):
        with pytest.raises(ModelError, match="someone/sentences at v2") as caught:
            ask(config, tmp_path)
        assert caught.value.code == "model.missing"
        assert str(tmp_path / "hub") in caught.value.message
        for word in ("HF_HUB_OFFLINE", "someone/sentences", "directory", "`model`"):
            assert word in caught.value.hint
    with pytest.raises(ModelError, match="is not a directory with") as caught:
        obtain(HubConfig(model=str(tmp_path / "nowhere")), tmp_path)
    assert caught.value.code == "model.missing"


@pytest.mark.parametrize("gone", ["config.json", "model.safetensors"])
def test_half_a_model_is_none(folder: Path, tmp_path: Path, gone: str) -> None:
    (in_hub_cache(folder, tmp_path) / gone).unlink()
    assert find(HubConfig(model="someone/sentences"), tmp_path) is None


def test_a_missing_shard_is_missed(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").rename(tmp_path / "m" / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (tmp_path / "m" / hub.INDEX).write_text(json.dumps(index))
    config = HubConfig(model=str(tmp_path / "m"))
    assert find(config, tmp_path) is None
    (tmp_path / "m" / "model-00002-of-00002.safetensors").touch()
    assert find(config, tmp_path) is not None
    (tmp_path / "m" / hub.INDEX).write_text("[]")
    assert find(config, tmp_path) is None


# --- loading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_a_model_has_the_precision_and_the_device_asked_for(folder: Path, tmp_path: Path, precision: str) -> None:
    import torch
    from transformers import AutoModel

    config = HubConfig(model=str(folder), precision=precision, device="cpu")  # type: ignore[arg-type]
    model = load_model(obtain(config, tmp_path), AutoModel, config)
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, precision)}
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_devices() -> None:
    import torch

    assert device_of("cpu") == torch.device("cpu")
    assert device_of("auto").type == (
        "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    )
    if not torch.cuda.is_available():
        with pytest.raises(SettingsError, match="no device cuda:7"):
            device_of("cuda:7")
    if not torch.backends.mps.is_available():
        with pytest.raises(SettingsError, match="no device mps"):
            device_of("mps")


@pytest.mark.parametrize("fault", ["cut", "lacks", "left over shape", "unknown kind", "remote code", "pickle"])
def test_what_does_not_load_whole_is_damaged(folder: Path, tmp_path: Path, fault: str) -> None:
    from safetensors.numpy import load_file, save_file
    from transformers import AutoModel

    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    weights, told = broken / "model.safetensors", broken / "config.json"
    arrays = load_file(weights)
    name = "encoder.layer.1.output.dense.weight"
    if fault == "cut":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif fault == "lacks":
        save_file({key: array for key, array in arrays.items() if key != name}, weights, {"format": "pt"})
    elif fault == "left over shape":
        save_file(arrays | {name: np.zeros((3, 3), np.float32)}, weights, {"format": "pt"})
    elif fault == "pickle":
        import torch

        torch.save({key: torch.from_numpy(array) for key, array in arrays.items()}, broken / "pytorch_model.bin")
        weights.unlink()
    else:
        stated = json.loads(told.read_text())
        stated["model_type"] = "of_another_world"
        if fault == "remote code":
            stated["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
            (broken / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
        told.write_text(json.dumps(stated))
    config = HubConfig(model=str(broken))
    with pytest.raises(ModelError) as caught:
        load_model(obtain(config, tmp_path), AutoModel, config)
    assert caught.value.code == ("model.missing" if fault == "pickle" else "model.damaged")
    assert not (tmp_path / "ran").exists()


def test_a_part_that_is_not_there_is_told(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor

    config = HubConfig(model=str(folder))
    with pytest.raises(ModelError, match="AutoImageProcessor") as caught:
        load_part(obtain(config, tmp_path), AutoImageProcessor, config)
    assert caught.value.code == "model.damaged"


# --- fetching --------------------------------------------------------------------------------------------------------


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    folder: Path
    asked: list[str]


class _Hub(BaseHTTPRequestHandler):
    """So much of the hub's interface as its client needs: what a revision is, the list of files, the files."""

    server: _Server

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        self.server.asked.append(path)
        files = sorted(file for file in self.server.folder.rglob("*") if file.is_file())
        if path.startswith("/api/models/someone/sentences/tree/"):
            listed = [
                {
                    "type": "file",
                    "path": file.relative_to(self.server.folder).as_posix(),
                    "size": file.stat().st_size,
                    "oid": hashlib.sha1(file.read_bytes()).hexdigest(),
                }
                for file in files
            ]
            self._send(json.dumps(listed).encode(), body)
        elif path.startswith("/api/models/someone/sentences"):
            self._send(json.dumps({"id": "someone/sentences", "sha": COMMIT, "siblings": []}).encode(), body)
        elif path.startswith("/someone/sentences/resolve/"):
            file = self.server.folder / path.split("/", 5)[5]
            content = file.read_bytes()
            self._send(content, body, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT})
        elif path == "/file.bin":
            self._send(b"weights" * 1000, body)
        elif path == "/short.bin":
            self._send(b"weights" * 1000, body, {"Content-Length": "9000"})
        elif path == "/elsewhere.bin":
            self._send(b"", body, {"Location": "ftp://127.0.0.1/file.bin"}, status=302)
        else:
            self._send(b'{"error": "Repository not found"}', body, {"X-Error-Code": "RepoNotFound"}, status=404)

    def _send(self, content: bytes, body: bool, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def server(folder: Path, tmp_path: Path) -> Iterator[_Server]:
    copied = tmp_path / "repository"
    shutil.copytree(folder, copied)
    (copied / "pytorch_model.bin").write_bytes(b"never asked for")
    (copied / "onnx").mkdir()
    (copied / "onnx" / "model.safetensors").write_bytes(b"never asked for")
    found = _Server(("127.0.0.1", 0), _Hub)
    found.folder, found.asked = copied, []
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


FETCH = """
import sys
from pathlib import Path
from encoders.hub import HubConfig, obtain
from store.errors import ModelError
for model in sys.argv[2:]:
    try:
        print(obtain(HubConfig(model=model), Path(sys.argv[1])).directory)
    except ModelError as error:
        print(error.code, error.message)
"""


def run(server: _Server, cache: Path, *models: str, **variables: str) -> list[str]:
    """What FETCH prints in a process whose hub is the server."""
    address = f"http://127.0.0.1:{server.server_address[1]}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": address, "HF_HOME": str(cache / "home"), "HF_HUB_DISABLE_XET": "1"} | variables
    found = subprocess.run(
        [sys.executable, "-c", FETCH, str(cache), *models], capture_output=True, text=True, env=environment, check=False
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()


def test_a_model_is_fetched_once_without_pickles_and_then_needs_no_hub(
    server: _Server, folder: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    (refused,) = run(server, cache, "someone/sentences", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE forbids" in refused
    assert server.asked == []
    # The second time, nobody asks whether there is a newer one.
    first, second, unknown = run(server, cache, "someone/sentences", "someone/sentences", "someone/else")
    assert first == second == str(cache / "hub" / "models--someone--sentences" / "snapshots" / COMMIT)
    assert unknown.startswith("model.missing The model someone/else is neither")
    assert sum(path.startswith("/api/models/someone/sentences/tree") for path in server.asked) == 1
    assert not any("pytorch_model.bin" in path or "onnx" in path for path in server.asked)
    server.asked.clear()
    assert find(HubConfig(model="someone/sentences"), cache) == hub.Found(Path(first), COMMIT)
    for file in folder.iterdir():
        assert (Path(first) / file.name).read_bytes() == file.read_bytes()
    assert {file.name for file in Path(first).iterdir()} == {file.name for file in folder.iterdir()}
    assert server.asked == []


def test_what_the_hub_has_without_safetensors_is_missing(server: _Server, tmp_path: Path) -> None:
    server.folder.joinpath("model.safetensors").unlink()
    (told,) = run(server, tmp_path / "cache", "someone/sentences")
    assert told.startswith("model.missing")
    assert "lacks config.json or *.safetensors" in told


# --- a file at an address --------------------------------------------------------------------------------------------


CONTENT = hashlib.sha256(b"weights" * 1000).hexdigest()


def test_a_file_is_fetched_once(server: _Server, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{server.server_address[1]}/file.bin"
    path = download(url, CONTENT.upper(), tmp_path)
    assert path.read_bytes() == b"weights" * 1000
    assert path.parent.parent == tmp_path / "downloads"
    assert download(url, CONTENT, tmp_path) == path
    assert server.asked == ["/file.bin"]
    path.write_bytes(b"rotten")
    assert download(url, CONTENT, tmp_path).read_bytes() == b"weights" * 1000
    assert [file.name for file in path.parent.iterdir()] == ["file.bin"]


@pytest.mark.parametrize(
    ("name", "sha256", "most", "code"),
    [
        ("file.bin", "0" * 64, 10_000, "model.damaged"),
        ("file.bin", CONTENT, 6_999, "model.damaged"),
        ("short.bin", CONTENT, 10_000, "model.missing"),
        ("nowhere.bin", CONTENT, 10_000, "model.missing"),
        ("elsewhere.bin", CONTENT, 10_000, "model.missing"),
    ],
)
def test_what_is_not_the_file_leaves_nothing_behind(
    server: _Server, tmp_path: Path, name: str, sha256: str, most: int, code: str
) -> None:
    with pytest.raises(ModelError) as caught:
        download(f"http://127.0.0.1:{server.server_address[1]}/{name}", sha256, tmp_path, most)
    assert caught.value.code == code
    assert [file for file in (tmp_path / "downloads").rglob("*") if file.is_file()] == []


def test_only_the_web_is_fetched_from(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"weights" * 1000)
    with pytest.raises(ModelError, match="not an http"):
        download(f"file://{tmp_path}/secret", CONTENT, tmp_path)
    with pytest.raises(ModelError) as caught:
        download("http://127.0.0.1:9/file.bin", CONTENT, tmp_path)
    assert caught.value.code == "model.missing"


def test_importing_loads_no_heavy_library() -> None:
    code = """
import sys
import encoders.audio_clap, encoders.downloads, encoders.frame_tokens, encoders.hub, encoders.objects_detector
import encoders.speech_whisper_hub, encoders.text_sentence, encoders.vision_siglip
print(sorted({"torch", "torchvision", "transformers", "huggingface_hub", "librosa", "whisper"} & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
