"""Writes rows.avro and rows.parquet beside this script, as fastavro and pyarrow write them, or reads such files as JSON lines.

With fastavro and pyarrow installed (they come with apache-beam):
    python make_files.py              writes the files
    python make_files.py FILE         prints the rows of a file
"""
import datetime
import decimal
import json
import pathlib
import sys

import fastavro
import pyarrow
import pyarrow.parquet

UTC = datetime.timezone.utc
ROWS = [
    {
        "id": 1, "name": "Ann", "score": 1.5, "flag": True, "data": b"\x00\xff", "tags": ["a", None],
        "counts": {"k": 7}, "place": {"city": "Rome", "zip": None},
        "at": datetime.datetime(2024, 2, 29, 12, 0, 0, 123000, tzinfo=UTC),
        "exact": datetime.datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC),
        "day": datetime.date(2024, 2, 29), "price": decimal.Decimal("12.500000000"), "code": b"abcd",
    },
    {
        "id": 2, "name": None, "score": -2.0, "flag": False, "data": b"", "tags": [], "counts": {}, "place": None,
        "at": datetime.datetime(1969, 12, 31, 23, 59, 59, 999000, tzinfo=UTC),
        "exact": datetime.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        "day": datetime.date(1969, 12, 31), "price": decimal.Decimal("-0.000000001"), "code": b"\x00\x01\x02\x03",
    },
]


def avro():
    place = {"type": "record", "name": "Place", "fields": [
        {"name": "city", "type": "string"}, {"name": "zip", "type": ["null", "string"]}]}
    kinds = {
        "id": "long", "name": ["null", "string"], "score": "double", "flag": "boolean", "data": "bytes",
        "tags": {"type": "array", "items": ["null", "string"]}, "counts": {"type": "map", "values": "long"},
        "place": ["null", place], "at": {"type": "long", "logicalType": "timestamp-millis"},
        "exact": {"type": "long", "logicalType": "timestamp-micros"}, "day": {"type": "int", "logicalType": "date"},
        "price": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 9},
        "code": {"type": "fixed", "name": "Code", "size": 4},
    }
    return fastavro.parse_schema({"type": "record", "name": "Row", "fields": [
        {"name": name, "type": kind} for name, kind in kinds.items()]})


def parquet():
    field = pyarrow.field
    place = pyarrow.struct([field("city", pyarrow.string(), nullable=False), field("zip", pyarrow.string())])
    return pyarrow.schema([
        field("id", pyarrow.int64(), nullable=False), field("name", pyarrow.string()),
        field("score", pyarrow.float64(), nullable=False), field("flag", pyarrow.bool_(), nullable=False),
        field("data", pyarrow.binary(), nullable=False), field("tags", pyarrow.list_(pyarrow.string()), nullable=False),
        field("counts", pyarrow.map_(pyarrow.string(), pyarrow.int64()), nullable=False), field("place", place),
        field("at", pyarrow.timestamp("ms", "UTC"), nullable=False),
        field("exact", pyarrow.timestamp("us", "UTC"), nullable=False), field("day", pyarrow.date32(), nullable=False),
        field("price", pyarrow.decimal128(38, 9), nullable=False), field("code", pyarrow.binary(4), nullable=False),
    ])


def plain(value):
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (datetime.datetime, datetime.date, decimal.Decimal)):
        return str(value)
    raise TypeError(type(value))


def main():
    folder = pathlib.Path(__file__).parent
    if len(sys.argv) < 2:
        with open(folder / "rows.avro", "wb") as file:
            fastavro.writer(file, avro(), ROWS, codec="deflate")
        table = pyarrow.Table.from_pylist(ROWS, schema=parquet())
        pyarrow.parquet.write_table(table, folder / "rows.parquet")
        return
    path = sys.argv[1]
    if path.endswith(".avro"):
        with open(path, "rb") as file:
            rows = list(fastavro.reader(file))
    else:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    for row in rows:
        row["counts"] = dict(row["counts"])
        print(json.dumps(row, default=plain, sort_keys=True))


if __name__ == "__main__":
    main()
