"""Results as Parquet, for data frames: a column per field of the rows, and how they were found in the file's metadata."""

import io
import math
from collections.abc import Sequence
from typing import Any, get_args, get_type_hints

import pyarrow as pa
from pyarrow import parquet

from contrasim_cli.names import json_text
from contrasim_cli.report.results import Results

METADATA = b"contrasim"  # the key of the JSON text


def to_bytes(results: Results, schema_version: int) -> bytes:
    """Results as a Parquet file; numbers that are missing or not finite are null."""
    hints = get_type_hints(results.kind)
    values = [results.values(row) for row in results.rows]
    fields = [pa.field(name, _type(hints[name])) for name in results.columns]
    columns = [pa.array(_finite([row[k] for row in values]), type=column.type) for k, column in enumerate(fields)]
    about = {"schema_version": schema_version, "command": results.command, **results.about}
    schema = pa.schema(fields, metadata={METADATA: json_text(about).encode("utf-8", "backslashreplace")})
    stream = io.BytesIO()
    parquet.write_table(pa.Table.from_arrays(columns, schema=schema), stream)
    return stream.getvalue()


def _type(hint: Any) -> Any:
    """Arrow's type for `str`, `int`, `float`, and one of them or None."""
    plain = next(kind for kind in get_args(hint) or (hint,) if kind is not type(None))
    return {str: pa.string(), int: pa.int64(), float: pa.float64()}[plain]


def _finite(values: Sequence[Any]) -> list[Any]:
    return [
        None
        if isinstance(value, float) and not math.isfinite(value)
        else value.encode("utf-8", "backslashreplace").decode()
        if isinstance(value, str)
        else value
        for value in values
    ]
