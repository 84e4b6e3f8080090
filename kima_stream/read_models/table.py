"""The one kind of read-model table: a row per stream, its state as JSON, and columns to filter by.

The columns are fields of the state struct, so they cannot say anything else than the state. SQL is
built once, from identifiers of this program. A batch is locked and written with one statement each.
A state that has the field ``effects`` keeps the table of that name as well.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from operator import attrgetter
from types import UnionType
from typing import Any, Final, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints
from uuid import UUID

import asyncpg
import msgspec

from kima_stream import effect_rows
from kima_stream.database import Connection
from kima_stream.effect_rows import Holder
from kima_stream.events import Effect
from kima_stream.projector import Row

S = TypeVar("S", bound=msgspec.Struct)

KEY_COLUMNS: Final = ("stream", "version", "created_at", "updated_at", "state")
_KEY_TYPES: Final = ("text", "bigint", "timestamptz", "timestamptz", "json")
_SQL_TYPES: Final[dict[object, str]] = {
    str: "text",
    int: "bigint",
    bool: "boolean",
    float: "double precision",
    UUID: "uuid",
    datetime: "timestamptz",
}


class Table(Generic[S]):
    """The read model of states ``S`` in the table ``name``; implements ``projector.ReadModel``."""

    def __init__(self, name: str, state: type[S], columns: Sequence[str], *, is_shadow: bool = False) -> None:
        """Build the statements.

        Args:
            name: of the table; the key columns come first in it, then ``columns``.
            state: its fields are text, integers, booleans, floats, UUIDs or times where they are columns;
                ``effects: tuple[Effect, ...]``, if it is there, are the calls it wants made.
            columns: names of such fields, in table order.
            is_shadow: it only shows what would be: no effect comes of it.

        Raises:
            TypeError: a column is no such field, or ``effects`` is something else.
        """
        self.table = name
        self._state = state
        self._columns = tuple(columns)
        hints = get_type_hints(state)
        if hints.get("effects", tuple[Effect, ...]) != tuple[Effect, ...]:
            raise TypeError(f"{name}.effects is no tuple of effects")
        self._has_effects = "effects" in hints and not is_shadow
        types = (*_KEY_TYPES, *(_sql_type(name, column, hints.get(column)) for column in columns))
        self._statements = _Statements(
            _identifier(name), (*KEY_COLUMNS, *columns), types, tells_written=self._has_effects
        )
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(state).decode
        self._values: Callable[[S], tuple[Any, ...]] = _getter(self._columns)

    def renamed(self, table: str) -> "Table[S]":
        """Return the same read model in another table of the same shape, of which no effect comes."""
        return Table(table, self._state, self._columns, is_shadow=True)

    async def lock(self, conn: Connection, streams: Sequence[str]) -> dict[str, Row[S]]:
        """Lock the rows of ``streams`` that exist, in name order, and return them."""
        rows = await conn.fetch(self._statements.lock, list(streams))
        return {row["stream"]: self.row(row) for row in rows}

    async def lock_new(self, conn: Connection, stream: str, blank: Row[S]) -> Row[S]:
        """Insert ``blank`` unless there is a row, lock it and return it."""
        locked = await self.lock(conn, [stream])
        if not locked:
            await conn.execute(self._statements.insert_blank, *self._parameters([blank]))
            locked = await self.lock(conn, [stream])
        return locked[stream]

    async def save(self, conn: Connection, rows: Sequence[Row[S]]) -> None:
        """Write rows in one statement, each only over an older version; open and close their effects."""
        if rows and self._has_effects:
            written = {row["stream"] for row in await conn.fetch(self._statements.save, *self._parameters(rows))}
            await self.keep_effects(conn, [row for row in rows if row.stream in written])
        elif rows:
            await conn.execute(self._statements.save, *self._parameters(rows))

    async def keep_effects(self, conn: Connection, rows: Sequence[Row[S]]) -> None:
        """Make the table ``effects`` what ``rows``, locked by the caller, have open."""
        if self._has_effects:
            effects = attrgetter("effects")
            await effect_rows.keep(
                conn, [Holder(row.stream, row.version, row.updated_at, effects(row.state)) for row in rows]
            )

    async def find(self, conn: Connection, stream: str) -> Row[S] | None:
        """Return the row of ``stream`` without locking it; None when the stream has no event yet."""
        row = await conn.fetchrow(self._statements.find, stream)
        return None if row is None else self.row(row)

    def row(self, row: asyncpg.Record) -> Row[S]:
        """Return a record that has the key columns as a typed row."""
        return Row(
            stream=row["stream"],
            version=row["version"],
            state=self._decode(row["state"]),
            created_at=row["created_at"],
            updated_at=row["updated_at"],
        )

    def _parameters(self, rows: Sequence[Row[S]]) -> list[Sequence[Any] | None]:
        """Return one list per column, the transpose that ``unnest`` takes; a column of NULLs alone is NULL."""
        encode, values = self._encode, self._values
        columns = zip(*(values(row.state) for row in rows), strict=True)
        return [
            [row.stream for row in rows],
            [row.version for row in rows],
            [row.created_at for row in rows],
            [row.updated_at for row in rows],
            [encode(row.state).decode() for row in rows],
            *(None if column.count(None) == len(column) else column for column in columns),
        ]


class _Statements:
    """All SQL of one table."""

    def __init__(self, table: str, columns: Sequence[str], types: Sequence[str], *, tells_written: bool) -> None:
        names = ", ".join(_identifier(column) for column in columns)
        parameters = ", ".join(f"${n}::{type_}[]" for n, type_ in enumerate(types, start=1))
        updates = ", ".join(f"{column} = excluded.{column}" for column in columns if column != "stream")
        keys = ", ".join(KEY_COLUMNS)
        # In name order, like the locks: two batches with new streams in common do not wait for each other.
        insert = f"""
            INSERT INTO {table} AS r ({names})
            SELECT {names} FROM unnest({parameters}) AS n ({names}) ORDER BY stream
                ON CONFLICT (stream) DO """  # noqa: S608 - identifiers of this program
        self.insert_blank = f"{insert} NOTHING"
        self.save = f"{insert} UPDATE SET {updates} WHERE r.version < excluded.version"
        if tells_written:
            self.save += " RETURNING stream"
        self.lock = f"""
            SELECT {keys} FROM {table} WHERE stream = ANY($1::text[]) ORDER BY stream FOR UPDATE
        """  # noqa: S608 - as above
        self.find = f"SELECT {keys} FROM {table} WHERE stream = $1 AND version >= 0"  # noqa: S608 - as above


def _getter(columns: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    if len(columns) > 1:
        return attrgetter(*columns)
    return lambda state: tuple(getattr(state, column) for column in columns)


def _sql_type(table: str, column: str, hint: object) -> str:
    """Return the SQL type of a field of type ``hint``; an optional one is a nullable column."""
    options = get_args(hint) if get_origin(hint) in {Union, UnionType} else (hint,)
    kinds = {str if get_origin(option) is Literal else option for option in options} - {type(None)}
    sql = _SQL_TYPES.get(kinds.pop()) if len(kinds) == 1 else None
    if sql is None:
        raise TypeError(f"{table}.{column} is no field that fits a column")
    return sql


def _identifier(name: str) -> str:
    if not (name.isascii() and name.isidentifier()):
        raise ValueError(f"{name!r} is no name of a table or column")
    return name
