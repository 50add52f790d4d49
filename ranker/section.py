"""What every section of the ranker's file is: frozen, without fields nobody knows, and strict about numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator


class Section(BaseModel):
    """A section of numbers, words and lists of them; none of its fields is a truth."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _no_truths(cls, given: Any) -> Any:
        """`interest_long = true` would be 1.0 otherwise."""
        values = given.items() if isinstance(given, Mapping) else [("", given)]
        for name, value in values:
            if isinstance(value, bool):
                raise ValueError(f"{f'{str(name)[:40]}: ' if name else ''}true and false are no numbers")
        return given
