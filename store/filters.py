"""The filter language that picks videos of the catalogue, such as `uploaded_at > 2026-01-01 and region = 'DE'`.

    filter     = term { "or" term }
    term       = factor { "and" factor }
    factor     = "not" factor | "(" filter ")" | comparison
    comparison = field ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) value
               | field [ "not" ] "in" "(" value { "," value } ")"
               | field "has" value

A value is a text in single or double quotes (a quote inside is written twice), a number, a date or a date with a time
(`2026-01-31`, `2026-01-31T08:30`, `2026-01-31T08:30:00+02:00`; UTC where nothing is said), `true` or `false`. Keywords
and field names may be written in capitals too. Regions and languages are compared whatever their case; an unknown
duration fulfils no comparison, `!=` included. Texts have no order: databases do not agree on one.

One tree has two readings, `matches` over a record and `to_sql` as an expression of SQLAlchemy in which every value is
a bound parameter; a property test holds them to each other.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NoReturn

import sqlalchemy as sa

from store.catalogue import publications, videos
from store.errors import InputError

MOST_CHARACTERS = 4000
MOST_DEPTH = 50
Value = str | float | bool
Kind = Literal["time", "number", "text", "code", "list", "truth"]
# `code` is a text that is compared whatever its case.
FIELDS: Mapping[str, Kind] = {
    "uploaded_at": "time",
    "duration": "number",
    "region": "code",
    "language": "code",
    "creator": "text",
    "title": "text",
    "tags": "list",
    "published": "truth",
}
_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ALLOWED: Mapping[Kind, tuple[str, ...]] = {
    "time": ("=", "!=", "<", "<=", ">", ">=", "in"),
    "number": ("=", "!=", "<", "<=", ">", ">=", "in"),
    "text": ("=", "!=", "in", "has"),
    "code": ("=", "!=", "in"),
    "list": ("has",),
    "truth": ("=", "!="),
}


@dataclass(frozen=True)
class Compare:
    """`field operator value`; the operator is one of `=  !=  <  <=  >  >=  has`."""

    field: str
    operator: str
    value: Value


@dataclass(frozen=True)
class In:
    """`field in (values)`."""

    field: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Not:
    """`not item`."""

    item: Node


@dataclass(frozen=True)
class Joined:
    """All of the items (`and`), or at least one of them (`or`)."""

    word: Literal["and", "or"]
    items: tuple[Node, ...]


Node = Compare | In | Not | Joined


# --- reading ---------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<date>\d{4}-\d{2}-\d{2}(?:[Tt]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?(?:[Zz]|[+-]\d{2}:?\d{2})?)?)
    | (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    | (?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
    | (?P<word>[A-Za-z_]+)
    | (?P<sign><=|>=|!=|<>|==|[=<>(),])
    )""",
    re.VERBOSE,
)
_SAME_SIGN = {"<>": "!=", "==": "="}


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    place: int


class _Reader:
    """Recursive descent over the tokens of one filter."""

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > MOST_CHARACTERS:
            raise InputError("filter.invalid", f"A filter has at most {MOST_CHARACTERS} characters, got {len(text)}.")
        self.tokens = self._tokens()
        self.next = 0
        self.depth = 0

    def _tokens(self) -> list[_Token]:
        found: list[_Token] = []
        place = 0
        end = len(self.text.rstrip())
        while place < end:
            match = _TOKEN.match(self.text, place)
            if match is None or match.lastgroup is None:
                start = place + len(self.text[place:]) - len(self.text[place:].lstrip())
                quoted = self.text[start] in "'\""
                self.refuse(start, "the quote is not closed" if quoted else f"{self.text[start]!r} has no meaning here")
            found.append(_Token(match.lastgroup, match.group(match.lastgroup), match.start(match.lastgroup)))
            place = match.end()
        return [*found, _Token("end", "", end)]

    def refuse(self, place: int, why: str) -> NoReturn:
        """Say where the filter goes wrong, with a caret below the place."""
        shown = re.sub(r"\s", " ", self.text)
        raise InputError(
            "filter.invalid",
            f"The filter is not understood at character {place + 1}: {why}.",
            hint=f"{shown}\n  {' ' * place}^",
        )

    @property
    def token(self) -> _Token:
        return self.tokens[self.next]

    def expected(self, what: str) -> NoReturn:
        found = "the end" if self.token.kind == "end" else repr(self.token.text)
        self.refuse(self.token.place, f"expected {what}, found {found}")

    def take(self, *texts: str) -> str | None:
        """The token's text in lower case, when it is one of these."""
        token = self.token
        lower = token.text.lower()
        if token.kind in ("word", "sign") and lower in texts:
            self.next += 1
            return lower
        return None

    def whole(self) -> Node:
        found = self.joined("or")
        if self.token.kind != "end":
            self.expected("`and`, `or` or the end")
        return found

    def joined(self, word: Literal["and", "or"]) -> Node:
        items = [self.joined("and") if word == "or" else self.factor()]
        while self.take(word):
            items.append(self.joined("and") if word == "or" else self.factor())
        return items[0] if len(items) == 1 else Joined(word, tuple(items))

    def factor(self) -> Node:
        self.depth += 1
        if self.depth > MOST_DEPTH:
            self.refuse(self.token.place, f"more than {MOST_DEPTH} parentheses and `not` within each other")
        try:
            if self.take("not"):
                return Not(self.factor())
            if self.take("("):
                inner = self.joined("or")
                if not self.take(")"):
                    self.expected("`)`")
                return inner
            return self.comparison()
        finally:
            self.depth -= 1

    def comparison(self) -> Node:
        field = self.take(*FIELDS)
        if field is None:
            self.expected(f"a field ({', '.join(FIELDS)})")
        allowed = _ALLOWED[FIELDS[field]]
        place = self.token.place
        negated = bool(self.take("not"))
        sign = self.take("in", "has", *(() if negated else (*_OPERATORS, *_SAME_SIGN)))
        sign = _SAME_SIGN.get(sign or "", sign)
        if sign is None:
            self.expected("`in`" if negated else f"one of {' '.join(allowed)}")
        if sign not in allowed:
            self.refuse(place, f"{field} is compared by {' '.join(allowed)} and not by {sign}")
        found: Node
        if sign == "in":
            if not self.take("("):
                self.expected("`(`")
            values = [self.value(field)]
            while self.take(","):
                values.append(self.value(field))
            if not self.take(")"):
                self.expected("`,` or `)`")
            found = In(field, tuple(values))
        else:
            found = Compare(field, sign, self.value(field))
        return Not(found) if negated else found

    def value(self, field: str) -> Value:
        token = self.token
        kind = FIELDS[field]
        text = _unquoted(token.text) if token.kind == "text" else token.text
        if kind == "time" and token.kind in ("date", "text"):
            found: Value | None = _seconds(text)
        elif kind == "number" and token.kind == "number":
            found = float(text)
        elif kind in ("text", "code", "list") and token.kind == "text":
            found = text
        elif kind == "truth" and token.kind == "word" and text.lower() in ("true", "false"):
            found = text.lower() == "true"
        else:
            found = None
        if found is None or (isinstance(found, float) and abs(found) == float("inf")):
            self.expected(
                {
                    "time": "a date such as 2026-01-31 or 2026-01-31T08:30",
                    "number": "a number",
                    "truth": "true or false",
                }.get(kind, "a text in quotes")
            )
        self.next += 1
        return found


def _unquoted(text: str) -> str:
    return text[1:-1].replace(text[0] * 2, text[0])


def _seconds(text: str) -> float | None:
    try:
        found = datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def parse(text: str) -> Node | None:
    """The tree of a filter; None for an empty one, which every video passes. Raises `filter.invalid`, which shows the
    place."""
    return _Reader(text).whole() if text.strip() else None


# --- two readings of one tree ----------------------------------------------------------------------------------------


def matches(node: Node | None, record: Mapping[str, Any]) -> bool:
    """Whether a record passes. It has the names of FIELDS: seconds since the epoch, seconds or None, texts, a list of
    texts for `tags`, a bool for `published`."""
    if node is None:
        return True
    if isinstance(node, Not):
        return not matches(node.item, record)
    if isinstance(node, Joined):
        return (all if node.word == "and" else any)(matches(item, record) for item in node.items)
    held = _plain(record[node.field], node.field)
    if held is None:
        return False
    if isinstance(node, In):
        return held in [_plain(value, node.field) for value in node.values]
    asked = _plain(node.value, node.field)
    return asked in held if node.operator == "has" else _OPERATORS[node.operator](held, asked)


def _plain(value: Any, field: str) -> Any:
    return value.lower() if FIELDS[field] == "code" else value


def to_sql(node: Node | None, dialect: str) -> sa.ColumnElement[bool]:
    """The same as a condition on `videos`, for `sqlite` or `postgresql`."""
    if node is None:
        return sa.true()
    if isinstance(node, Not):
        return sa.not_(to_sql(node.item, dialect))
    if isinstance(node, Joined):
        joined = sa.and_ if node.word == "and" else sa.or_
        return joined(*(to_sql(item, dialect) for item in node.items))
    if FIELDS[node.field] == "truth":
        there = (
            sa.exists(sa.literal(1))
            .where(publications.c.video_id == videos.c.id, publications.c.revision == videos.c.revision)
            .correlate(videos)
        )
        wanted = isinstance(node, Compare) and (node.operator == "=") == bool(node.value)
        return there if wanted else sa.not_(there)
    if FIELDS[node.field] == "list" and isinstance(node, Compare):
        return _has_tag(str(node.value), dialect)
    column = _column(node.field, dialect)
    found: sa.ColumnElement[bool]
    if isinstance(node, In):
        found = column.in_([_plain(value, node.field) for value in node.values])
    elif node.operator == "has":
        found = (sa.func.strpos if dialect == "postgresql" else sa.func.instr)(column, node.value) > 0
    else:
        found = _OPERATORS[node.operator](column, _plain(node.value, node.field))  # type: ignore[assignment]
    # Two truth values, not three: what is unknown does not pass, and its opposite does.
    return sa.func.coalesce(found, sa.false())


def _column(field: str, dialect: str) -> sa.ColumnElement[Any]:
    if field == "uploaded_at":
        return videos.c.uploaded_at
    holder = videos.c.media if field == "duration" else videos.c.metadata
    if dialect == "postgresql":
        text: sa.ColumnElement[Any] = sa.cast(holder, sa.JSON)[field].as_string()
        return sa.cast(text, sa.Double) if field == "duration" else _folded(text, field)
    extracted = sa.func.json_extract(holder, f"$.{field}", type_=sa.Float if field == "duration" else sa.String)
    return extracted if field == "duration" else _folded(extracted, field)


def _folded(column: sa.ColumnElement[Any], field: str) -> sa.ColumnElement[Any]:
    return sa.func.lower(column) if FIELDS[field] == "code" else column


def _has_tag(tag: str, dialect: str) -> sa.ColumnElement[bool]:
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import JSONB

        return sa.func.jsonb_exists(sa.cast(videos.c.metadata, JSONB)["tags"], tag, type_=sa.Boolean)
    each = sa.func.json_each(videos.c.metadata, "$.tags").table_valued("value", name="tag")
    return sa.exists(sa.select(sa.literal(1)).select_from(each).where(each.c.value == tag))
