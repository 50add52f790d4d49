"""Whether sentence vectors are those of the reference, and what a sentence costs: `python -m bench.quality_text`.

*Parity*: the largest difference between `TextEncoder.embed` and each text alone through plain transformers (model,
mask, mean, unit length), over caption lines, docstrings and other scripts. *Runtimes*: the same batches through torch
eager (the default), torch with its linear layers in int8 (dynamic quantisation) and `torch.compile`, one thread; CPU
milliseconds a sentence, the largest difference, and how often the nearest other text stays the same.
Writes bench/results/text.json.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import results
from bench.quality_topics import module_documents
from encoders.text import TextConfig, TextEncoder
from encoders.weights import WEIGHTS, locate
from store.records import Float32
from store.settings import Limits, load_settings

MEDIA = Path(__file__).parents[2] / "shared" / "media"
TEXTS = 192
ROUNDS = 3
ODD = (
    "",
    "a",
    "word " * 400,
    "Ein Hund läuft am Strand.",
    "海辺を走る犬",
    "كلب على الشاطئ",
    "🐶 on the beach",
    "\n\t ",
)


def texts() -> list[str]:
    """Real caption lines where the clips are beside this checkout, and docstrings in passages as long as pieces are."""
    found = [piece.text for pieces in module_documents().values() for piece in pieces[:2]]
    if MEDIA.is_dir():
        from workers.captions import read_sidecar

        for name in ("sintel_en.vtt", "plyr_surf_en.vtt", "elephantsdream_en.vtt", "sonnet001.srt"):
            found += [line.text for line in read_sidecar(MEDIA / "captions" / name, Limits(), None).segments]
    step = max(1, len(found) // TEXTS)
    return found[::step][:TEXTS]


def reference(folder: Path, sentences: Sequence[str]) -> Float32:
    """float32 [n, 384]: each sentence alone, by transformers and a mean, without anything of ours."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    directory = locate(WEIGHTS["minilm-l6-v2"], folder)
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    model = AutoModel.from_pretrained(directory, local_files_only=True).eval()
    rows = []
    for sentence in sentences:
        inputs = tokenizer(sentence, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            states = model(**inputs).last_hidden_state[0]
        mean = states.mean(dim=0)
        rows.append((mean / mean.norm()).numpy())
    return np.stack(rows).astype(np.float32)


def runtimes(encoder: TextEncoder) -> dict[str, Callable[[], None]]:
    """What each runtime does to the encoder's model, in the order in which they are tried."""
    import torch

    eager = encoder._model
    quantize: Any = torch.ao.quantization.quantize_dynamic

    def int8() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated for torchao, which is not installed here
            encoder._model = quantize(eager, {torch.nn.Linear}, dtype=torch.qint8)

    def compiled() -> None:
        encoder._model = torch.compile(eager, dynamic=True)

    return {"torch eager": lambda: None, "torch int8 dynamic": int8, "torch.compile": compiled}


def measure(folder: Path) -> dict[str, Any]:
    """Parity, and a row for each runtime; a runtime that does not start says why."""
    sentences = texts()
    every = [*sentences, *ODD]
    encoder = TextEncoder(TextConfig(), folder, threads=1)
    plain = reference(folder, every)
    rows: dict[str, Any] = {}
    for name, prepare in runtimes(encoder).items():
        try:
            started = time.process_time()
            prepare()
            found = encoder.embed(every)
            first = time.process_time() - started
            spent = []
            for _ in range(ROUNDS):
                started = time.process_time()
                encoder.embed(sentences)
                spent.append((time.process_time() - started) / len(sentences))
        except Exception as error:  # a runtime that this machine lacks is a row of the table, not the end of it
            rows[name] = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"}
            continue
        rows[name] = {
            "ms_a_sentence": round(min(spent) * 1000, 2),
            "cpu_seconds_to_start": round(first, 2),
            "largest_difference": float(f"{np.abs(found - plain).max():.3g}"),
            "least_cosine": round(float((found * plain).sum(axis=1).min()), 5),
            "same_nearest": round(float((_nearest(found) == _nearest(plain)).mean()), 4),
        }
        print(name, rows[name], flush=True)
    return {
        "sentences": len(sentences),
        "mean_characters": round(float(np.mean([len(t) for t in sentences]))),
        "runtimes": rows,
    }


def _nearest(vectors: Float32) -> Any:
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -2.0)
    return likeness.argmax(axis=1)


def main() -> int:
    """Measure, write the results, print a line for each runtime."""
    document = measure(load_settings().cache)
    print(document)
    print(results.write("text", document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
