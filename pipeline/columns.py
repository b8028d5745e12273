"""Objects as Arrow columns, all at once: a field of a struct is the attribute of its name."""

from collections.abc import Sequence
from itertools import accumulate, chain
from operator import attrgetter
from typing import Any

import pyarrow as pa


def column_of(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return values as a column. Those of structs are objects, in lists too; none is None.

    Rows of dictionaries (`pa.array`) would cost a dictionary for each struct, and a look-up for
    each of its fields.
    """
    if pa.types.is_struct(kind):
        fields = list(kind)
        columns = [column_of(list(map(attrgetter(f.name), values)), f.type) for f in fields]
        return pa.StructArray.from_arrays(columns, fields=fields)
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        offsets = pa.array([0, *accumulate(map(len, values))], pa.int32())
        items = column_of(list(chain.from_iterable(values)), kind.value_type)
        return pa.ListArray.from_arrays(offsets, items, type=kind)
    return pa.array(values, kind)
