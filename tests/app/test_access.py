"""Who may ask what: keys and scopes on every route, hosts, origins, headers of answers, the command for keys."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from starlette.testclient import TestClient
from typer.testing import CliRunner

from app.access import check_bind
from app.api import create_api
from app.cli import app
from store.api_keys import ApiKeys
from store.catalogue import Catalogue
from store.errors import SettingsError
from store.settings import load_settings
from tests.app.commands import environment, reelsense
from tests.app.serving import TUS, UPLOADS, creation, piece, serving
from tests.conftest import ROOT

# One request of each scope, and what it answers when it may be made.
REQUESTS: list[tuple[str, str, str, dict[str, str], int]] = [
    ("upload", "POST", UPLOADS, creation(10), 201),
    ("upload", "OPTIONS", UPLOADS, {}, 204),
    ("upload", "GET", UPLOADS, {}, 200),
    ("upload", "POST", "/api/v1/videos", {"Content-Type": "x/y"}, 400),
    ("read", "GET", "/api/v1/videos", {}, 200),
    ("read", "GET", "/api/v1/videos/ffffffff", {}, 404),
    ("read", "GET", "/api/openapi.json", {}, 200),
    ("read", "GET", "/api/docs", {}, 200),
    ("read", "GET", "/metrics", {}, 200),
    ("recommend", "GET", "/api/v1/viewers/ana/feed", {}, 200),
    ("recommend", "GET", "/api/v1/viewers/ana/profile", {}, 404),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def keys(data: Path) -> ApiKeys:
    return ApiKeys(Catalogue(load_settings(data=data).database_url()))


@pytest.fixture
def client(data: Path) -> Iterator[TestClient]:
    with TestClient(create_api(load_settings(data=data)), base_url="http://127.0.0.1") as client:
        yield client


def code(answer: Any) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["code"])


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_without_keys_loopback_is_open(client: TestClient) -> None:
    for _, method, path, headers, status in REQUESTS:
        assert client.request(method, path, headers=headers).status_code == status, path


def test_every_route_asks_for_its_scope(client: TestClient, keys: ApiKeys) -> None:
    secrets = {scope: keys.create(scope, [scope])[1] for scope in ("upload", "read", "recommend", "admin")}
    for scope, method, path, headers, status in REQUESTS:
        answer = client.request(method, path, headers=headers)
        assert (answer.status_code, code(answer)) == (401, "access.key_missing"), path
        assert answer.headers["www-authenticate"].startswith("Bearer")
        for have, secret in secrets.items():
            answer = client.request(method, path, headers=headers | bearer(secret))
            if have in (scope, "admin"):
                assert answer.status_code == status, (path, have, answer.text)
            else:
                assert (answer.status_code, code(answer)) == (403, "access.scope_missing"), (path, have)
    assert client.get("/health/live").status_code == 200


def test_no_route_is_without_a_check(data: Path) -> None:
    routes = list(iter_route_contexts(create_api(load_settings(data=data)).routes))
    assert len(routes) >= 15
    unchecked = {route.path for route in routes if not _scopes(route.dependant)}
    # An object store sends a secret of its own with its notifications; the operations' page asks in its functions.
    unchecked = {path for path in unchecked if not path.startswith("/operations")}
    assert unchecked == {
        "/health/live", "/health/ready", "/health/workers", "/api/v1/notifications/s3",
        "/key", "/key/leave", "/assets/{name}",
    }  # fmt: skip


def _scopes(dependant: Any) -> set[str]:
    """Which scopes the dependencies of a route ask for."""
    own = getattr(dependant.call, "__dict__", {}).get("scope")
    return ({own} if own else set()).union(*(_scopes(inner) for inner in dependant.dependencies))


def test_wrong_keys(client: TestClient, keys: ApiKeys) -> None:
    key, secret = keys.create("good", ["read"])
    other, other_secret = keys.create("other", ["read"])
    late, late_secret = keys.create("late", ["read"], expires_days=1e-9)
    gone, gone_secret = keys.create("gone", ["admin"])
    keys.revoke(gone.id)
    time.sleep(0.01)
    mixed = f"rsk_{key.id}_{other_secret[-43:]}"
    for header, expected in (
        (f"Bearer {secret}", None),
        (f"bearer {secret}", None),
        (secret, "access.key_invalid"),
        (f"Basic {secret}", "access.key_invalid"),
        ("Bearer", "access.key_invalid"),
        (f"Bearer {secret}x", "access.key_invalid"),
        (f"Bearer {secret[:-1]}", "access.key_invalid"),
        (f"Bearer {mixed}", "access.key_invalid"),
        (f"Bearer rsk_000000000000_{'A' * 43}", "access.key_invalid"),
        (f"Bearer rsk_%%%%%%%%%%%%_{'A' * 43}", "access.key_invalid"),
        (f"Bearer {gone_secret}", "access.key_invalid"),
        (f"Bearer {late_secret}", "access.key_expired"),
    ):
        answer = client.get("/api/v1/videos", headers={"Authorization": header})
        if expected is None:
            assert answer.status_code == 200, header
        else:
            assert (answer.status_code, code(answer)) == (401, expected), header
            assert secret not in answer.text
    used = {item.id: item.last_used_at for item in keys.all()}
    assert used[key.id] is not None
    assert used[other.id] is used[gone.id] is used[late.id] is None


def test_revoking_the_last_key_does_not_open_the_api(client: TestClient, keys: ApiKeys) -> None:
    key, secret = keys.create("only", ["read"])
    assert client.get("/api/v1/videos", headers=bearer(secret)).status_code == 200
    keys.revoke(key.id)
    assert client.get("/api/v1/videos", headers=bearer(secret)).status_code == 401
    assert client.get("/api/v1/videos").status_code == 401


def test_an_upload_is_its_keys_own(client: TestClient, keys: ApiKeys, data: Path) -> None:
    secrets = [keys.create(name, ["upload"])[1] for name in ("ana", "bo")]
    admin = keys.create("root", ["admin"])[1]
    where = client.post(UPLOADS, headers=creation(10) | bearer(secrets[0])).headers["location"]
    for method, headers in (("HEAD", TUS), ("GET", {}), ("PATCH", piece(0)), ("DELETE", TUS)):
        content = b"evil" if method == "PATCH" else b""
        answer = client.request(method, where, headers=headers | bearer(secrets[1]), content=content)
        assert answer.status_code == 404, method
    assert client.put(f"{where}/captions", headers=bearer(secrets[1]), content=b"x").status_code == 404
    assert client.get(UPLOADS, headers=bearer(secrets[1])).json() == {"uploads": []}
    # Without the key not a byte is written either.
    assert client.patch(where, headers=piece(0), content=b"evil").status_code == 401
    assert [file.stat().st_size for file in (data / "uploads").rglob("upload")] == [0]
    assert client.get(where, headers=bearer(admin)).json()["offset"] == 0
    assert client.head(where, headers=TUS | bearer(secrets[0])).headers["upload-offset"] == "0"


def test_a_secret_is_stored_nowhere(client: TestClient, keys: ApiKeys, data: Path) -> None:
    secret = keys.create("x", ["read"])[1]
    client.get("/api/v1/videos", headers=bearer(secret))
    keys.catalogue.close()
    middle = secret[-43:].encode()
    for path in data.rglob("*"):
        assert not path.is_file() or middle not in path.read_bytes(), path


# --- hosts, origins, headers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8787", "localhost", "LOCALHOST:1", "[::1]:8787"])
def test_names_of_this_machine(client: TestClient, host: str) -> None:
    assert client.get("/health/live", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil:80", "10.0.0.1", ""])
def test_rebound_names_are_refused(client: TestClient, host: str) -> None:
    answer = client.get("/api/v1/videos", headers={"Host": host})
    assert (answer.status_code, code(answer)) == (421, "request.host_unknown")


def test_hosts_that_are_named(data: Path) -> None:
    api = create_api(load_settings(data=data, host="10.0.0.5", api_hosts="api.example, 10.0.0.5", trusted_network=True))
    with TestClient(api, base_url="http://api.example") as client:
        assert client.get("/health/live").status_code == 200
        assert client.get("/health/live", headers={"Host": "10.0.0.5:8787"}).status_code == 200
        assert client.get("/health/live", headers={"Host": "127.0.0.1"}).status_code == 421


def test_pages_of_other_sites_change_nothing(client: TestClient) -> None:
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "cross-site"},
    ):
        answer = client.post(UPLOADS, headers=creation(10) | headers)
        assert (answer.status_code, code(answer)) == (403, "request.cross_site"), headers
        assert client.delete(f"{UPLOADS}/{'0' * 32}", headers=TUS | headers).status_code == 403
        override = {"X-HTTP-Method-Override": "DELETE"}
        assert client.get(f"{UPLOADS}", headers=headers | override).status_code == 403
        assert client.get(UPLOADS, headers=headers).json() == {"uploads": []}
    same = {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
    assert client.post(UPLOADS, headers=creation(10) | same).status_code == 201
    assert client.post(UPLOADS, headers=creation(10) | {"Sec-Fetch-Site": "none"}).status_code == 201


def test_headers_of_every_answer(client: TestClient) -> None:
    for path, host in (("/api/v1/videos", "127.0.0.1"), ("/nothing", "127.0.0.1"), ("/health/live", "evil.example")):
        answer = client.get(path, headers={"Host": host})
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "no-referrer"
        # What a browser keeps of the API it asks for again each time; of all else it keeps nothing.
        assert answer.headers["cache-control"] == ("private, no-cache" if path.startswith("/api/") else "no-store")
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers


def test_what_is_not_understood_is_a_problem_too_and_repeats_nothing(client: TestClient) -> None:
    answer = client.post("/api/v1/events", json={"user": "ana", "video": "ffff", "kind": "view", "watched": "s3cret"})
    assert (answer.status_code, code(answer)) == (422, "request.invalid")
    assert "watched" in answer.json()["title"]
    assert "s3cret" not in answer.text
    answer = client.get("/nothing")
    assert (answer.status_code, code(answer)) == (404, "request.unknown_address")
    answer = client.put("/api/v1/events")
    assert (answer.status_code, code(answer), answer.headers["allow"]) == (405, "request.method", "POST")
    answer = client.post("/api/v1/events", content=b"x" * (2**20 + 1))
    assert (answer.status_code, code(answer)) == (413, "request.too_large")


# --- the address to listen on ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example"])
def test_other_addresses_than_loopback_need_keys(tmp_path: Path, host: str) -> None:
    with pytest.raises(SettingsError):
        check_bind(load_settings(data=tmp_path, host=host))
    check_bind(load_settings(data=tmp_path, host=host, trusted_network=True))
    ApiKeys(Catalogue(load_settings(data=tmp_path).database_url())).create("x", ["read"])
    check_bind(load_settings(data=tmp_path, host=host))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_loopback_is_fine(tmp_path: Path, host: str) -> None:
    check_bind(load_settings(data=tmp_path, host=host))


def test_beyond_loopback_nothing_is_open_without_keys(data: Path) -> None:
    """Also when somebody serves the application by other means than `python -m app.api`."""
    with TestClient(create_api(load_settings(data=data, host="0.0.0.0")), base_url="http://10.1.1.1") as client:
        assert client.get("/api/v1/videos").status_code == 401


@pytest.mark.stack
def test_the_process_refuses_to_start_beyond_loopback_without_keys(data: Path, keys: ApiKeys) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app.api"],
        cwd=ROOT,
        env=environment(REELSENSE_DATA=str(data), REELSENSE_HOST="0.0.0.0", REELSENSE_PORT="0"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "settings.invalid" in done.stderr
    assert "Traceback" not in done.stderr
    up = reelsense("up", "--json", "--data", data, REELSENSE_HOST="0.0.0.0")
    assert (up.status, up.json["error"]["code"]) == (1, "settings.invalid")
    secret = keys.create("x", ["read"])[1]
    with serving(data, REELSENSE_HOST="0.0.0.0") as api:
        assert api.ask("GET", "/api/v1/videos")[0] == 401
        assert api.ask("GET", "/api/v1/videos", bearer(secret))[0] == 200
        assert "server" not in api.ask("GET", "/health/live")[1]
    assert secret[-43:] not in (data / "api.log").read_text()


# --- the command -----------------------------------------------------------------------------------------------------


def test_keys_by_the_command_line(data: Path) -> None:
    made = reelsense("key", "create", "phone", "--scope", "upload", "--scope", "read", "--json", "--data", data)
    assert made.status == 0, made.stderr
    key, secret = made.json["key"], made.json["secret"]
    assert secret.startswith(f"rsk_{key['id']}_")
    assert key["scopes"] == ["upload", "read"]
    short = reelsense("key", "create", "short", "--scope", "admin", "--expires", "2", "--data", data)
    assert short.stdout.startswith("rsk_")
    assert short.stdout.strip() not in short.stderr
    listed = json.loads(in_process("ls", "--json", "--data", data)[1])
    assert [item["name"] for item in listed["keys"]] == ["phone", "short"]
    assert abs(listed["keys"][1]["expires_at"] - time.time() - 2 * 86_400) < 300
    revoked = json.loads(in_process("revoke", key["id"], "--json", "--data", data)[1])
    assert revoked["key"]["revoked_at"] is not None
    table = in_process("ls", "--data", data)[1]
    assert "phone" in table
    for text in (json.dumps(listed), json.dumps(revoked), table):
        assert secret[-43:] not in text
        assert "digest" not in text
    for arguments, expected in (
        (("revoke", "ffffffffffff"), "access.key_unknown"),
        (("create", "x", "--scope", "root"), "request.invalid"),
        (("create", "", "--scope", "read"), "request.invalid"),
        (("create", "x", "--scope", "read", "--expires", "-1"), "request.invalid"),
    ):
        status, text = in_process(*arguments, "--json", "--data", data)
        assert (status, json.loads(text)["error"]["code"]) == (1, expected), arguments


def in_process(*arguments: object) -> tuple[int, str]:
    """`reelsense key ...` without a process of its own, which would take seconds."""
    done = CliRunner().invoke(app, ["key", *map(str, arguments)])
    return done.exit_code, done.stdout
