"""The colour of what each sample sees, by MuJoCo Warp's formula. Compiled by numba.

A surface's colour, times its texture sampled bilinearly, times the sum of its lights: ambient, the headlight,
and the lamps (directional, spot and point), all diffuse. What faces away is lit as if it faced the camera.
There are no shadows, highlights or reflections.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from caliper.envs.render.geometry import (
    BOX,
    CAPSULE,
    CLUSTERS,
    CYLINDER,
    FACES,
    MESH,
    PLANE,
    SLOT_BITS,
    SPHERE,
)
from caliper.envs.render.samples import HALF, ONE, OPTIONS, TWO, ZERO, F


class View(NamedTuple):
    """What one image's env and camera look like; float32, g geoms, l lights."""

    positions: NDArray[Any]  # (g, 3)
    rotations: NDArray[Any]  # (g, 3, 3)
    axes: NDArray[Any]  # (3, 3) the camera's right, up and backwards, in columns
    light: NDArray[Any]  # (2, l, 3) where the lamps are, and where they shine
    colour: NDArray[Any]  # (g, 3)
    lamps: NDArray[Any]  # (l, 3) their diffuse light


FACE_OF = (1 << SLOT_BITS) - 1
SPOT, DIRECTIONAL, OFF = 0, 1, -1
TURN, BYTE = F(0.5 / np.pi), F(1 / 255)  # of a circle, per radian; of a texel's range


@njit(inline="always", **OPTIONS)
def _texel(texels, first, w, h, u, v):
    """A texture at (u, v), which repeats every 1, in [0, 255]; flat beyond the outer texels' centres."""
    x = min(max((u - np.floor(u)) * F(w) - HALF, ZERO), F(w - 1))
    y = min(max((v - np.floor(v)) * F(h) - HALF, ZERO), F(h - 1))
    x0, y0 = min(max(np.int32(x), 0), w - 1), min(max(np.int32(y), 0), h - 1)  # u and v may be no numbers
    fx, fy = x - F(x0), y - F(y0)
    right, down = np.int32(x0 + 1 < w), (w if y0 + 1 < h else np.int32(0))
    at = first + y0 * w + x0
    # Unsigned: numba would ask of every other index whether it counts from the end.
    a, b = texels[np.uint32(at)], texels[np.uint32(at + right)]
    c, d = texels[np.uint32(at + down)], texels[np.uint32(at + down + right)]
    p, q, r, s = (ONE - fx) * (ONE - fy), fx * (ONE - fy), (ONE - fx) * fy, fx * fy
    return (
        p * F(a & 255) + q * F(b & 255) + r * F(c & 255) + s * F(d & 255),
        p * F((a >> 8) & 255) + q * F((b >> 8) & 255) + r * F((c >> 8) & 255) + s * F((d >> 8) & 255),
        p * F((a >> 16) & 255) + q * F((b >> 16) & 255) + r * F((c >> 16) & 255) + s * F((d >> 16) & 255),
    )


@njit(**OPTIONS)
def _wrapped(kind, size, part, x, y, z):
    """Texture coordinates of a point of a round geom, in its frame, before they are repeated."""
    if kind == CYLINDER and part > 0:
        return HALF + HALF * x / size[0], HALF + HALF * y / size[0]
    if kind in (CYLINDER, CAPSULE):
        turn, h = np.arctan2(y, x) * TURN, size[1]
        beyond = F(2 / np.pi) * np.arcsin(min(max((abs(z) - h) / size[0], ZERO), ONE))
        v = ONE - beyond if z > h else (beyond if z < -h else (h - z) / (TWO * h))
    else:
        x, y, z = x / size[0], y / size[0 if kind == SPHERE else 1], z / size[0 if kind == SPHERE else 2]
        turn = np.arctan2(y, x) * TURN
        up = min(max(z / np.sqrt(x * x + y * y + z * z), -ONE), ONE)
        v = HALF - np.arcsin(up) * F(1 / np.pi)
    return (turn if turn >= ZERO else turn + ONE), v


@njit(**OPTIONS)
def _upright(kind, size, part, x, y, z):
    """Outward normal, of any length, at a point of a round geom, in its frame."""
    if kind == CYLINDER:
        return (x, y, ZERO) if part == 0 else (ZERO, ZERO, ONE if part == 2 else -ONE)
    if kind == CAPSULE:
        return x, y, (ZERO if part == 0 else (z - size[1] if part == 2 else z + size[1]))
    if kind == SPHERE:
        return x, y, z
    return x / (size[0] * size[0]), y / (size[1] * size[1]), z / (size[2] * size[2])


@njit(inline="always", **OPTIONS)
def _lit(t, view, nx, ny, nz, hx, hy, hz):
    """The light, (r, g, b), that falls on a point h of the env with a normal n."""
    axes, colours, light, glow, fade = view.axes, view.lamps, view.light, t.glow, t.light_fade
    lit = max(
        ZERO, nx * axes[0, 2] + ny * axes[1, 2] + nz * axes[2, 2]
    )  # the headlight shines from everywhere
    r, g, b = glow[0, 0] + lit * glow[1, 0], glow[0, 1] + lit * glow[1, 1], glow[0, 2] + lit * glow[1, 2]
    for i in range(t.light_kind.shape[0]):
        kind = t.light_kind[i]
        if kind == OFF:
            continue
        x, y, z = -light[1, i, 0], -light[1, i, 1], -light[1, i, 2]
        strength = ONE
        if kind != DIRECTIONAL:
            x, y, z = light[0, i, 0] - hx, light[0, i, 1] - hy, light[0, i, 2] - hz
            far = np.sqrt(x * x + y * y + z * z)
            x, y, z = x / far, y / far, z / far
            strength = ONE / (fade[i, 0] + far * (fade[i, 1] + far * fade[i, 2]))
            if kind == SPOT:
                along = -(x * light[1, i, 0] + y * light[1, i, 1] + z * light[1, i, 2])
                if along < fade[i, 3]:
                    continue
                strength *= max(along, ZERO) ** fade[i, 4]
        lit = strength * max(ZERO, nx * x + ny * y + nz * z)
        r, g, b = r + lit * colours[i, 0], g + lit * colours[i, 1], b + lit * colours[i, 2]
    return r, g, b


@njit(inline="always", **OPTIONS)
def _mesh_point(faces, n, hx, hy, hz, dx, dy, dz):
    """Normal and texture coordinates where a ray d meets face n of a mesh at h, in the geom's frame."""
    ax, ay, az = faces[n, 0] - hx, faces[n, 1] - hy, faces[n, 2] - hz
    bx, by, bz = faces[n, 3] - hx, faces[n, 4] - hy, faces[n, 5] - hz
    cx, cy, cz = faces[n, 6] - hx, faces[n, 7] - hy, faces[n, 8] - hz
    i = dx * (by * cz - bz * cy) + dy * (bz * cx - bx * cz) + dz * (bx * cy - by * cx)
    j = dx * (cy * az - cz * ay) + dy * (cz * ax - cx * az) + dz * (cx * ay - cy * ax)
    k = dx * (ay * bz - az * by) + dy * (az * bx - ax * bz) + dz * (ax * by - ay * bx)
    scale = ONE / (i + j + k)
    i, j, k = i * scale, j * scale, k * scale
    return (
        i * faces[n, 9] + j * faces[n, 12] + k * faces[n, 15],
        i * faces[n, 10] + j * faces[n, 13] + k * faces[n, 16],
        i * faces[n, 11] + j * faces[n, 14] + k * faces[n, 17],
        i * faces[n, 18] + j * faces[n, 20] + k * faces[n, 22],
        i * faces[n, 19] + j * faces[n, 21] + k * faces[n, 23],
    )


@njit(inline="always", **OPTIONS)
def _colour(t, view, g, x, y, z, hx, hy, hz, dx, dy, dz):
    """Colour times light at a point h of a geom met by a ray d, with a normal of any length, in its frame."""
    scale = (-ONE if x * dx + y * dy + z * dz > ZERO else ONE) / np.sqrt(x * x + y * y + z * z)
    x, y, z = x * scale, y * scale, z * scale
    n, r, p, colour = t.geom[g], view.rotations, view.positions, view.colour
    nx, ny = (
        r[n, 0, 0] * x + r[n, 0, 1] * y + r[n, 0, 2] * z,
        r[n, 1, 0] * x + r[n, 1, 1] * y + r[n, 1, 2] * z,
    )
    nz = r[n, 2, 0] * x + r[n, 2, 1] * y + r[n, 2, 2] * z
    wx = p[n, 0] + r[n, 0, 0] * hx + r[n, 0, 1] * hy + r[n, 0, 2] * hz
    wy = p[n, 1] + r[n, 1, 0] * hx + r[n, 1, 1] * hy + r[n, 1, 2] * hz
    wz = p[n, 2] + r[n, 2, 0] * hx + r[n, 2, 1] * hy + r[n, 2, 2] * hz
    red, green, blue = _lit(t, view, nx, ny, nz, wx, wy, wz)
    return red * colour[n, 0], green * colour[n, 1], blue * colour[n, 2]


@njit(**OPTIONS)
def _paint(texels, at, w, h, u0, u1, v0, v1, r, g, b, depth, start, out, first, count, samples):
    """Textures a run of a row that sees one flat face, on which u and v are linear over depth."""
    near = depth[start + first : start + first + count]
    reds, greens = out[first : first + count], out[samples + first : samples + first + count]
    blues = out[2 * samples + first : 2 * samples + first + count]
    r, g, b = r * BYTE, g * BYTE, b * BYTE
    for n in range(count):
        far, x = ONE / near[n], F(first + n)
        tr, tg, tb = _texel(texels, at, w, h, u0 + far * (u1[0] + u1[1] * x), v0 + far * (v1[0] + v1[1] * x))
        reds[n], greens[n], blues[n] = min(tr * r, ONE), min(tg * g, ONE), min(tb * b, ONE)


@njit(inline="always", **OPTIONS)
def _shade_row(t, k, view, row, samples, out):
    """Colours a row of samples, (3 * samples,), in runs that see one face; `k.kept` are left out."""
    column, y, kept, depth, start = 0, F(row), k.kept, k.depth, row * samples
    while column < samples:
        if kept[column]:
            column += 1
            continue
        name, first = k.names[start + column], column
        column += 1
        while column < samples and k.names[start + column] == name and not kept[column]:
            column += 1
        if name < 0:
            for c in range(3):
                for i in range(first, column):
                    out[c * samples + i] = ZERO
            continue
        g, part = name >> SLOT_BITS, name & FACE_OF
        kind, tex, wear, o, q = t.kind[g], t.texture, t.wear, k.origin, k.ray
        textured, flat = tex[g, 0] >= 0, kind in (BOX, PLANE) and not t.near_lights
        ox, oy, oz = o[g, 0], o[g, 1], o[g, 2]
        qx, qy, qz = q[g, 0, 0], q[g, 0, 1], q[g, 0, 2]
        cx, cy, cz = q[g, 1, 0] * y + q[g, 2, 0], q[g, 1, 1] * y + q[g, 2, 1], q[g, 1, 2] * y + q[g, 2, 2]
        for i in range(first, first + 1 if flat else column):
            fx, far = F(i), ONE / depth[start + i]
            dx, dy, dz = qx * fx + cx, qy * fx + cy, qz * fx + cz
            hx, hy, hz = ox + far * dx, oy + far * dy, oz + far * dz
            u, v, worn = ZERO, ZERO, part
            if kind == MESH:
                face = t.groups[g, 0] * (CLUSTERS * FACES) + part
                nx, ny, nz, u, v = _mesh_point(t.faces, face, hx, hy, hz, dx, dy, dz)
            elif kind in (BOX, PLANE):
                side = ONE if part & 1 else -ONE
                nx, ny, nz = side * F(part < 2), side * F(part >> 1 == 1), side * F(part > 3)
                worn = part ^ 1 if nx * dx + ny * dy + nz * dz > ZERO else part  # inside a box, as the other
                u = wear[g, worn, 1] + wear[g, worn, 0] * (hy if part < 2 else hx)
                v = wear[g, worn, 3] + wear[g, worn, 2] * (hy if part > 3 else hz)
            else:
                nx, ny, nz = _upright(kind, t.size[g], part, hx, hy, hz)
                if textured:
                    u, v = _wrapped(kind, t.size[g], part, hx, hy, hz)
                    u, v = u * wear[g, 0, 0], v * wear[g, 0, 2]
            r, green, b = _colour(t, view, g, nx, ny, nz, hx, hy, hz, dx, dy, dz)
            if textured and not flat:
                tr, tg, tb = _texel(t.texels, tex[g, 0], tex[g, 1], tex[g, 2], u, v)
                r, green, b = r * tr * BYTE, green * tg * BYTE, b * tb * BYTE
            if not (textured and flat):
                last = column if flat else i + 1
                for j in range(i, last):
                    out[j], out[samples + j], out[2 * samples + j] = min(r, ONE), min(green, ONE), min(b, ONE)
        if textured and flat:
            du, dv = wear[g, worn, 0], wear[g, worn, 2]
            u1 = (du * cy, du * qy) if part < 2 else (du * cx, du * qx)
            v1 = (dv * cy, dv * qy) if part > 3 else (dv * cz, dv * qz)
            u0 = wear[g, worn, 1] + du * (oy if part < 2 else ox)
            v0 = wear[g, worn, 3] + dv * (oy if part > 3 else oz)
            _paint(
                t.texels, tex[g, 0], tex[g, 1], tex[g, 2], u0, u1, v0, v1, r, green, b, depth, start, out,
                first, column - first, samples,
            )  # fmt: skip


@njit(**OPTIONS)
def _keep(kept, names, old_names, py, samples, antialias):
    """Clears `kept` where a row of pixels sees something new; whether it sees nothing new."""
    for row in range(py * antialias, (py + 1) * antialias):
        now, old = names[row * samples : (row + 1) * samples], old_names[row * samples : (row + 1) * samples]
        for i in range(samples):
            kept[i] &= now[i] == old[i]
    all_kept = True
    for i in range(0, samples, antialias):
        same = True
        for j in range(i, i + antialias):
            same &= kept[j]
        for j in range(i, i + antialias):
            kept[j] = same
        all_kept &= same
    return all_kept


@njit(**OPTIONS)
def shade(t, k, view, antialias, old_names, old_rgb, out):
    """Colours an image, uint8 (3, h, w), from what its samples see.

    Where they all see what `old_names` says, it is copied from `old_rgb`; nowhere without, of shape (0,).
    """
    h, w = out.shape[1], out.shape[2]
    samples, share, reuse = w * antialias, F(255) / F(antialias * antialias), old_names.shape[0] > 0
    colours, sums, kept, names = k.colours, k.sums, k.kept, k.names
    for py in range(h):
        kept[:] = reuse
        if reuse and _keep(kept, names, old_names, py, samples, antialias):
            for c in range(3):
                out[c, py, :] = old_rgb[c, py]
            continue
        sums[:] = ZERO
        for row in range(py * antialias, (py + 1) * antialias):
            _shade_row(t, k, view, row, samples, colours)
            for c in range(3):
                for i in range(w):
                    for j in range(i * antialias, (i + 1) * antialias):
                        sums[c * w + i] += colours[c * samples + j]
        for c in range(3):
            for i in range(w):
                new = np.uint8(np.int32(sums[c * w + i] * share))
                out[c, py, i] = old_rgb[c, py, i] if kept[i * antialias] else new
