"""Settings that differ from those of the installation: what an encoding is made of (`store.jobs`).

Only settings that change what stages make can be overridden: others belong to a machine or a process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from store.errors import SettingsError
from store.settings import EncoderChoice, Settings

PLAIN = ("model_set", "speech_runtime", "music", "precision", "frame_strategy", "frames", "caption_languages")


def overridden(settings: Settings, overrides: Mapping[str, Any]) -> Settings:
    """The settings with some exchanged: names as in `reelsense settings`, and `options.ENCODER.OPTION`; values as they
    are, or as text. Raises `settings.invalid`."""
    if not overrides:
        return settings
    plain: dict[str, Any] = {}
    encoders: dict[str, Any] = {}
    options = {name: dict(held) for name, held in settings.options.items()}
    for name, value in overrides.items():
        group, _, rest = name.partition(".")
        encoder, _, option = rest.rpartition(".")
        if name in PLAIN:
            plain[name] = _checked(name, value)
        elif group == "encoders" and rest in EncoderChoice.model_fields:
            encoders[rest] = str(value)
        elif group == "options" and encoder and option:
            options.setdefault(encoder, {})[option] = value
        else:
            known = [*PLAIN, "encoders.PLACE", "options.ENCODER.OPTION"]
            raise SettingsError(
                "settings.invalid",
                f"The setting {name!r} is not one that changes what is made of a video.",
                hint=f"These are: {', '.join(known)}.",
            )
    return settings.model_copy(
        update={**plain, "encoders": settings.encoders.model_copy(update=encoders), "options": options}
    )


def parsed(assignments: list[str]) -> dict[str, Any]:
    """`NAME=VALUE` lines as overrides; options are read as JSON where they are JSON. Raises `settings.invalid`."""
    found: dict[str, Any] = {}
    for line in assignments:
        name, sign, text = line.partition("=")
        if not sign or not name.strip():
            raise SettingsError("settings.invalid", f"{line[:100]!r} is not NAME=VALUE.", hint="Such as frames=12.")
        value: Any = text.strip()
        if name.startswith("options."):
            try:
                value = json.loads(text)
            except ValueError:
                value = text.strip()
        elif name.strip() in PLAIN:
            value = _checked(name.strip(), value)
        found[name.strip()] = value
    return found


def _checked(name: str, value: Any) -> Any:
    field = Settings.model_fields[name]
    # Text such as the model set has no bounds of its own, and `Annotated` takes no empty list of them.
    kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise SettingsError(
            "settings.invalid",
            f"The setting {name} is not valid: {error.errors()[0]['msg']}.",
            hint="`reelsense settings` lists every setting; see docs/settings.md.",
        ) from None
