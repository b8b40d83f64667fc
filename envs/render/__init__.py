"""Renderers: MuJoCo Warp's ray tracer on a GPU, a rasteriser that gives its pixels on a CPU."""

from __future__ import annotations

from caliper.envs.render.base import Posed, Renderer, Size


def make_renderer(
    engine: Posed,
    cameras: tuple[str, ...],
    size: Size,
    threads: int = 1,
    antialias: int = 1,
    depth: bool = False,
) -> Renderer:
    """The renderer for an engine's device.

    Args:
        engine: whose envs to draw.
        cameras: names of cameras in the scene.
        size: side of the square images, or height and width, pixels.
        threads: that draw side by side on a CPU.
        antialias: samples per pixel and axis; the cost grows with its square.
        depth: whether `Renderer.frames` will be asked for.

    Raises:
        CaliperError: no such camera in the scene, or something in it that cannot be drawn.
    """
    if engine.device.type == "cuda":
        from caliper.envs.engines.base import Engine
        from caliper.envs.render.trace import RayTracer

        assert isinstance(engine, Engine)  # all others pose their envs on the CPU
        return RayTracer(engine, cameras, size, threads, antialias, depth)
    from caliper.envs.render.raster import Rasteriser

    return Rasteriser(engine, cameras, size, threads, antialias, depth)
