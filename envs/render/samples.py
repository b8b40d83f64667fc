"""What the rasteriser's loops share: its options, a thread's memory, what to draw next, and filling in spans.

Two habits of the compiled code, for speed. Loops that are to become SIMD instructions run from 0 over slices,
for numba asks of any other index whether it counts from the end. And what is called per face or sample gets
the few arrays it needs, for a call with a tuple of arrays passes every one of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from caliper.envs.render.geometry import CLUSTERS, FACES, Tables

F = np.float32
# Nothing that lets LLVM round otherwise: of a loop's two forms the addresses of its arrays may choose one.
OPTIONS: Any = {"nogil": True, "error_model": "numpy", "fastmath": {"nsz", "nnan"}}
EVERYTHING, STILL, MOVING = 0, 1, 2  # which slots to draw
NEAR, FAR = F(1e-4), F(1e30)  # metres in front of the camera; more than any w
ZERO, ONE, HALF, TWO = F(0), F(1), F(0.5), F(2)
TIE, BEYOND = F(1 - 1e-6), F(1 + 1e-6)
EDGE = F(1e-6)  # of a face's side, by which it is wider so that no sample falls between neighbours


class Scratch(NamedTuple):
    """One thread's memory, s slots, of the samples of one image; float32 and int32."""

    depth: NDArray[Any]  # (samples,) 1 / z
    names: NDArray[Any]  # (samples,) slot << SLOT_BITS | face; -1 for nothing
    into: NDArray[Any]  # (s, 3, 3) from the geom's frame to pixel space
    ray: NDArray[Any]  # (s, 3, 3) column j is the ray's coordinate j as a function of (column, row, 1)
    origin: NDArray[Any]  # (s, 3) the camera in the geom's frame
    bounds: NDArray[Any]  # (s, 5) columns and rows from, to; w of its nearest point
    order: NDArray[Any]  # (s,) meshes, nearest first
    clusters: NDArray[Any]  # (groups of one mesh * 6 * 16,) bounds of its clusters; whether they face away
    points: NDArray[Any]  # (10 * 64,) x y w of a cluster's corners in pixels; what to do with each face
    lines: NDArray[Any]  # (4, 3)
    corners: NDArray[Any]  # (3, 3)
    picks: NDArray[Any]  # (64,)
    colours: NDArray[Any]  # (3 * columns,) of a row of samples
    sums: NDArray[Any]  # (3 * w,) of a row of pixels
    kept: NDArray[Any]  # (columns,) bool, samples of a row whose pixels are not coloured anew


@njit(**OPTIONS)
def dressed(t, size, wear):  # type: ignore[no-untyped-def]  # numba infers the types
    """Tables with other sizes, and with textures that are worn as these ask."""
    return Tables(
        t.geom, t.kind, t.still, size, t.ball, t.texture, wear, t.groups, t.spheres, t.corners, t.faces,
        t.texels, t.light_kind, t.light_fade, t.glow, t.near_lights, t.horizon,
    )  # fmt: skip


@intrinsic
def take(context, counter):  # type: ignore[no-untyped-def]  # numba infers the types
    """Counts one up in an int64 array of one entry, and gives what it held: no two threads get the same."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        array = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.atomic_rmw("add", array.data, cgutils.intp_t(1), "monotonic")

    return types.int64(counter), generate


def scratch(tables: Tables, rows: int, columns: int, width: int) -> Scratch:
    """Memory for images of so many rows and columns of samples, and pixels across."""
    s, largest = len(tables.geom), int(tables.groups[:, 1].max(initial=0))
    f4, i4 = np.float32, np.int32
    return Scratch(
        depth=np.zeros(rows * columns, f4),
        names=np.zeros(rows * columns, i4),
        into=np.zeros((s, 3, 3), f4),
        ray=np.zeros((s, 3, 3), f4),
        origin=np.zeros((s, 3), f4),
        bounds=np.zeros((s, 5), f4),
        order=np.zeros(s, i4),
        clusters=np.zeros(largest * 6 * CLUSTERS, f4),
        points=np.zeros(10 * FACES, f4),
        lines=np.zeros((4, 3), f4),
        corners=np.zeros((3, 3), f4),
        picks=np.zeros(FACES, i4),
        colours=np.zeros(3 * columns, f4),
        sums=np.zeros(3 * width, f4),
        kept=np.zeros(columns, bool),
    )


@njit(inline="always", **OPTIONS)
def bounds(x, y, z, r, lens, right, bottom):
    """Columns and rows that a sphere around a point of pixel space may cover, and the w of its nearest point.

    Empty (from > to) outside the image, all of it with the camera's plane inside.
    """
    inside = z - r < NEAR
    out = z + r < NEAR or min(x, y) < -r * lens[4] or max(x - right * z, y - bottom * z) > r * lens[4]
    away = ONE if inside else (z - r) * (z + r)  # as a difference of squares it could round to 0
    kx, ky = x - lens[2] * z, y - lens[3] * z
    sx, sy = r * np.sqrt(kx * kx + lens[0] * lens[0] * away), r * np.sqrt(ky * ky + lens[1] * lens[1] * away)
    x0, x1 = lens[2] + (kx * z - sx) / away, lens[2] + (kx * z + sx) / away
    y0, y1 = lens[3] + (ky * z - sy) / away, lens[3] + (ky * z + sy) / away
    x0, x1 = ZERO if inside else max(x0, ZERO), right if inside else min(x1, right)
    y0, y1 = ZERO if inside else max(y0, ZERO), bottom if inside else min(y1, bottom)
    w = FAR if inside else ONE / (ONE if inside else z - r)
    return x0, -ONE if out else x1, y0, y1, w


@njit(inline="always", **OPTIONS)
def within(low, high, count):
    """The whole numbers in [low, high], as a range's start and end: from 0 to `count` whatever these are.

    Rows, columns and texels come from here alone: what overflowed on its way cannot leave an array.
    """
    first, last = np.int32(low), np.int32(high)
    return max(first + 1 if F(first) < low else first, 0), min(last + 1, count)


@njit(**OPTIONS)
def fill(depth, names, lines, count, wx, wy, wz, name, x0, x1, y0, y1, width):
    """Draws where the first `count` rows of `lines` are not negative, at w = wx column + wy row + wz."""
    top, low = within(y0, y1, depth.shape[0] // width)
    for row in range(top, low):
        y, left, right = F(row), x0, x1
        for i in range(count):
            slope, base = lines[i, 0], lines[i, 1] * y + lines[i, 2]
            if slope > ZERO:
                left = max(left, -base / slope)
            elif slope < ZERO:
                right = min(right, -base / slope)
            elif base < ZERO:
                right = -ONE
        if left > right:
            continue
        first, last = within(left, right, width)
        base = wy * y + wz + wx * F(first)
        near, seen = (
            depth[row * width + first : row * width + last],
            names[row * width + first : row * width + last],
        )
        for i in range(last - first):
            w, old = wx * F(i) + base, near[i]
            closer = (w > old * BEYOND) | ((w > old * TIE) & (name > seen[i]))
            near[i] = w if closer else old
            seen[i] = name if closer else seen[i]
