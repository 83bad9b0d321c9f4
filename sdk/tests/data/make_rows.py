"""Writes rows.json: values as Beam's Python SDK encodes them with its RowCoder, by schemas of this SDK's kinds.

Run with apache-beam installed: python make_rows.py > rows.json. (Its coder of BYTE writes no negative numbers, and its decimals keep 28 digits.)
"""
import decimal
import json
import typing
from datetime import date

import numpy as np
from apache_beam.coders import RowCoder
from apache_beam.portability.api import schema_pb2
from apache_beam.typehints import schemas
from apache_beam.typehints.schemas import LogicalType, MillisInstant
from apache_beam.utils.timestamp import Timestamp


class Inner(typing.NamedTuple):
    x: np.int32
    y: typing.Optional[str]


class Everything(typing.NamedTuple):
    byte: np.int8
    short: np.int16
    int: np.int32
    long: np.int64
    float: np.float32
    double: np.float64
    text: str
    flag: bool
    data: bytes
    maybe: typing.Optional[np.int64]
    list: typing.Sequence[np.int32]
    holes: typing.Sequence[typing.Optional[str]]
    map: typing.Mapping[str, np.int64]
    inner: Inner
    maybe_inner: typing.Optional[Inner]
    inners: typing.Sequence[Inner]
    micros: Timestamp
    day: date
    price: decimal.Decimal


def fields(nt):
    return schemas.named_tuple_to_schema(nt)


def atomic(kind, nullable=False):
    return schema_pb2.FieldType(atomic_type=kind, nullable=nullable)


def logical_schema():
    """Logical types that Python's type hints cannot spell."""
    one_of = schema_pb2.FieldType(
        row_type=schema_pb2.RowType(
            schema=schema_pb2.Schema(
                id="one-of",
                fields=[
                    schema_pb2.Field(name="Number", type=atomic(schema_pb2.INT64, True)),
                    schema_pb2.Field(name="Text", type=atomic(schema_pb2.STRING, True)),
                    schema_pb2.Field(name="Nothing", type=atomic(schema_pb2.BOOLEAN, True)),
                ])))
    length = schema_pb2.FieldValue(atomic_value=schema_pb2.AtomicTypeValue(int32=4))
    kinds = [
        ("millis", "beam:logical_type:millis_instant:v1", atomic(schema_pb2.INT64), None),
        ("color", "purlin:logical_type:enumeration:v1", atomic(schema_pb2.INT32), None),
        ("shape", "purlin:logical_type:one_of:v1", one_of, None),
        ("code", "beam:logical_type:fixed_bytes:v1", atomic(schema_pb2.BYTES), length),
    ]
    result = schema_pb2.Schema(id="logical")
    for name, urn, representation, argument in kinds:
        kind = schema_pb2.LogicalType(urn=urn, representation=representation)
        if argument is not None:
            kind.argument_type.CopyFrom(atomic(schema_pb2.INT32))
            kind.argument.CopyFrom(argument)
        result.fields.append(
            schema_pb2.Field(name=name, type=schema_pb2.FieldType(logical_type=kind)))
    return result


def pass_through(the_urn, kind):
    """What a pipeline registers to read a logical type that its SDK does not know."""
    class Type(schemas.PassThroughLogicalType):
        @classmethod
        def urn(cls):
            return the_urn

        @classmethod
        def language_type(cls):
            return kind

    LogicalType.register_logical_type(Type)


def encoded(coder, value):
    data = coder.encode(value)
    assert coder.decode(data) is not None
    return data.hex()


def main():
    pass_through("purlin:logical_type:enumeration:v1", np.int32)
    pass_through("purlin:logical_type:one_of:v1", typing.NamedTuple)
    everything = RowCoder(fields(Everything))
    full = Everything(
        1, -300, -70000, -5_000_000_000, 1.5, -2.25, "grüße", True, b"\x00\xff", 7, [1, -2, 3], ["a", None],
        {"k": -9}, Inner(5, None), Inner(6, "six"), [Inner(1, "a"), Inner(2, None)],
        Timestamp(micros=1_234_567_890_123_456), date(2024, 2, 29), decimal.Decimal("-12.50"))
    empty = Everything(
        127, 32767, 2**31 - 1, 2**63 - 1, 0.0, 0.0, "", False, b"", None, [], [], {}, Inner(0, ""), None, [],
        Timestamp(micros=-1), date(1969, 12, 31), decimal.Decimal("1234567890123456789012345678"))
    logical = logical_schema()
    logicals = RowCoder(logical)
    one = typing.NamedTuple("one", [("Number", int), ("Text", str), ("Nothing", bool)])
    row = typing.NamedTuple(
        "row", [("millis", object), ("color", int), ("shape", object), ("code", bytes)])
    millis = Timestamp(micros=1_500_000_000_123_000)
    shapes = [one(-3, None, None), one(None, "x", None), one(None, None, True)]
    print(json.dumps({
        "everything_schema": fields(Everything).SerializeToString(deterministic=True).hex(),
        "everything": [encoded(everything, full), encoded(everything, empty)],
        "logical_schema": logical.SerializeToString(deterministic=True).hex(),
        "logical": [encoded(logicals, row(millis, 7, shape, b"abcd")) for shape in shapes],
    }, indent=1))


if __name__ == "__main__":
    main()
