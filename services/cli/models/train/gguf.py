"""Writes a GGUF file, version 3: little-endian header, metadata, tensor directory, tensors at multiples of 32 bytes."""

import struct

import numpy

ALIGNMENT = 32
F32, Q8_0 = 0, 8


def text(value):
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def value(item):
    """A metadata value with its type: u32 for int, i32 in lists of int, f32 for float, else bool, string or list of strings."""
    if isinstance(item, bool):
        return struct.pack("<I?", 7, item)
    if isinstance(item, int):
        return struct.pack("<II", 4, item)
    if isinstance(item, float):
        return struct.pack("<If", 6, item)
    if isinstance(item, str):
        return struct.pack("<I", 8) + text(item)
    if isinstance(item[0], int):
        return struct.pack(f"<IIQ{len(item)}i", 9, 5, len(item), *item)
    return struct.pack("<IIQ", 9, 8, len(item)) + b"".join(map(text, item))


def q8_0(weights):
    """Blocks of 32 weights: their scale as f16, then 32 signed bytes. Rounds half to even, against the scale as it is stored."""
    blocks = weights.astype(numpy.float32).reshape(-1, 32)
    scales = (numpy.abs(blocks).max(axis=1, keepdims=True) / 127).astype(numpy.float16)
    steps = scales.astype(numpy.float32)
    quants = numpy.divide(blocks, steps, out=numpy.zeros_like(blocks), where=steps > 0)
    quants = numpy.clip(numpy.rint(quants), -127, 127).astype(numpy.int8)
    return numpy.concatenate([scales.view(numpy.uint8), quants.view(numpy.uint8)], axis=1).tobytes()


def write(path, metadata, tensors):
    """`tensors`: name to array; matrices `[rows, columns]` become Q8_0, vectors F32."""
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    header += b"".join(text(key) + value(item) for key, item in metadata.items())
    body = b""
    for name, array in tensors.items():
        data, kind = (q8_0(array), Q8_0) if array.ndim == 2 else (array.astype("<f4").tobytes(), F32)
        # Dimensions stand fastest first.
        header += text(name) + struct.pack(f"<I{array.ndim}QIQ", array.ndim, *reversed(array.shape), kind, len(body))
        body += data + bytes(-len(data) % ALIGNMENT)
    header += bytes(-len(header) % ALIGNMENT)
    with open(path, "wb") as file:
        file.write(header + body)
