"""Reads a TensorFlow checkpoint bundle without TensorFlow (600 MB for two small files).

A bundle is an index, a LevelDB table of BundleEntry messages, beside one data file. Only what the
musicnn files need is read: one shard, float32, no compression.
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/protobuf/tensor_bundle.proto
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from musilingo_core.errors import CheckpointError

FOOTER = 48  # bytes
FLOAT32 = 1  # DataType.DT_FLOAT


def read_bundle(folder: str | Path) -> dict[str, npt.NDArray[np.float32]]:
    """All float32 variables of the bundle in a folder, by name.

    Raises:
        CheckpointError: The index is not such a table or points outside the data.
    """
    folder = Path(folder)
    index = (folder / ".index").read_bytes()
    data = (folder / ".data-00000-of-00001").read_bytes()
    try:
        return dict(_variables(index, data))
    except (IndexError, struct.error, ValueError, UnicodeDecodeError) as error:
        raise CheckpointError(folder, detail=f"not a TensorFlow bundle: {error}") from error


def _variables(index: bytes, data: bytes) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    footer = index[-FOOTER:]
    _, at = _handle(footer, 0)  # the meta-index block, not needed
    block, _ = _handle(footer, at)
    for _, value in _entries(index, *block):
        for key, message in _entries(index, *_handle(value, 0)[0]):
            if not key:
                continue  # the header entry
            dtype, shape, offset, size = _bundle_entry(message)
            if dtype == FLOAT32:
                array = np.frombuffer(data[offset : offset + size], "<f4")
                yield key.decode(), array.reshape(shape).astype(np.float32)


def _entries(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a table block; keys share prefixes with the one before."""
    block = table[offset : offset + size]
    if table[offset + size] != 0:
        raise ValueError("compressed block")
    restarts = struct.unpack("<I", block[-4:])[0]
    end, at, key = len(block) - 4 * (restarts + 1), 0, b""
    while at < end:
        shared, at = _varint(block, at)
        unshared, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + unshared]
        at += unshared
        yield key, block[at : at + length]
        at += length


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """A block's (offset, size) and the position behind it."""
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return (offset, size), at


def _bundle_entry(message: bytes) -> tuple[int, list[int], int, int]:
    """dtype, shape, offset and size (bytes) of a BundleEntry message."""
    fields: dict[int, Any] = dict(_fields(message))
    dims = [dict(_fields(dim)) for number, dim in _fields(fields.get(2, b"")) if number == 2]
    shape = [dim.get(1, 0) for dim in dims]
    return fields.get(1, 0), shape, fields.get(4, 0), fields.get(5, 0)


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Field numbers and values (int or bytes) of a protocol buffer message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
        elif wire == 2:
            length, at = _varint(message, at)
            yield number, message[at : at + length]
            at += length
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A base-128 number and the position behind it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
