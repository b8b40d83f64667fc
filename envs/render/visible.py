"""What each sample of an image sees: a depth buffer, filled geom by geom. Compiled by numba.

A sample is a ray d = (column, row, 1) in "pixel space": one 3x3 matrix per geom takes points of its frame,
relative to the camera, there, and another takes rays back. Depth is kept as w = 1 / z, linear on a face. Flat
faces and faces that cross the camera's plane are where some linear functions of the sample are positive, so
nothing is ever clipped; round geoms are met ray by ray. A mesh's clusters are left out where they hold no
sample, or where only nearer things are there already: of 150,000 faces some 10,000 are looked at.

Equally near faces, within a millionth, go to the geom with the higher index, as in MuJoCo's renderers.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from caliper.envs.render.clusters import draw_mesh
from caliper.envs.render.geometry import BOX, CAPSULE, CYLINDER, MESH, PLANE, SLOT_BITS, SPHERE
from caliper.envs.render.samples import (
    BEYOND,
    EVERYTHING,
    FAR,
    ONE,
    OPTIONS,
    STILL,
    TIE,
    ZERO,
    F,
    bounds,
    fill,
    within,
)


@njit(**OPTIONS)
def reach(lens, right, bottom):
    """The largest norm of the planes through the camera and the image's sides, in pixel space."""
    x, y = max(lens[2], right - lens[2]), max(lens[3], bottom - lens[3])
    return np.sqrt(max(lens[0] * lens[0] + x * x, lens[1] * lens[1] + y * y))


@njit(**OPTIONS)
def place(t, k, positions, rotations, camera, axes, lens, right, bottom):
    """Sets every slot's matrices and bounds for a camera."""
    into, pixel = np.empty((3, 3), F), np.empty((3, 3), F)
    for i in range(3):  # world to pixel space, and pixel to world
        x, y, z = axes[i, 0], -axes[i, 1], -axes[i, 2]
        into[0, i], into[1, i], into[2, i] = lens[0] * x + lens[2] * z, lens[1] * y + lens[3] * z, z
        pixel[0, i], pixel[1, i] = x / lens[0], y / lens[1]
        pixel[2, i] = z - lens[2] * pixel[0, i] - lens[3] * pixel[1, i]
    for g in range(t.geom.shape[0]):
        position, rotation = positions[t.geom[g]], rotations[t.geom[g]]
        x, y, z = camera[0] - position[0], camera[1] - position[1], camera[2] - position[2]
        m, ray, o = k.into[g], k.ray[g], k.origin[g]
        for j in range(3):
            rx, ry, rz = rotation[0, j], rotation[1, j], rotation[2, j]
            o[j] = rx * x + ry * y + rz * z
            for i in range(3):
                m[i, j] = into[i, 0] * rx + into[i, 1] * ry + into[i, 2] * rz
                ray[i, j] = pixel[i, 0] * rx + pixel[i, 1] * ry + pixel[i, 2] * rz
        x, y, z = t.ball[g, 0] - o[0], t.ball[g, 1] - o[1], t.ball[g, 2] - o[2]
        px, py = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z, m[1, 0] * x + m[1, 1] * y + m[1, 2] * z
        pz = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z
        x0, x1, y0, y1, w = bounds(px, py, pz, t.ball[g, 3], lens, right, bottom)
        b = k.bounds[g]
        b[0], b[1], b[2], b[3], b[4] = x0, x1, y0, y1, w


@njit(**OPTIONS)
def _flat(t, k, g, width):
    """Draws a plane from above, or a box's faces that look at the camera: from inside, all."""
    kind, size, o, ray, lines = t.kind[g], t.size[g], k.origin[g], k.ray[g], k.lines
    inside = kind == BOX and abs(o[0]) <= size[0] and abs(o[1]) <= size[1] and abs(o[2]) <= size[2]
    for face in range(5 if kind == PLANE else 0, 6):
        i, side = face >> 1, ONE if face & 1 else -ONE
        reach = ZERO if kind == PLANE else size[i]
        d = side * reach - o[i]
        if d == ZERO or (side * o[i] <= reach and not inside):
            continue
        d = ONE / d
        wx, wy, wz = ray[0, i] * d, ray[1, i] * d, ray[2, i] * d
        count = 0
        for along in range(1, 3):  # within the face's half size s: s >= h >= -s, times w
            j = (i + along) % 3
            if kind == PLANE and size[j] <= ZERO:
                continue
            for sign in (-ONE, ONE):
                reach = size[j] + sign * o[j]
                lines[count, 0] = reach * wx + sign * ray[0, j]
                lines[count, 1] = reach * wy + sign * ray[1, j]
                lines[count, 2] = reach * wz + sign * ray[2, j]
                count += 1
        name, b = (g << SLOT_BITS) | face, k.bounds
        fill(k.depth, k.names, lines, count, wx, wy, wz, name, b[g, 0], b[g, 1], b[g, 2], b[g, 3], width)


@njit(inline="always", **OPTIONS)
def _roots(a, b, c):
    """The two solutions of a x^2 + 2 b x + c = 0, or -1 and -1."""
    inside = b * b - a * c
    root = np.sqrt(max(inside, ZERO))
    return (-ONE, -ONE) if inside <= ZERO else ((-b - root) / a, (-b + root) / a)


@njit(**OPTIONS)
def _meet(kind, size, ox, oy, oz, u, v, z):
    """Where a ray first meets a round geom, as t and the part met: 0 round, 1 lower end, 2 upper end."""
    if kind in (CYLINDER, CAPSULE):
        r, h, t, part = size[0], size[1], FAR, 0
        low, high = _roots(u * u + v * v, u * ox + v * oy, ox * ox + oy * oy - r * r)
        round_ = low if low >= ZERO else high
        if round_ >= ZERO and abs(oz + round_ * z) <= h:
            t = round_
        for end in range(1, 3):
            top = h if end == 2 else -h
            if kind == CYLINDER:
                x = (top - oz) / z if z != ZERO else -ONE
                hx, hy = ox + x * u, oy + x * v
                if x >= ZERO and x < t and hx * hx + hy * hy <= r * r:
                    t, part = x, end
            else:
                oe = oz - top
                low, high = _roots(
                    u * u + v * v + z * z, u * ox + v * oy + z * oe, ox * ox + oy * oy + oe * oe - r * r
                )
                for x in (low, high):
                    beyond = oe + x * z if end == 2 else -oe - x * z
                    if x >= ZERO and x < t and beyond >= ZERO:
                        t, part = x, end
        return (t, part) if t < FAR else (-ONE, 0)
    rx, ry, rz = ONE / size[0], ONE / size[1], ONE / size[2]
    if kind == SPHERE:
        ry = rz = rx
    ox, oy, oz, u, v, z = ox * rx, oy * ry, oz * rz, u * rx, v * ry, z * rz
    low, high = _roots(u * u + v * v + z * z, u * ox + v * oy + z * oz, ox * ox + oy * oy + oz * oz - ONE)
    return (low if low >= ZERO else high), 0


@njit(**OPTIONS)
def _columns(o, q, r, y, left, right):
    """The columns of a row whose rays may meet an endless cylinder: none if left > right.

    They do where a quadratic function of the column, the discriminant of their two meetings, is positive.
    """
    u0, v0 = q[1, 0] * y + q[2, 0], q[1, 1] * y + q[2, 1]
    away, b0, b1 = o[0] * o[0] + o[1] * o[1] - r * r, u0 * o[0] + v0 * o[1], q[0, 0] * o[0] + q[0, 1] * o[1]
    c2 = b1 * b1 - (q[0, 0] * q[0, 0] + q[0, 1] * q[0, 1]) * away
    c1 = b0 * b1 - (q[0, 0] * u0 + q[0, 1] * v0) * away
    c0 = b0 * b0 - (u0 * u0 + v0 * v0) * away
    if away <= ZERO or c2 >= ZERO:
        return left, right
    inside = c1 * c1 - c2 * c0
    if inside < ZERO:
        return ONE, ZERO
    root = np.sqrt(inside)
    return max(left, (-c1 + root) / c2 - ONE), min(right, (-c1 - root) / c2 + ONE)  # may be far outside


@njit(**OPTIONS)
def _round(t, k, g, width):
    """Draws a sphere, capsule, ellipsoid or cylinder."""
    o, q, b = k.origin[g], k.ray[g], k.bounds[g]
    long = t.kind[g] == CYLINDER or t.kind[g] == CAPSULE
    top, low = within(b[2], b[3], k.depth.shape[0] // width)
    for row in range(top, low):
        left, right = b[0], b[1]
        if long:
            left, right = _columns(o, q, t.size[g, 0], F(row), left, right)
        first, last = within(left, right, width)
        for column in range(first, last):
            x, y, at = F(column), F(row), row * width + column
            u, v = q[0, 0] * x + q[1, 0] * y + q[2, 0], q[0, 1] * x + q[1, 1] * y + q[2, 1]
            z = q[0, 2] * x + q[1, 2] * y + q[2, 2]
            s, part = _meet(t.kind[g], t.size[g], o[0], o[1], o[2], u, v, z)
            if s <= ZERO:
                continue
            w, old, name = ONE / s, k.depth[at], (g << SLOT_BITS) | part
            if w > old * BEYOND or (w > old * TIE and name > k.names[at]):
                k.depth[at], k.names[at] = w, name


@njit(**OPTIONS)
def see(t, k, which, lens, width, height):
    """Draws the slots over what `k.depth` and `k.names` hold: all, or those that are still, or that move."""
    right, bottom, meshes = F(width - 1), F(height - 1), 0
    for g in range(t.geom.shape[0]):
        b = k.bounds[g]
        if b[0] > b[1] or b[2] > b[3] or (which != EVERYTHING and t.still[g] != (which == STILL)):
            continue
        if t.kind[g] == MESH:
            i = meshes
            while i > 0 and k.bounds[k.order[i - 1], 4] < b[4]:
                k.order[i], i = k.order[i - 1], i - 1
            k.order[i], meshes = g, meshes + 1
        elif t.kind[g] == PLANE or t.kind[g] == BOX:
            _flat(t, k, g, width)
        else:
            _round(t, k, g, width)
    for i in range(meshes):
        draw_mesh(t, k, k.order[i], lens, right, bottom, width)
