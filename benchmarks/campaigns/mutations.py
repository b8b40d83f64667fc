"""Ways to spoil a file: bytes, words of a text, and the structure of an HDF5 file."""

import h5py
import numpy as np

HOSTILE_WORDS = (
    "${oc.env:HOME}", "&a [1]", "*a", "!!python/object/apply:os.mkdir [ran]", "\x1b[2J", "\u202e", "null",
    "~", "-1", "1e400", "nan", ".inf", "9" * 5000, "{}", "[]", "[" * 2000, '"', "\n", "\x00", "true",
    "../../etc/passwd",
    "$\\frac", "{" * 500, "0.670-0.636", "1_000", "٣", ",", ":", "#", "???", "1e18", "-0", "[[1,2],[3]]",
)  # fmt: skip


def flip(data, rnd):
    """One bit."""
    at = rnd.randrange(len(data))
    data[at] ^= 1 << rnd.randrange(8)


def scatter(data, rnd):
    """Up to sixteen random bytes."""
    for _ in range(rnd.randrange(1, 17)):
        data[rnd.randrange(len(data))] = rnd.randrange(256)


def cut(data, rnd):
    """The end is missing."""
    del data[rnd.randrange(len(data)) :]


def zeros(data, rnd):
    """A run of zeros, as a page that never reached the disk."""
    at, length = rnd.randrange(len(data)), rnd.choice((1, 8, 64, 512, 4096))
    data[at : at + length] = bytes(len(data[at : at + length]))


def ones(data, rnd):
    """Eight bytes of ones: a size or an address that is absurd."""
    at = rnd.randrange(len(data)) & ~7
    data[at : at + 8] = b"\xff" * len(data[at : at + 8])


def number(data, rnd):
    """A field of four or eight bytes with another number in it."""
    at, size = rnd.randrange(len(data)) & ~3, rnd.choice((4, 8))
    value = rnd.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, len(data), len(data) + 1, rnd.randrange(2**32)))
    data[at : at + size] = value.to_bytes(size, "little")[: len(data[at : at + size])]


def double(data, rnd):
    """A span twice."""
    at = rnd.randrange(len(data))
    data[at:at] = data[at : at + rnd.randrange(1, 512)]


def drop(data, rnd):
    """A span is missing."""
    at = rnd.randrange(len(data))
    del data[at : at + rnd.randrange(1, 512)]


def splice(data, rnd):
    """A span over another, as a block of the disk in the wrong place."""
    size = rnd.choice((8, 64, 512))
    a, b = rnd.randrange(len(data)), rnd.randrange(len(data))
    data[b : b + size] = data[a : a + size][: len(data[b : b + size])]


def tail(data, rnd):
    """Something behind the end."""
    data += rnd.randbytes(rnd.randrange(1, 300))


def word(data, rnd):
    """A word of a text, between two separators, is another."""
    borders = [i for i, byte in enumerate(data) if byte in b' ,:\n"[]']
    if len(borders) < 2:
        return flip(data, rnd)
    i = rnd.randrange(len(borders) - 1)
    new = rnd.choice((*HOSTILE_WORDS, str(rnd.randrange(10)))).encode()
    data[borders[i] + 1 : borders[i + 1]] = new
    return None


BYTES = (flip, flip, scatter, cut, zeros, ones, number, double, drop, splice, tail)
TEXT = (*BYTES, word, word, word, word, word, word)


def structure(path, rnd):
    """Changes something in an HDF5 file that a program may change, and nobody should believe."""
    with h5py.File(path, "r+") as file:
        nodes = ["/", *_all(file)]
        arrays = [name for name in nodes if isinstance(file[name], h5py.Dataset)]
        groups = [name for name in nodes if isinstance(file[name], h5py.Group)]
        if not arrays:  # an earlier change of this file has taken the last away
            return
        act = rnd.choice(
            (_attribute, _attribute, _attribute, _attribute_gone, _values, _values, _dtype, _shape, _link,
             _link, _stored_elsewhere, _sparse, _gone, _moved, _packed, _group_instead)
        )  # fmt: skip
        return act(file, rnd, arrays, groups)


def _all(file):
    names = []
    file.visit(names.append)
    return names


def _replace(file, name, **made):
    attributes = dict(file[name].attrs)
    del file[name]
    file.create_dataset(name, **made).attrs.update(attributes)


ODD = (
    np.nan, np.inf, -1, 0, 2**63 - 1, 10.7, "False", "", "1", "\x1b[1A  fits  yes\n", "x" * 60000, True,
    np.bytes_(b"lift"), np.zeros(3), np.array([1, 0]), np.array([], float), h5py.Empty("f8"), 1j,
    np.float16(3), np.uint8(200), np.datetime64(5, "s").astype("i8"), np.array(["a", "b"], dtype="S1"),
)  # fmt: skip


def _attribute(file, rnd, arrays, groups):
    name = rnd.choice(groups)
    if keys := list(file[name].attrs):
        file[name].attrs[rnd.choice(keys)] = rnd.choice(ODD)


def _attribute_gone(file, rnd, arrays, groups):
    name = rnd.choice(groups)
    if keys := list(file[name].attrs):
        del file[name].attrs[rnd.choice(keys)]


def _values(file, rnd, arrays, groups):
    array = file[rnd.choice(arrays)]
    if array.size:
        content = array[()].reshape(-1)
        content[rnd.randrange(array.size)] = rnd.choice((0, 1, -1, 0.5, 100, 1e30, np.nan, np.inf))
        array[...] = content.reshape(array.shape)


def _dtype(file, rnd, arrays, groups):
    name = rnd.choice(arrays)
    content = file[name][()]
    kind = rnd.choice(("f2", ">f8", "i1", "u8", "c16", "S8", "bool", "compound", "vlen", "reference", "f4"))
    if kind == "compound":
        data = np.zeros(content.shape, [("a", "f8"), ("b", "f4")])
    elif kind in ("vlen", "reference"):
        dtype = h5py.vlen_dtype(np.float64) if kind == "vlen" else h5py.ref_dtype
        return _replace(file, name, shape=content.shape, dtype=dtype)
    else:
        with np.errstate(all="ignore"):
            data = content.astype(kind)
    return _replace(file, name, data=data)


def _shape(file, rnd, arrays, groups):
    name = rnd.choice(arrays)
    content = file[name][()]
    made = (
        content[..., None], content[:0], content[:1], content[:-1], np.concatenate([content, content]),
        content.reshape(-1), np.float64(3), np.zeros((1,) * 20),
    )  # fmt: skip
    _replace(file, name, data=rnd.choice(made))


def _link(file, rnd, arrays, groups):
    name = rnd.choice(arrays + [g for g in groups if g != "/"])
    other = rnd.choice(arrays + groups)
    link = rnd.choice((
        h5py.SoftLink(f"/{other}"), h5py.SoftLink(f"/{name}"), h5py.SoftLink("/nowhere"),
        h5py.ExternalLink("/etc/passwd", "/x"), h5py.ExternalLink(file.filename, other), file[other],
    ))  # fmt: skip
    del file[name]
    file[name] = link


def _stored_elsewhere(file, rnd, arrays, groups):
    name = rnd.choice(arrays)
    old = file[name]
    shape, dtype = old.shape, old.dtype
    if rnd.random() < 0.5 and old.nbytes:
        where = rnd.choice(("/etc/passwd", file.filename, "/dev/zero", "/nowhere"))
        return _replace(file, name, shape=shape, dtype=dtype, external=[(where, 0, old.nbytes)])
    layout = h5py.VirtualLayout(shape, dtype)
    if old.size and shape:
        layout[...] = h5py.VirtualSource(file.filename, rnd.choice(arrays), shape=shape)
    del file[name]
    file.create_virtual_dataset(name, layout)
    return None


def _sparse(file, rnd, arrays, groups):
    name = rnd.choice(arrays)
    rows = rnd.choice((10**4, 10**7, 10**12, 2**60))
    shape = (rows, *file[name].shape[1:])
    try:
        _replace(
            file, name, shape=shape, dtype="f8", chunks=(1024, *shape[1:]), compression=rnd.choice((None, 1))
        )
    except (ValueError, OverflowError):  # larger than HDF5 itself takes
        file.create_dataset(name, shape=(10**12,), dtype="f8", chunks=(1024,))


def _gone(file, rnd, arrays, groups):
    del file[rnd.choice(arrays + [g for g in groups if g != "/"])]


def _moved(file, rnd, arrays, groups):
    name = rnd.choice(arrays + [g for g in groups if g != "/"])
    parent, _, leaf = name.rpartition("/")
    new = rnd.choice(("demo_" + "7" * 5000, "demo_01", "demo_٣", "demo_x", "a", leaf + "0", "demo_7\x1b[2J"))
    file.move(name, f"{parent}/{new}")


def _packed(file, rnd, arrays, groups):
    name = rnd.choice([n for n in arrays if file[n].shape])
    content = file[name][()]
    packing = rnd.choice(("gzip", "lzf", "szip"))
    try:
        _replace(file, name, data=content, compression=packing, shuffle=rnd.random() < 0.5)
    except ValueError:  # szip is not everywhere
        file[name] = content


def _group_instead(file, rnd, arrays, groups):
    name = rnd.choice(arrays)
    del file[name]
    file.create_group(name)


def unseal(path):
    """The same file without its checksums, as one of another tool."""
    with h5py.File(path, "r+") as file:
        for name in _all(file):
            file[name].attrs.pop("sha256", None)
