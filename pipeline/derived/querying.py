"""SQL conditions about a box, an entity or an annotation, evaluated by DuckDB on Arrow tables.

A condition is one expression over one row. It is parsed as such, cannot refer to other rows or
tables, and reads no file.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kosmos2_core.errors import first_line
from pipeline.derived.conditions import Condition, Level
from pipeline.errors import SpecError
from pipeline.schema import BOX_FIELDS

_NUMBER = "_number"  # number of the row
_MET = -1
# Classes of DuckDB's parser that an expression must not contain.
_FORBIDDEN = {"SUBQUERY": "refers to other rows or tables", "WINDOW": "refers to other rows"}
_OPTIONS: dict[str, str | bool | int | float | list[str]] = {
    "threads": 1,
    "enable_external_access": False,
}
_MANY: dict[Level, str] = {"box": "boxes", "entity": "entities", "annotation": "annotations"}
_AREA = "area"
_BOX_COUNT = "box_count"
_OF_ANNOTATION = ("and the columns of the annotation",)
_MORE: dict[Level, tuple[str, ...]] = {
    "box": _OF_ANNOTATION,
    "entity": _OF_ANNOTATION,
    "annotation": (_BOX_COUNT,),
}


class Conditions:
    """The conditions of one level, on tables of `schema`."""

    def __init__(self, conditions: Sequence[Condition], level: Level, schema: pa.Schema) -> None:
        """Check the conditions. Raises SpecError, naming one that does not fit such rows."""
        self.conditions = tuple(c for c in conditions if c.level == level)
        self._level = level
        for condition in self.conditions:
            self._check(condition, schema)

    @cached_property
    def _database(self) -> duckdb.DuckDBPyConnection:
        """A database of its own: only where there are conditions, as to start it takes a while."""
        database = duckdb.connect(":memory:", config=_OPTIONS)
        database.execute("SET lock_configuration = true")
        return database

    def first_unmet(self, rows: pa.Table) -> npt.NDArray[np.int64]:
        """Return the number of the first unmet condition of each box, entity or annotation.

        It is -1 if all conditions are met. The order is that of `rows`. Any thread may call it.
        Raises SpecError if a condition cannot be evaluated on an existing value.
        """
        table = self._flat(rows, [condition.sql for condition in self.conditions])
        found = np.full(table.num_rows, _MET)
        for number, condition in enumerate(self.conditions):
            is_met = self._is_met(condition, table)
            found[~is_met & (found == _MET)] = number
        return found

    def _is_met(self, condition: Condition, table: pa.Table) -> npt.NDArray[np.bool_]:
        expression = duckdb.SQLExpression(condition.sql)
        try:
            with self._database.cursor() as connection:
                chosen = connection.from_arrow(table).filter(expression).select(_NUMBER)
                numbers = chosen.fetchnumpy()[_NUMBER]
        except duckdb.Error as error:
            raise _refused(condition, first_line(error)) from error
        is_met = np.zeros(table.num_rows, np.bool_)
        is_met[numbers.astype(np.int64)] = True
        return is_met

    def _check(self, condition: Condition, schema: pa.Schema) -> None:
        table = self._flat(schema.empty_table(), [condition.sql])
        try:
            expression = duckdb.SQLExpression(condition.sql)
            with self._database.cursor() as connection:
                kinds = connection.from_arrow(table).select(expression).types
                tree = connection.execute(
                    "SELECT json_serialize_sql(?)", [f"SELECT ({condition.sql})"]
                ).fetchall()[0][0]
        except duckdb.Error as error:
            there = schema.names if self._level == "annotation" else table.column_names
            names = ", ".join(name for name in [*there, *_MORE[self._level]] if name != _NUMBER)
            raise _refused(condition, f"{first_line(error)}; the columns are {names}") from error
        if [str(kind) for kind in kinds] != ["BOOLEAN"]:
            raise _refused(condition, f"its type is {kinds[0]}, not BOOLEAN")
        for kind, what in _FORBIDDEN.items():
            if f'"class":"{kind}"' in tree:
                raise _refused(condition, f"it {what}; write it about one row")

    def _flat(self, rows: pa.Table, expressions: Sequence[str]) -> pa.Table:
        """Return one numbered row per thing, with the columns that the expressions may name."""
        columns = dict(_columns(self._level, rows, " ".join(expressions).lower()))
        (count,) = {len(column) for column in columns.values()}
        return pa.table({**columns, _NUMBER: np.arange(count)})


def _columns(level: Level, rows: pa.Table, text: str) -> Iterator[tuple[str, pa.Array]]:
    """Yield columns by name. The innermost come last, and replace others of the same name."""
    entities = rows["entities"].combine_chunks()
    of_row = pc.list_parent_indices(entities)
    flat = pc.list_flatten(entities)
    boxes = pc.struct_field(flat, "boxes")
    of_entity = pc.list_parent_indices(boxes)
    if level == "annotation":
        counts = pc.list_value_length(boxes).to_numpy()
        per_row = np.bincount(of_row.to_numpy(), weights=counts, minlength=rows.num_rows)
        for name in rows.column_names:
            if name.lower() in text:
                yield name, _readable(rows[name])
        yield _BOX_COUNT, pa.array(per_row.astype(np.int64))
        return
    places = of_row if level == "entity" else of_row.take(of_entity)
    for name in rows.column_names:
        if name != "entities" and name.lower() in text:
            yield name, _readable(rows[name]).take(places)
    for field in flat.type:
        column = pc.struct_field(flat, field.name)
        if level == "entity":
            yield field.name, column
        elif field.name != "boxes":
            yield field.name, column.take(of_entity)
    if level == "box":
        inner = pc.list_flatten(boxes)
        corners = {name: pc.struct_field(inner, name) for name in BOX_FIELDS}
        yield from corners.items()
        width = pc.subtract(corners["x2"], corners["x1"])
        yield _AREA, pc.multiply(width, pc.subtract(corners["y2"], corners["y1"]))


def _readable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Cast half precision to float32, because DuckDB has no half precision."""
    is_half = column.type == pa.list_(pa.float16())
    return column.cast(pa.list_(pa.float32())) if is_half else column


def _refused(condition: Condition, reason: str) -> SpecError:
    return SpecError(
        f"{condition.option} is not a valid condition on {_MANY[condition.level]}: {reason}"
    )
