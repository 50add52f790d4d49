"""Real answers of the API, for its description: `python -m bench.api_examples --data DIR` writes `app/examples.json`.

DIR is an installation that has processed some videos; some events of a made-up viewer are added to it, so take a copy.
Lists are cut after two items. Names of machines and paths are replaced: the file says nothing of where it was made.
"""

from __future__ import annotations

import argparse
import json
import socket
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from app.api import create_api
from app.documentation import EXAMPLES
from store.settings import load_settings

MOST_ITEMS = 2
MOST_CHARACTERS = 160
HIDDEN = ("path", "pid", "host", "worker")
VIEWER = "ana"


def main() -> None:
    """Ask, and write down what was answered."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--video", required=True, help="The title of the video that the examples show.")
    arguments = parser.parse_args()
    with TestClient(create_api(load_settings(data=arguments.data)), base_url="http://127.0.0.1") as client:
        found = examples(client, arguments.video)
    EXAMPLES.write_text(json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    print(f"{len(found)} examples in {EXAMPLES.name}, {EXAMPLES.stat().st_size} bytes")


def examples(client: TestClient, title: str) -> dict[str, Any]:
    """By method and path: the parameters, the request and the answer."""
    videos = client.get("/api/v1/videos").json()["videos"]
    video = next(row["id"] for row in videos if row["title"] == title)
    others = [row["id"] for row in videos if row["id"] != video]
    found: dict[str, Any] = {}

    def ask(method: str, path: str, body: Any = None, /, **parameters: Any) -> None:
        inside = {name: value for name, value in parameters.items() if "{" + name + "}" in path}
        beside = {name: value for name, value in parameters.items() if name not in inside}
        answer = client.request(method, path.format(**inside), params=beside, json=body)
        assert answer.is_success, (path, answer.text)
        found[f"{method} {path}"] = {"response": trimmed(answer.json())} | (
            {"parameters": parameters} if parameters else {}
        ) | ({"request": body} if body is not None else {})  # fmt: skip

    act = {"user": VIEWER, "video": video, "kind": "view", "watched_seconds": 6.5, "device": "phone", "region": "DE"}
    ask("POST", "/api/v1/events", act)
    ask("POST", "/api/v1/events/batch", [act | {"kind": "like", "watched_seconds": None}, act | {"video": others[0]}])
    ask("POST", "/api/v1/viewers/{user}/picks", {"pick": ["dog"]}, user=VIEWER)
    ask("GET", "/api/v1/videos", limit=2)
    ask("GET", "/api/v1/videos/{video}", video=video)
    ask("GET", "/api/v1/videos/{video}/similar", video=video, k=2)
    ask("GET", "/api/v1/videos/{video}/timeline", video=video)
    ask("GET", "/api/v1/search", q="a dog on a path", k=2)
    ask("GET", "/api/v1/duplicates", threshold=0.3)
    ask("GET", "/api/v1/viewers/{user}/recommend", user=VIEWER, k=2)
    ask("GET", "/api/v1/viewers/{user}/feed", user=VIEWER, k=2)
    ask("GET", "/api/v1/viewers/{user}/profile", user=VIEWER)
    ask("GET", "/api/v1/uploads")
    for path in ("queues", "workers", "dead", "dead/reasons", "jobs", "training", "models", "rankers", "audit"):
        ask("GET", f"/api/v1/{path}")
    ask("GET", "/api/v1/queues/{name}", name="vision")
    ask("GET", "/api/v1/events/set-aside")
    ask("POST", "/api/v1/queues/{name}/pause", {"reason": "the disk is being replaced"}, name="audio")
    ask("POST", "/api/v1/queues/{name}/resume", name="audio")
    ask("POST", "/api/v1/videos/{video}/prioritise", video=video)
    ask("POST", "/api/v1/videos/{video}/quarantine", {"reason": "a complaint"}, video=others[0])
    ask("POST", "/api/v1/videos/{video}/release", video=others[0])
    ask("GET", "/health/live")
    ask("DELETE", "/api/v1/videos/{video}", video=others[0])
    ask("DELETE", "/api/v1/viewers/{user}", user=VIEWER)
    return found


def trimmed(value: Any, name: str = "") -> Any:
    """A value cut to what fits a page, without names of machines."""
    if name in HIDDEN and value is not None:
        return {"pid": 4242, "host": "worker-1", "worker": "worker-1/4242"}.get(name, f"{name}")
    if isinstance(value, dict):
        return {key: trimmed(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [trimmed(item) for item in value[:MOST_ITEMS]]
    if isinstance(value, str):
        text = value.replace(socket.gethostname(), "worker-1")
        return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + "…"
    return round(value, 6) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
