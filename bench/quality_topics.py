"""Whether topics separate what differs: `python -m bench.quality_topics`.

Two catalogues whose right answer is known. *Packages*: each document is the docstrings of one module of an installed
package (real prose by many authors), and a topic should gather the modules of one package. *Planted*: documents drawn
from the model itself, so that the words of each topic are known. *Purity*: with each document given to its largest
topic, the share that belongs to its topic's commonest class. Writes bench/results/topics.json.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import results
from encoders.topics import TopicConfig, TopicModel, train_topics
from store.records import TextPiece

PACKAGES = ("librosa", "sqlalchemy", "celery", "PIL")
MODULES = 30  # of each package, the ones with the longest docstrings
CHARACTERS = 3000  # of each document: about what is said in a video of three minutes
PIECE = 240


def module_documents(packages: Sequence[str] = PACKAGES) -> dict[str, list[TextPiece]]:
    """Documents by `PACKAGE/MODULE`, each the first docstrings of a module."""
    documents: dict[str, list[TextPiece]] = {}
    for package in packages:
        spec = importlib.util.find_spec(package)
        root = Path(next(iter((spec.submodule_search_locations or ()) if spec else ())))
        texts = {
            str(path.relative_to(root)): _docstrings(path)
            for path in sorted(root.rglob("*.py"))
            if "test" not in path.name
        }
        longest = sorted(texts, key=lambda name: (-len(texts[name]), name))[:MODULES]
        for name in longest:
            text = texts[name][:CHARACTERS]
            documents[f"{package}/{name}"] = [
                TextPiece(source="transcript", text=text[start : start + PIECE]) for start in range(0, len(text), PIECE)
            ]
    return documents


def planted_documents(
    topics: int, documents: int, words: int, seed: int, *, own: float = 0.8
) -> tuple[dict[str, list[TextPiece]], dict[str, int]]:
    """Documents of `words` words each, and the topic of each: a share `own` of the words comes from the 30 of its
    topic, the rest from 30 that all have in common."""
    rng = np.random.default_rng(seed)
    names = [f"v{number:04d}" for number in range(documents)]
    truth = {name: number % topics for number, name in enumerate(names)}
    made = {}
    for name in names:
        of_topic = rng.random(words) < own
        numbers = np.minimum(rng.geometric(0.1, words), 30)
        text = " ".join(
            planted_word(truth[name] if mine else topics, int(number))
            for mine, number in zip(of_topic, numbers, strict=True)
        )
        made[name] = [TextPiece(source="transcript", text=text)]
    return made, truth


def planted_word(topic: int, number: int) -> str:
    """A made-up word that tells which topic it is of."""
    return f"{'abcdefghij'[topic]}{'lmnopqrstu'[number // 10]}{'vwxyzbcdfg'[number % 10]}ora"


def purity(found: Mapping[str, int], truth: Mapping[str, Any]) -> float:
    """Share of the documents that belong to the commonest class of the topic they were given to, 0..1."""
    classes: dict[int, Counter[Any]] = {}
    for name, topic in found.items():
        classes.setdefault(topic, Counter())[truth[name]] += 1
    return sum(max(counts.values()) for counts in classes.values()) / len(found)


def largest_topics(model: TopicModel, documents: Mapping[str, Sequence[TextPiece]]) -> dict[str, int]:
    """The number of the largest topic of each document that has any."""
    inferred = {name: model.infer(pieces).topics for name, pieces in documents.items()}
    return {name: topics[0].number for name, topics in inferred.items() if topics}


def measure() -> dict[str, Any]:
    """Purities, on the documents that a model was made from and on new ones, with the words of the topics."""
    documents = module_documents()
    truth = {name: name.partition("/")[0] for name in documents}
    held = {name: pieces for place, (name, pieces) in enumerate(documents.items()) if place % 5 == 4}
    seen = {name: pieces for name, pieces in documents.items() if name not in held}
    started = time.process_time()
    model = train_topics(seen, TopicConfig(topics=len(PACKAGES)))
    spent = time.process_time() - started
    auto = train_topics(seen, TopicConfig())
    made, planted = planted_documents(5, 100, 60, seed=1)
    recovered = train_topics(made, TopicConfig(topics=5))
    return {
        "packages": {
            "documents": len(seen),
            "words": len(model.vocabulary),
            "purity": round(purity(largest_topics(model, seen), truth), 4),
            "new_documents": len(held),
            "purity_of_new": round(purity(largest_topics(model, held), truth), 4),
            "topics": [list(words) for words in model.words],
            "training_cpu_seconds": round(spent, 2),
            "automatic_topics": len(auto.components),
            "automatic_purity": round(purity(largest_topics(auto, seen), truth), 4),
        },
        "planted": {
            "documents": len(made),
            "purity": round(purity(largest_topics(recovered, made), planted), 4),
        },
    }


def _docstrings(path: Path) -> str:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return ""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    found = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
    return "\n".join(text for text in found if text)


def main() -> int:
    """Measure, write the results, print them."""
    document = measure()
    print(document["packages"], document["planted"])
    print(results.write("topics", document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
