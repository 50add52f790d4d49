"""Every command takes `--json`, and then stdout is one JSON document and nothing else, whatever goes wrong."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer
from typer.testing import CliRunner

from app import cli
from store.errors import CODES

# Runs until it is stopped; `test_stack.py` reads its document.
ENDLESS = {"up"}
NUMBERS, PATHS = {"least", "most"}, {"file", "folder", "paths"}


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with the words that call it."""
    groups = getattr(command, "commands", {})
    if not groups or command.invoke_without_command:
        yield path, command
    for name, inner in groups.items():
        yield from commands(inner, (*path, name))


def all_commands() -> dict[str, Any]:
    if "incoming" not in {group.name for group in cli.app.registered_groups}:
        cli._add_groups()
    return {" ".join(path): command for path, command in commands(typer.main.get_command(cli.app))}


ALL = all_commands()


def words(command: Any, folder: Path) -> list[str]:
    """Something for every argument and option that must be given: of no video, worker or job that there is."""
    given: list[str] = []
    for parameter in command.params:
        if parameter.required:
            name = parameter.name
            value = "1" if name in NUMBERS else str(folder / "nothing") if name in PATHS else "ffff"
            # Blank words are refused before a model is loaded to look for them.
            value = " " if name == "text" else value
            annotation = parameter.type_descriptor.annotation
            if isinstance(annotation, type) and issubclass(annotation, Enum):
                value = next(iter(annotation)).value
            given += [parameter.opts[0], value] if parameter.opts[0].startswith("-") else [value]
    return given


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A command that logs, logs to the stderr that it is given here, which is closed afterwards."""
    root = logging.getLogger()
    handlers, level, settings = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**settings)


def test_there_are_as_many_commands_as_the_help_lists() -> None:
    assert len(ALL) > 60
    assert {"show", "quality", "train ranker", "queue ls", "incoming ls", "events import"} <= set(ALL)


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_command_takes_json_and_says_what_it_does(name: str) -> None:
    command = ALL[name]
    assert "--json" in [option for parameter in command.params for option in parameter.opts]
    assert (command.help or command.get_short_help_str()).strip().endswith((".", ")"))


@pytest.mark.parametrize("name", sorted(set(ALL) - ENDLESS))
def test_a_command_answers_with_one_document(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ALL[name]
    monkeypatch.setenv("REELSENSE_DATA", str(tmp_path / "data"))
    arguments = [*name.split(), *words(command, tmp_path), "--json"]
    answer = CliRunner().invoke(cli.app, arguments)
    assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.exception
    assert answer.exit_code in (0, 1), answer.output
    document = json.loads(answer.stdout)
    if "error" in document:
        assert answer.exit_code == 1
        assert document["error"]["code"] in CODES
