"""Damages to checkpoints: every one changes what a file says or whether it can be read, and none goes unnoticed."""

import json
import math
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from checkpoints import put_json

SIZES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
UNKNOWN = ("F8_E4M3", "F8_E5M2", "U16", "U32", "C64", "Q4_0", "bf16", "", 7, None)
INDEX = "model.safetensors.index.json"


def split(data: bytes) -> tuple[dict, bytes]:
    """(header, weights) of a safetensors file."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def joined(text: str | bytes, body: bytes) -> bytes:
    text = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(text)) + text + body


def rebuilt(header: dict, body: bytes) -> bytes:
    return joined(json.dumps(header, separators=(",", ":")), body)


def tensors_of(header: dict) -> list[str]:
    return [name for name in header if name != "__metadata__"]


def flipped(rng: random.Random, data: bytes) -> bytes:
    """A byte of the header replaced so that it no longer says the same."""
    header, body = split(data)
    text = data[8 : len(data) - len(body)]
    while True:
        at = rng.randrange(len(text))
        new = text[:at] + bytes([rng.randrange(256)]) + text[at + 1 :]
        try:
            said = json.loads(new)
        except ValueError:
            return joined(new, body)
        if not isinstance(said, dict) or {**said, "__metadata__": 0} != {**header, "__metadata__": 0}:
            return joined(new, body)


def wrong_length(rng: random.Random, data: bytes) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    wrong = [0, 1, length // 2, length - rng.randint(9, 99), length + rng.randint(1, 99), len(data), 10**9, 2**63,
             2**64 - 1, rng.randrange(length), rng.randrange(2**64)]  # fmt: skip
    return struct.pack("<Q", rng.choice(wrong)) + data[8:]


def shifted_offsets(rng: random.Random, data: bytes) -> bytes:
    """Begin, end or both of a tensor moved: overlap, hole, wrong size, beyond the end."""
    header, body = split(data)
    place = header[rng.choice(tensors_of(header))]["data_offsets"]
    by = rng.choice([-4096, -64, -2, 1, 2, 64, len(body), 10**12])
    for i in rng.choice([(0,), (1,), (0, 1)]):
        place[i] = place[i] + by
    return rebuilt(header, body)


def swapped_offsets(rng: random.Random, data: bytes) -> bytes:
    """Two tensors of different sizes in each other's place."""
    header, body = split(data)
    while True:
        a, b = (header[name] for name in rng.sample(tensors_of(header), 2))
        if math.prod(a["shape"]) != math.prod(b["shape"]):
            a["data_offsets"], b["data_offsets"] = b["data_offsets"], a["data_offsets"]
            return rebuilt(header, body)


def gap(rng: random.Random, data: bytes) -> bytes:
    """A hole between two tensors, which a header must not have."""
    header, body = split(data)
    size, starts = rng.choice([1, 2, 8, 64]), sorted(header[name]["data_offsets"][0] for name in tensors_of(header))
    at = rng.choice(starts[1:])
    for name in tensors_of(header):
        place = header[name]["data_offsets"]
        if place[0] >= at:
            header[name]["data_offsets"] = [place[0] + size, place[1] + size]
    return rebuilt(header, body[:at] + bytes(size) + body[at:])


def malformed_offsets(rng: random.Random, data: bytes) -> bytes:
    header, body = split(data)
    entry = header[rng.choice(tensors_of(header))]
    begin, end = entry["data_offsets"]
    entry["data_offsets"] = rng.choice(
        [[end, begin], [begin], [begin, end, end], [-begin - 1, end], [str(begin), end], [begin + 0.5, end], None, {}]
    )
    return rebuilt(header, body)


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def extended(rng: random.Random, data: bytes) -> bytes:
    return data + rng.randbytes(rng.randint(1, 200))


def other_size(rng: random.Random, data: bytes) -> bytes:
    header, body = split(data)
    entry = header[rng.choice(tensors_of(header))]
    entry["dtype"] = rng.choice([d for d, size in SIZES.items() if size != SIZES[entry["dtype"]]])
    return rebuilt(header, body)


def same_size(rng: random.Random, data: bytes) -> bytes:
    """A valid file whose tensor would be read as other numbers: only the other models tell."""
    header, body = split(data)
    entry = header[rng.choice(tensors_of(header))]
    entry["dtype"] = rng.choice([d for d, size in SIZES.items()
                                 if size == SIZES[entry["dtype"]] and d != entry["dtype"]])  # fmt: skip
    return rebuilt(header, body)


def unknown_dtype(rng: random.Random, data: bytes) -> bytes:
    header, body = split(data)
    header[rng.choice(tensors_of(header))]["dtype"] = rng.choice(UNKNOWN)
    return rebuilt(header, body)


def reshaped(rng: random.Random, data: bytes) -> bytes:
    """A valid file whose tensor has another shape of as many entries."""
    header, body = split(data)
    entry = header[rng.choice(tensors_of(header))]
    shape = entry["shape"]
    ways = [[1, *shape], [*shape, 1], [shape[0] // 2, 2, *shape[1:]]]
    if len(set(shape)) > 1:
        ways.append(shape[::-1])
    entry["shape"] = rng.choice(ways)
    return rebuilt(header, body)


def resized(rng: random.Random, data: bytes) -> bytes:
    header, body = split(data)
    shape = header[rng.choice(tensors_of(header))]["shape"]
    shape[rng.randrange(len(shape))] = rng.choice([0, 1, 7, 10**6, 2**63, 2**70, -1, 2.5, "4", None])
    return rebuilt(header, body)


def renamed(rng: random.Random, data: bytes) -> bytes:
    header, body = split(data)
    old = rng.choice(tensors_of(header))
    new = rng.choice([old + "s", old.upper(), "model." + old, "", old.replace("weight", "scale") + "_"])
    return rebuilt({(new if n == old else n): entry for n, entry in header.items()}, body)


def removed(rng: random.Random, data: bytes) -> bytes:
    """A tensor taken out, bytes and all: a valid file."""
    header, body = split(data)
    begin, end = header.pop(rng.choice(tensors_of(header)))["data_offsets"]
    for name in tensors_of(header):
        place = header[name]["data_offsets"]
        if place[0] >= end:
            header[name]["data_offsets"] = [x - end + begin for x in place]
    return rebuilt(header, body[:begin] + body[end:])


def unlisted(rng: random.Random, data: bytes) -> bytes:
    """A tensor whose bytes stay, but which the header does not name."""
    header, body = split(data)
    header.pop(rng.choice(tensors_of(header)))
    return rebuilt(header, body)


def twice(rng: random.Random, data: bytes) -> bytes:
    """A tensor listed twice, the same or with another place."""
    header, body = split(data)
    name = rng.choice(tensors_of(header))
    entry = header[rng.choice([name, rng.choice(tensors_of(header))])]
    more = f"{json.dumps(name)}:{json.dumps(entry)}"
    text = json.dumps(header, separators=(",", ":"))
    return joined(rng.choice(["{" + more + "," + text[1:], text[:-1] + "," + more + "}"]), body)


def broken_json(rng: random.Random, data: bytes) -> bytes:
    header, body = split(data)
    text = json.dumps(header, separators=(",", ":"))
    at = rng.choice([i for i, letter in enumerate(text) if letter in '{}[]:"'])
    return joined(rng.choice([text[:at] + text[at + 1 :], text[:at], text[:at] + "\xff" + text[at + 1 :],
                              text + text[at], "[" + text + "]"]), body)  # fmt: skip


def without_field(rng: random.Random, data: bytes) -> bytes:
    header, body = split(data)
    name = rng.choice(tensors_of(header))
    field = rng.choice(["dtype", "shape", "data_offsets"])
    if rng.random() < 0.5:
        del header[name][field]
    else:
        header[name][field] = rng.choice([{}, "x", True, [[1]], {"a": 1}])
    return rebuilt(header, body)


IN_A_FILE: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    flipped, flipped, flipped, wrong_length, shifted_offsets, swapped_offsets, gap, malformed_offsets, cut, cut,
    extended, other_size, same_size, unknown_dtype, reshaped, resized, renamed, removed, unlisted, twice,
    broken_json, without_field,
)  # fmt: skip


# --- beside the weights -------------------------------------------------------------------------------------


def broken_index(rng: random.Random, folder: Path) -> None:
    text = (folder / INDEX).read_text(encoding="utf-8")
    index = json.loads(text)
    names, files = list(index["weight_map"]), sorted(set(index["weight_map"].values()))
    name = rng.choice(names)
    way = rng.randrange(7)
    if way == 0:
        (folder / INDEX).write_text(text[: rng.randrange(1, len(text))], encoding="utf-8")
    elif way == 1:
        put_json(folder / INDEX, rng.choice([None, [], {}, {"weight_map": []}, {"weight_map": {name: 3}}, 5, "x"]))
    elif way == 6:
        (folder / rng.choice(files)).unlink()
    else:
        other = [f for f in files if f != index["weight_map"][name]]
        if way == 2:
            index["weight_map"][name] = rng.choice(other)
        elif way == 3:
            index["weight_map"][name] = f"model-{rng.randrange(10**5):05d}.safetensors"
        elif way == 4:
            del index["weight_map"][name]
        else:
            index["weight_map"][name + "." + str(rng.randrange(100))] = rng.choice(files)
        put_json(folder / INDEX, index)


def broken_config(rng: random.Random, folder: Path) -> None:
    path = folder / "config.json"
    text = path.read_text(encoding="utf-8")
    config = json.loads(text)
    way = rng.randrange(4)
    if way == 0:
        path.write_text(text[: rng.randrange(len(text))], encoding="utf-8")
    elif way == 1:
        path.write_text(rng.choice(["null", "[]", "7", '"x"', ""]), encoding="utf-8")
    elif way == 2:
        path.unlink()
    else:
        key = rng.choice(["hidden_size", "vocab_size", "num_attention_heads", "rms_norm_eps", "num_hidden_layers"])
        put_json(path, config | {key: config[key] + rng.randint(1, 500)})


def damages(seed: int, folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Endless (name of the kind, function that does it) for a checkpoint with an index."""
    rng = random.Random(seed)
    files = sorted(folder.glob("*.safetensors"))
    while True:
        for kind in (*IN_A_FILE, broken_index, broken_index, broken_config):
            if kind in IN_A_FILE:
                file = rng.choice(files)
                yield kind.__name__, lambda kind=kind, file=file: file.write_bytes(kind(rng, file.read_bytes()))
            else:
                yield kind.__name__, lambda kind=kind: kind(rng, folder)
