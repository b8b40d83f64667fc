"""What each sample sees of a mesh, by clusters of faces. Compiled by numba.

Of a mesh's thousands of faces hardly one holds a sample. Clusters are left out where they hold none, or where
only nearer things are there already; a cluster's faces are projected together.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from caliper.envs.render.geometry import CLUSTERS, FACES, SLOT_BITS
from caliper.envs.render.samples import (
    BEYOND,
    EDGE,
    FAR,
    NEAR,
    ONE,
    OPTIONS,
    TIE,
    TWO,
    ZERO,
    F,
    bounds,
    fill,
    within,
)


@njit(**OPTIONS)
def _hidden(depth, bounds, base, width):
    """Whether the samples in a cluster's bounds are none, or all nearer than it."""
    left, right = within(bounds[base], bounds[base + CLUSTERS], width)
    top, bottom = within(bounds[base + 2 * CLUSTERS], bounds[base + 3 * CLUSTERS], depth.shape[0] // width)
    w = bounds[base + 4 * CLUSTERS]
    for row in range(top, bottom):
        near, lowest = depth[row * width + left : row * width + right], FAR
        for i in range(right - left):
            lowest = min(lowest, near[i])
        if lowest <= w:
            return False
    return True


@njit(**OPTIONS)
def _bound_clusters(all_spheres, first, count, m, o, lens, right, bottom, all_bounds):
    """Sets the bounds of a mesh's clusters."""
    m00, m01, m02 = m[0, 0], m[0, 1], m[0, 2]
    m10, m11, m12 = m[1, 0], m[1, 1], m[1, 2]
    m20, m21, m22 = m[2, 0], m[2, 1], m[2, 2]
    ox, oy, oz = o[0], o[1], o[2]
    l0, l1, l2, l3, l4 = lens[0], lens[1], lens[2], lens[3], lens[4]
    for group in range(count):
        a, b = (first + group) * 7 * CLUSTERS, group * 6 * CLUSTERS
        spheres, out = all_spheres[a : a + 7 * CLUSTERS], all_bounds[b : b + 6 * CLUSTERS]
        for i in range(CLUSTERS):
            j = i
            x, y, z = spheres[i] - ox, spheres[i + CLUSTERS] - oy, spheres[i + 2 * CLUSTERS] - oz
            r = spheres[i + 3 * CLUSTERS]
            nx, ny, nz = (
                spheres[i + 4 * CLUSTERS],
                spheres[i + 5 * CLUSTERS],
                spheres[i + 6 * CLUSTERS],
            )
            px, py, pz = (
                m00 * x + m01 * y + m02 * z,
                m10 * x + m11 * y + m12 * z,
                m20 * x + m21 * y + m22 * z,
            )
            # What fills the last group up has a negative radius, and is nowhere.
            x0, x1, y0, y1, w = bounds(px, py, pz, max(r, ZERO), (l0, l1, l2, l3, l4), right, bottom)
            out[j], out[j + CLUSTERS] = x0, -ONE if r < ZERO else x1
            out[j + 2 * CLUSTERS], out[j + 3 * CLUSTERS] = y0, y1
            out[j + 4 * CLUSTERS] = w
            out[j + 5 * CLUSTERS] = ONE if x * nx + y * ny + z * nz > ZERO else ZERO


@njit(**OPTIONS)
def _project(all_corners, cluster, m, o, out, right, bottom):
    """Sets `points` for a cluster; the faces that hold a sample are 1, those across the camera's plane 2."""
    corners = all_corners[cluster * 9 * FACES : (cluster + 1) * 9 * FACES]
    m00, m01, m02 = m[0, 0], m[0, 1], m[0, 2]
    m10, m11, m12 = m[1, 0], m[1, 1], m[1, 2]
    m20, m21, m22 = m[2, 0], m[2, 1], m[2, 2]
    ox, oy, oz = o[0], o[1], o[2]
    for j in range(FACES):
        i = j
        x, y, z = corners[j] - ox, corners[j + FACES] - oy, corners[j + 2 * FACES] - oz
        za = m20 * x + m21 * y + m22 * z
        wa = ONE / max(za, NEAR)
        xa, ya = (m00 * x + m01 * y + m02 * z) * wa, (m10 * x + m11 * y + m12 * z) * wa
        x, y, z = corners[j + 3 * FACES] - ox, corners[j + 4 * FACES] - oy, corners[j + 5 * FACES] - oz
        zb = m20 * x + m21 * y + m22 * z
        wb = ONE / max(zb, NEAR)
        xb, yb = (m00 * x + m01 * y + m02 * z) * wb, (m10 * x + m11 * y + m12 * z) * wb
        x, y, z = corners[j + 6 * FACES] - ox, corners[j + 7 * FACES] - oy, corners[j + 8 * FACES] - oz
        zc = m20 * x + m21 * y + m22 * z
        wc = ONE / max(zc, NEAR)
        xc, yc = (m00 * x + m01 * y + m02 * z) * wc, (m10 * x + m11 * y + m12 * z) * wc
        out[i], out[i + FACES], out[i + 2 * FACES] = xa, ya, wa
        out[i + 3 * FACES], out[i + 4 * FACES], out[i + 5 * FACES] = xb, yb, wb
        out[i + 6 * FACES], out[i + 7 * FACES], out[i + 8 * FACES] = xc, yc, wc
        # A whole number within [low, high] of both axes?
        low, high = min(xa, min(xb, xc)), max(xa, max(xb, xc))
        inside = (F(np.int32(max(min(high, right), ZERO))) >= max(low, ZERO)) & (high >= ZERO)
        low, high = min(ya, min(yb, yc)), max(ya, max(yb, yc))
        inside &= (F(np.int32(max(min(high, bottom), ZERO))) >= max(low, ZERO)) & (high >= ZERO)
        across = min(za, min(zb, zc)) < NEAR
        out[i + 9 * FACES] = TWO if across else (ONE if inside else ZERO)


@njit(**OPTIONS)
def _across(depth, names, lines, p, faces, n, m, o, name, right, bottom, width):
    """Draws a face that crosses the camera's plane: where its three edge functions have one sign."""
    for r in range(3):
        x, y, z = faces[n, 3 * r] - o[0], faces[n, 3 * r + 1] - o[1], faces[n, 3 * r + 2] - o[2]
        for i in range(3):
            p[r, i] = m[i, 0] * x + m[i, 1] * y + m[i, 2] * z
    if max(p[0, 2], max(p[1, 2], p[2, 2])) < NEAR:
        return
    for axis, last in ((0, right), (1, bottom)):  # all corners beyond one side of the image
        a, b, c = p[0, axis], p[1, axis], p[2, axis]
        if max(a, max(b, c)) < ZERO:
            return
        if min(a - last * p[0, 2], min(b - last * p[1, 2], c - last * p[2, 2])) > ZERO:
            return
    for r in range(3):
        i, j = (r + 1) % 3, (r + 2) % 3
        lines[r, 0] = p[i, 1] * p[j, 2] - p[i, 2] * p[j, 1]
        lines[r, 1] = p[i, 2] * p[j, 0] - p[i, 0] * p[j, 2]
        lines[r, 2] = p[i, 0] * p[j, 1] - p[i, 1] * p[j, 0]
    det = p[0, 0] * lines[0, 0] + p[0, 1] * lines[0, 1] + p[0, 2] * lines[0, 2]
    if det == ZERO:
        return
    for i in range(3):
        for j in range(3):
            lines[i, j] /= det
    wx, wy = lines[0, 0] + lines[1, 0] + lines[2, 0], lines[0, 1] + lines[1, 1] + lines[2, 1]
    wz = lines[0, 2] + lines[1, 2] + lines[2, 2]
    fill(depth, names, lines, 3, wx, wy, wz, name, ZERO, right, ZERO, bottom, width)


@njit(**OPTIONS)
def _triangle(depth, names, p, i, name, right, bottom, width):
    """Draws a face in front of the camera."""
    xa, ya, wa = p[i], p[i + FACES], p[i + 2 * FACES]
    xb, yb, wb = p[i + 3 * FACES], p[i + 4 * FACES], p[i + 5 * FACES]
    xc, yc, wc = p[i + 6 * FACES], p[i + 7 * FACES], p[i + 8 * FACES]
    left, end = within(max(min(xa, min(xb, xc)), ZERO), min(max(xa, max(xb, xc)), right), width)
    top, low = within(
        max(min(ya, min(yb, yc)), ZERO), min(max(ya, max(yb, yc)), bottom), depth.shape[0] // width
    )
    bx, by, cx, cy = xb - xa, yb - ya, xc - xa, yc - ya
    area = bx * cy - cx * by
    if area == ZERO:
        return
    h = ONE / area
    ux, uy, vx, vy = cy * h, -cx * h, -by * h, bx * h
    wb, wc = wb - wa, wc - wa
    for row in range(top, low):
        dy, start = F(row) - ya, row * width
        for column in range(left, end):
            dx = F(column) - xa
            u, v = dx * ux + dy * uy, dx * vx + dy * vy
            if u >= -EDGE and v >= -EDGE and u + v <= ONE + EDGE:
                w, at = wa + u * wb + v * wc, start + column
                old = depth[at]
                if w > old * BEYOND or (w > old * TIE and name > names[at]):
                    depth[at], names[at] = w, name


@njit(**OPTIONS)
def draw_mesh(t, k, g, lens, right, bottom, width):
    """Draws a mesh by clusters: first those that face the camera, then the others, mostly hidden."""
    first, count = t.groups[g, 0], t.groups[g, 1]
    depth, names, bounds, points, picks = k.depth, k.names, k.clusters, k.points, k.picks
    m, o = k.into[g], k.origin[g]
    _bound_clusters(t.spheres, first, count, m, o, lens, right, bottom, bounds)
    for away in (ZERO, ONE):
        for e in range(count * CLUSTERS):
            base = (e // CLUSTERS) * 6 * CLUSTERS + e % CLUSTERS
            if bounds[base + 5 * CLUSTERS] != away or bounds[base] > bounds[base + CLUSTERS]:
                continue
            if bounds[base + 2 * CLUSTERS] > bounds[base + 3 * CLUSTERS] or _hidden(
                depth, bounds, base, width
            ):
                continue
            cluster = first * CLUSTERS + e
            _project(t.corners, cluster, m, o, points, right, bottom)
            picked = 0
            for i in range(FACES):
                picks[picked] = i
                picked += np.int32(points[i + 9 * FACES] > ZERO)
            for pick in range(picked):
                i = picks[pick]
                name = (g << SLOT_BITS) | (e * FACES + i)
                if points[i + 9 * FACES] == TWO:
                    face = cluster * FACES + i
                    _across(depth, names, k.lines, k.corners, t.faces, face, m, o, name, right, bottom, width)
                else:
                    _triangle(depth, names, points, i, name, right, bottom, width)
