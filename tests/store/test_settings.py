"""Settings: precedence, origins, refusals, secrets, and that every one is documented."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from store.errors import CODES, SettingsError
from store.settings import Limits, Settings, load_settings, origins
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("REELSENSE_")]:
        monkeypatch.delenv(name)


def origin_of(name: str, settings: Settings, **flags: object) -> str:
    return {row[0]: row[2] for row in origins(settings, **flags)}[name]


def test_flag_beats_variable_beats_file_beats_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(data=tmp_path).threads == 1
    (tmp_path / "reelsense.toml").write_text("threads = 2\n[limits]\nbytes = 1000\n")
    loaded = load_settings(data=tmp_path)
    assert (loaded.threads, loaded.limits.bytes, loaded.limits.frames) == (2, 1000, Limits().frames)
    assert origin_of("threads", loaded, data=tmp_path) == str(tmp_path / "reelsense.toml")
    assert origin_of("limits.bytes", loaded, data=tmp_path) == str(tmp_path / "reelsense.toml")
    monkeypatch.setenv("REELSENSE_THREADS", "3")
    monkeypatch.setenv("REELSENSE_LIMITS__SECONDS", "5")
    loaded = load_settings(data=tmp_path)
    assert (loaded.threads, loaded.limits.seconds, loaded.limits.bytes) == (3, 5.0, 1000)
    assert origin_of("threads", loaded, data=tmp_path) == "REELSENSE_THREADS"
    loaded = load_settings(data=tmp_path, threads=4)
    assert loaded.threads == 4
    assert origin_of("threads", loaded, data=tmp_path, threads=4) == "command line"
    assert origin_of("port", loaded, data=tmp_path) == "default"


def test_the_file_may_lie_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.toml").write_text("workers = 7\n")
    monkeypatch.setenv("REELSENSE_CONFIG", str(tmp_path / "mine.toml"))
    assert load_settings(data=tmp_path / "data").workers == 7


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("REELSENSE_THREADS", "0"),
        ("REELSENSE_THREADS", "many"),
        ("REELSENSE_SPEECH_RUNTIME", "magic"),
        ("REELSENSE_LIMITS__BYTES", "-1"),
        ("REELSENSE_NO_SUCH_THING", "1"),
        ("REELSENSE_LIMITS__NO_SUCH_THING", "1"),
    ],
)
def test_nonsense_is_refused_with_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load_settings(data=tmp_path)
    assert caught.value.code == "settings.invalid"
    name = variable.removeprefix("REELSENSE_").replace("__", ".").lower()
    assert name.split(".")[-1] in caught.value.message.lower()


@pytest.mark.parametrize("content", ["threads = = 1", "no_such = 1", "threads = 'x'", "\x00"])
def test_a_bad_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "reelsense.toml").write_text(content)
    with pytest.raises(SettingsError):
        load_settings(data=tmp_path)


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    loaded = load_settings(
        data=tmp_path,
        s3_secret_key="hidden-word",
        broker="redis://:hidden-word@127.0.0.1/0",
        database="postgresql://me:hidden-word@127.0.0.1/x",
    )
    assert "hidden-word" not in str(origins(loaded))
    assert "hidden-word" not in repr(loaded.s3_secret_key)
    assert "@127.0.0.1" in str(origins(loaded))


def test_a_child_loads_the_same_settings(tmp_path: Path) -> None:
    loaded = load_settings(data=tmp_path, threads=2, s3_secret_key="word", limits={"bytes": 77})
    code = "from store.settings import load_settings as l; s = l();"
    code += "print(s.threads, s.data, s.s3_secret_key.get_secret_value(), s.limits.bytes)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | loaded.environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["2", str(tmp_path), "word", "77"]


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs/settings.md").read_text()
    missing = [name for name, *_ in origins(load_settings(data=ROOT)) if f"`{name}`" not in page]
    assert not missing
    for name, _, _, description in origins(load_settings(data=ROOT)):
        assert description, f"{name} says nothing of itself"


def test_every_error_code_is_documented() -> None:
    page = (ROOT / "docs/errors.md").read_text()
    assert [code for code in CODES if f"`{code}`" not in page] == []
