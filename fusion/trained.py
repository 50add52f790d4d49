"""A trained fusion: one safetensors object that fuses as `fusion.attention` does, and proves itself before it serves.

The object holds the weights, the network's configuration, and *probes*: a few token sets with the vectors that the
network gave for them where it was trained. Reading it back checks the digest of all of that (`model.damaged`) and fuses
the probes (`fusion.bad_checkpoint` when the vectors differ): a checkpoint of another shape, for another version of this
code, or run by a library that computes something else is refused before it is served.

Its `version` is a digest of configuration, weights and probes. Two runs that end in the same weights are one version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from fusion.attention import NO_DIRECTION, Fused, attributes_of, leaning, weighted_sum
from store.errors import InputError, ModelError
from store.records import MODALITIES, Float32, Modality, Tokens

if TYPE_CHECKING:
    from fusion.network import AttentionNetwork, NetworkConfig

FORMAT = 1
ENTRY = "reelsense"
PROBES = 4
PROBE_TOLERANCE = 1e-4
# Videos of like token counts share a batch, of at most so many tokens: padding is computed too.
BATCH_TOKENS = 4096

Arrays = dict[str, npt.NDArray[Any]]


class TrainedFusion:
    """Fuses by a trained network. The same tokens give the same bytes, one video at a time."""

    def __init__(self, network: AttentionNetwork, probes: Arrays) -> None:
        """Use `of` or `from_bytes`: a network by itself has no probes."""
        self._network = network.eval().requires_grad_(False)
        self._probes = probes
        self.config: NetworkConfig = network.config
        self.version = self._digest()[:16]

    # --- as bytes ---------------------------------------------------------------------------------------------------

    @classmethod
    def of(cls, network: AttentionNetwork) -> TrainedFusion:
        """A network with the vectors that it gives for its probes. Raises `fusion.bad_checkpoint` for weights that are
        not finite."""
        bare = cls(network, {})
        bare._check_finite()
        probes: Arrays = {}
        for number, tokens in enumerate(_probe_tokens(network.config)):
            for name, part in tokens.items():
                for array in _ARRAYS:
                    probes[f"{number}.{network.config.modalities.index(name)}.{array}"] = getattr(part, array)
            probes[f"{number}.vector"] = bare.fuse_any(tokens)[0]
        return cls(network, probes)

    def to_bytes(self) -> bytes:
        """The object: same fusion, same bytes."""
        from safetensors.numpy import save

        facts = {"format": FORMAT, "network": self.config.model_dump(mode="json"), "digest": self._digest()}
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        result: bytes = save(dict(sorted(self._arrays().items())), metadata={ENTRY: text})
        return result

    @classmethod
    def from_bytes(cls, data: bytes, version: str = "") -> TrainedFusion:
        """Read back what `to_bytes` wrote. Raises `model.damaged` for bytes that are not whole (or not of `version`,
        where one is given) and `fusion.bad_checkpoint` for a network that does not give what its probes say."""
        facts, arrays = _read(data)
        fusion = cls._built(facts, arrays)
        if fusion._digest() != facts["digest"] or (version and fusion.version != version):
            raise _damaged("its content does not have the digest that it states")
        fusion._check_finite()
        fusion.check_probes()
        return fusion

    @classmethod
    def _built(cls, facts: Mapping[str, Any], arrays: Arrays) -> TrainedFusion:
        import torch

        from fusion.network import AttentionNetwork, NetworkConfig

        try:
            network = AttentionNetwork(NetworkConfig.model_validate(facts["network"]))
            weights = {
                name.removeprefix("network."): torch.from_numpy(array.copy())
                for name, array in arrays.items()
                if name.startswith("network.")
            }
            network.load_state_dict(weights)
        except (ValidationError, RuntimeError, ValueError) as error:
            raise _bad(f"its shape is not that of this version's network ({type(error).__name__})") from error
        probes = {name.removeprefix("probes."): array for name, array in arrays.items() if name.startswith("probes.")}
        return cls(network, probes)

    def check_probes(self) -> None:
        """Fuse the stored probes. Raises `fusion.bad_checkpoint` where a vector is not the stored one."""
        vectors = {name: array for name, array in self._probes.items() if name.endswith(".vector")}
        if not vectors:
            raise _bad("it holds no probes")
        for name, expected in vectors.items():
            number = name.removesuffix(".vector")
            try:
                tokens = {
                    modality: Tokens(*(self._probes[f"{number}.{place}.{array}"] for array in _ARRAYS))
                    for place, modality in enumerate(self.config.modalities)
                    if f"{number}.{place}.embeddings" in self._probes
                }
                found = self.fuse_any(tokens)[0]
            except (ValueError, KeyError, InputError) as error:
                raise _bad(f"its probe {number} cannot be fused ({type(error).__name__})") from error
            if found.shape != expected.shape or not np.abs(found - expected).max() < PROBE_TOLERANCE:
                raise _bad(f"it does not give the stored vector for its probe {number}")

    def _arrays(self) -> Arrays:
        weights = {f"network.{name}": tensor.numpy() for name, tensor in self._network.state_dict().items()}
        return weights | {f"probes.{name}": array for name, array in self._probes.items()}

    def _digest(self) -> str:
        found = hashlib.sha256(json.dumps([FORMAT, self.config.model_dump(mode="json")], sort_keys=True).encode())
        for name, array in sorted(self._arrays().items()):
            found.update(f"{name}/{array.dtype}/{array.shape}/".encode())
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()

    def _check_finite(self) -> None:
        if not all(np.isfinite(array).all() for array in self._arrays().values()):
            raise _bad("its weights hold NaN or infinity")

    # --- fusing -----------------------------------------------------------------------------------------------------

    def fuse(self, tokens: Mapping[Modality, Tokens], sources: Mapping[Modality, Sequence[str]]) -> Fused:
        """Fuse a video's tokens, with the arguments, the record and the errors of `fusion.attention.fuse`.

        Of a modality with more tokens than `config.token_limit`, the most salient are attended to, among equals evenly
        spread over the video; the others have weight 0 and a token vector of zeros. Tokens of another width than those
        trained on raise `fusion.bad_checkpoint`.
        """
        return self.fuse_many([(tokens, sources)])[0]

    def fuse_many(
        self, videos: Sequence[tuple[Mapping[Modality, Tokens], Mapping[Modality, Sequence[str]]]]
    ) -> list[Fused]:
        """Fuse several videos in padded batches. A vector differs by less than 1e-5 from that of `fuse`. One video with
        an error is an error of the call."""
        given = []
        for tokens, sources in videos:
            present = [modality for modality in MODALITIES if modality in tokens and len(tokens[modality])]
            for modality in present:
                if len(sources.get(modality, ())) != len(tokens[modality]):
                    raise ValueError(
                        f"{modality}: {len(tokens[modality])} tokens, {len(sources.get(modality, ()))} sources"
                    )
            given.append(present)
        found = self.attend([cast("Mapping[str, Tokens]", tokens) for tokens, _ in videos])
        results = []
        for (tokens, sources), present, (weights, vectors) in zip(videos, given, found, strict=True):
            ordered = [(weights[modality], vectors[modality]) for modality in present]
            all_weights = np.concatenate([part for part, _ in ordered])
            all_vectors = np.concatenate([part for _, part in ordered])
            vector, all_weights = _vector(all_weights, all_vectors)
            results.append(
                Fused(vector, all_weights, all_vectors, attributes_of(tokens, sources, present, all_weights))
            )
        return results

    def fuse_any(self, tokens: Mapping[str, Tokens]) -> tuple[Float32, dict[str, Float32]]:
        """Vector, and weights by modality, for modalities of any name."""
        weights, vectors = self.attend([tokens])[0]
        names = sorted(weights)
        vector, flat = _vector(
            np.concatenate([weights[name] for name in names]), np.concatenate([vectors[name] for name in names])
        )
        ends = np.cumsum([len(weights[name]) for name in names])[:-1]
        return vector, dict(zip(names, np.split(flat, ends), strict=True))

    def vectors(self, videos: Sequence[Mapping[str, Tokens]]) -> Float32:
        """float32 [n, dim]: the vectors alone, for modalities of any name."""
        found = []
        for weights, vectors in self.attend(videos):
            names = sorted(weights)
            joined = (
                np.concatenate([weights[name] for name in names]),
                np.concatenate([vectors[name] for name in names]),
            )
            found.append(_vector(*joined)[0])
        return np.stack(found) if found else np.zeros((0, self.config.dim), np.float32)

    def attend(self, videos: Sequence[Mapping[str, Tokens]]) -> list[tuple[dict[str, Float32], dict[str, Float32]]]:
        """For each video, by modality: the weights [n] and the token vectors [n, dim] of its tokens.

        Raises `fusion.not_finite`, `fusion.bad_checkpoint` and `fusion.no_tokens`.
        """
        from fusion.batches import check_tokens, kept_places

        limit = self.config.token_limit
        kept: list[dict[str, npt.NDArray[np.intp]]] = []
        for tokens in videos:
            check_tokens(tokens, self.config)
            kept.append(
                {
                    name: kept_places(part.salience * part.embeddings.any(axis=1), limit)
                    for name, part in sorted(tokens.items())
                    if len(part)
                }
            )
        results: list[tuple[dict[str, Float32], dict[str, Float32]]] = [({}, {}) for _ in videos]
        for batch in _batches([sum(map(len, places.values())) for places in kept]):
            for index, found in zip(batch, self._run([(videos[index], kept[index]) for index in batch]), strict=True):
                results[index] = found
        return results

    def _run(
        self, videos: Sequence[tuple[Mapping[str, Tokens], Mapping[str, npt.NDArray[np.intp]]]]
    ) -> list[tuple[dict[str, Float32], dict[str, Float32]]]:
        import torch

        from fusion.batches import batch_of, duration_of

        parts = [{name: _taken(tokens[name], places) for name, places in kept.items()} for tokens, kept in videos]
        with torch.inference_mode():
            batch = batch_of(parts, self.config, [duration_of(tokens) for tokens, _ in videos])
            projected = self._network.project(batch)
            weights = self._network.weights(projected).numpy()
            values = projected.values.numpy()
        results = []
        for row, (tokens, kept) in enumerate(videos):
            own_weights: dict[str, Float32] = {}
            own_vectors: dict[str, Float32] = {}
            for name, span in zip(self.config.modalities, projected.spans, strict=True):
                if name not in kept:
                    continue
                count, places = len(tokens[name]), kept[name]
                inside = slice(span.start, span.start + len(places))
                own_weights[name] = np.zeros(count, np.float32)
                own_weights[name][places] = weights[row, inside]
                own_vectors[name] = np.zeros((count, self.config.dim), np.float32)
                own_vectors[name][places] = values[row, inside]
            if not any(part.any() for part in own_weights.values()):
                raise InputError(
                    "fusion.no_tokens",
                    "The video shows nothing, says nothing and sounds like nothing: there is not one token to fuse.",
                )
            results.append((own_weights, own_vectors))
        return results


_ARRAYS = ("embeddings", "start_seconds", "end_seconds", "salience")


def _vector(weights: Float32, vectors: Float32) -> tuple[Float32, Float32]:
    """The vector of unit length, and the weights that made it."""
    total = weighted_sum(weights, vectors)
    if np.linalg.norm(total) < NO_DIRECTION:
        weights = leaning(weights, vectors)
        total = weighted_sum(weights, vectors)
    return (total / np.linalg.norm(total)).astype(np.float32), weights


def _batches(counts: Sequence[int]) -> list[list[int]]:
    """Places of the videos, those of like token counts together."""
    found: list[list[int]] = []
    batch: list[int] = []
    for index in sorted(range(len(counts)), key=lambda place: (counts[place], place)):
        if batch and (len(batch) + 1) * counts[index] > BATCH_TOKENS:
            found.append(batch)
            batch = []
        batch.append(index)
    return [*found, batch] if batch else found


def _taken(tokens: Tokens, places: npt.NDArray[np.intp]) -> Tokens:
    if len(places) == len(tokens):
        return tokens
    return Tokens(*(getattr(tokens, name)[places] for name in _ARRAYS))


def _probe_tokens(config: NetworkConfig) -> list[dict[str, Tokens]]:
    """Token sets that reach every part of the network: all modalities, then one missing, then each by itself."""
    names = config.modalities
    sets = [names, names[1:] or names, names[:1], names[-1:]][:PROBES]
    found = []
    for number, present in enumerate(sets):
        tokens = {}
        for name in present:
            stream = np.random.Generator(np.random.PCG64([number, names.index(name)]))
            count = 2 + (number + names.index(name)) % 3
            start = np.sort(stream.random(count) * 30).astype(np.float32)
            tokens[name] = Tokens(
                stream.standard_normal((count, config.widths[name])).astype(np.float32),
                start,
                (start + np.float32(0.5)).astype(np.float32),
                (0.1 + 0.9 * stream.random(count)).astype(np.float32),
            )
        found.append(tokens)
    return found


def _read(data: bytes) -> tuple[dict[str, Any], Arrays]:
    from safetensors.numpy import load

    try:
        length = int.from_bytes(data[:8], "little")
        facts = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][ENTRY])
        if facts["format"] != FORMAT:
            raise _bad(f"its format is {facts['format']!r}, not {FORMAT}")
        facts["digest"], facts["network"]
        return facts, load(data)
    except ModelError:
        raise
    except Exception as error:
        raise _damaged(f"it cannot be read ({type(error).__name__})") from error


def _damaged(why: str) -> ModelError:
    return ModelError(
        "model.damaged", f"The trained fusion is not whole: {why}.", hint="Serve another version, or train again."
    )


def _bad(why: str) -> ModelError:
    return ModelError(
        "fusion.bad_checkpoint",
        f"The trained fusion is not served: {why}.",
        hint="Serve another version, or train again.",
    )
