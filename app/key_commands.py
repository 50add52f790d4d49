"""`reelsense key`: make, list and revoke the keys of the HTTP API."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from store.settings import load_settings

key = typer.Typer(help="Keys of the HTTP API.", no_args_is_help=True)

Data = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Directory of this installation.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on stdout.")]


@key.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[list[str], typer.Option("--scope", help="upload, read, recommend or admin; can be given again.")],
    expires: Annotated[
        float | None, typer.Option("--expires", metavar="DAYS", help="Days it lives. Default: for ever.")
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it, once: it is stored as a hash. From the first key on, every request needs one."""
    from app.cli import print_json, reported

    with reported(as_json):
        made, secret = _keys(data).create(name, scope, expires)
        if as_json:
            print_json({"key": made.model_dump(mode="json"), "secret": secret})
        else:
            sys.stdout.write(secret + "\n")
            sys.stderr.write(f"key {made.id} ({made.name}): {', '.join(made.scopes)}. It is not shown again.\n")


@key.command("ls")
def listed(data: Data = None, as_json: Json = False) -> None:
    """All keys, without their secrets."""
    from app.cli import print_json, reported

    with reported(as_json):
        found = _keys(data).all()
    if as_json:
        print_json({"keys": [item.model_dump(mode="json") for item in found]})
    else:
        from app.tables import show_keys

        show_keys(found)


@key.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, see `ls`.")],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """From now on the key opens nothing."""
    from app.cli import print_json, reported

    with reported(as_json):
        gone = _keys(data).revoke(key_id)
        print_json({"key": gone.model_dump(mode="json")}) if as_json else sys.stdout.write(f"revoked {gone.id}\n")


def _keys(data: Path | None) -> Any:
    from store.api_keys import ApiKeys
    from store.catalogue import Catalogue

    return ApiKeys(Catalogue(load_settings(data=data).database_url()))
