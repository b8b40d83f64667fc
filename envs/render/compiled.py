"""The rasteriser's one compiled function, its cache and what to do without one.

numba keeps compiled code in __pycache__ (or NUMBA_CACHE_DIR, or the user's cache) for one file and does not
know what that file imports. So the sources of all that is compiled are part of the function as a number:
code that was compiled from other sources is never found.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import numba
import numpy as np

from caliper.envs.render.geometry import SLOT_BITS
from caliper.envs.render.samples import EVERYTHING, MOVING, OPTIONS, STILL, ZERO, F, dressed, take
from caliper.envs.render.shade import View, shade
from caliper.envs.render.visible import place, reach, see

COMPILED = (
    "compiled.py",
    "geometry.py",
    "samples.py",
    "clusters.py",
    "visible.py",
    "shade.py",
)  # files whose code numba compiles


def fingerprint() -> int:
    """A number for the sources of all that is compiled."""
    folder, digest = Path(__file__).parent, hashlib.sha256()
    for name in COMPILED:
        digest.update((folder / name).read_bytes())
    return int.from_bytes(digest.digest()[:7], "big")


def _drawing(sources: int) -> Any:
    """The function that draws, for numba to compile."""

    def draw(  # type: ignore[no-untyped-def]  # numba infers the types
        tables, sizes, wear, positions, rotations, cameras, axes, light, views, lenses, still, colour, lamp,
        layers, wanted, samples, rgb, depth, geoms, k, only_layers, counter,
    ):  # fmt: skip
        """Draws images of the wanted envs, or the layers they share, until the counter has told of all.

        Threads that count on the same counter share the images: who is done with one takes the next.
        """
        n, v, h, w = rgb.shape[0], rgb.shape[1], rgb.shape[3], rgb.shape[4]
        width, height = w * samples, h * samples
        right, bottom = F(width - 1), F(height - 1)
        nothing = np.empty(0, np.int32)
        images = v if only_layers else n * v
        for _ in range(images):
            image = take(counter)  # type: ignore[call-arg, var-annotated]  # numba gives the context
            if image >= images:
                break
            i, view = image // v, image % v
            if not (wanted[i] or only_layers) or (only_layers and not still[view]):
                continue
            c, layer = views[view], i if layers.drawn.shape[0] > 1 else 0
            camera, turn, lens = cameras[i, c], axes[i, c], lenses[view]
            lens = (lens[0], lens[1], lens[2], lens[3], reach(lens, right, bottom))
            t = dressed(tables, sizes[i if sizes.shape[0] > 1 else 0], wear[i if wear.shape[0] > 1 else 0])
            place(t, k, positions[i], rotations[i], camera, turn, lens, right, bottom)
            fresh = True  # the layer, if there is to be one
            if still[view] and (only_layers or layers.drawn.shape[0] > 1):
                pose, fresh = layers.pose[layer, view], layers.drawn[layer, view]
                for j in range(12):
                    now = camera[j] if j < 3 else turn[(j - 3) // 3, (j - 3) % 3]
                    fresh, pose[j] = fresh and pose[j] == now, now
            for turn_of in range(1 if fresh else 0, 1 if only_layers else 2):  # first what is still
                layered = still[view] and turn_of == 1
                if layered:
                    k.depth[:], k.names[:] = layers.depth[layer, view], layers.names[layer, view]
                else:
                    k.depth[:], k.names[:] = F(t.horizon), -1
                which = EVERYTHING if not still[view] else (MOVING if turn_of == 1 else STILL)
                see(t, k, which, lens, width, height)
                shade(
                    t, k, View(positions[i], rotations[i], turn, light[i], colour[i], lamp[i]), samples,
                    layers.names[layer, view] if layered else nothing, layers.rgb[layer, view],
                    rgb[i, view] if turn_of == 1 else layers.rgb[layer, view],
                )  # fmt: skip
                if turn_of == 0:
                    layers.depth[layer, view, :], layers.names[layer, view, :] = k.depth, k.names
                    layers.drawn[layer, view] = True
            if only_layers:
                continue
            for row in range(depth.shape[2]):
                for column in range(depth.shape[3]):
                    at = row * samples * width + column * samples
                    name = k.names[at]
                    geoms[i, view, row, column] = t.geom[name >> SLOT_BITS] if name >= 0 else -1
                    depth[i, view, row, column] = F(1) / k.depth[at] if name >= 0 else ZERO
        return sources

    return draw


def compiled(sources: int) -> Any:
    """The function that draws, compiled when first called, and from the cache where there is one."""
    try:
        return numba.njit(cache=True, **OPTIONS)(_drawing(sources))
    except RuntimeError:  # numba's for no folder that can be written
        warnings.warn(
            "numba has no folder to keep compiled code in, so the CPU's renderer is compiled anew by every "
            "process (10 to 30 s each); set NUMBA_CACHE_DIR to a folder that can be written",
            stacklevel=2,
        )
        return numba.njit(**OPTIONS)(_drawing(sources))


draw = compiled(fingerprint())


def kept() -> str:
    """Where the compiled function came from, for people; it has been called by then."""
    stats = draw.stats
    if not stats.cache_path:
        return "compiled for this process alone; set NUMBA_CACHE_DIR to a folder that can be written"
    how = "read from" if sum(stats.cache_hits.values()) else "compiled now, kept in"
    return f"{how} {stats.cache_path}"
