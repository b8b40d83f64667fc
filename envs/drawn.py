"""Envs with images: how what an engine poses is drawn, and how it looks."""

from __future__ import annotations

import torch
from torch import Tensor

from caliper.envs.base import VectorEnv
from caliper.envs.observation.views import Views
from caliper.envs.render import make_renderer
from caliper.envs.render.base import Posed, Renderer, Size, height_width
from caliper.envs.scene.appearance import AS_IT_IS, Appearance, AppearanceRanges, Appearances
from caliper.types import Obs

_ANTIALIAS_FROM = 128  # pixels; larger images are for people


class Drawn(VectorEnv):
    """Envs of one scene whose cameras see it. Each episode may look in a way of its own.

    Attributes:
        seeds: of the running episodes, (n,).
    """

    seeds: Tensor
    _threads: int  # that draw side by side on a CPU

    def _look_at(self, posed: Posed) -> None:
        """Args: where everything is in each env. `spec`, `num_envs` and `device` must be set before."""
        self._posed_scene = posed
        self._renderers: dict[tuple[tuple[str, ...], Size, bool], Renderer] = {}
        self._appearances = Appearances(posed.model, self.device)
        self._appearance: Appearance | None = None
        self._ranges = AS_IT_IS  # of each episode's own appearance
        self._views = Views(self.spec, posed.model, self.device)

    def _seen(self, proprio: Tensor, changed: Tensor | None = None) -> Obs:
        """The observation now; images are drawn anew only where `changed` since the last."""
        return Obs.of({**self._views.draw(self.num_envs, self._renderer, changed), "proprio": proprio})

    def _renderer(self, cameras: tuple[str, ...], size: Size, depth: bool = False) -> Renderer:
        if (cameras, size, depth) not in self._renderers:
            antialias = 2 if min(height_width(size)) >= _ANTIALIAS_FROM else 1
            made = make_renderer(self._posed_scene, cameras, size, self._threads, antialias, depth)
            self._renderers[cameras, size, depth] = made
            if self._appearance is not None:
                made.dress(self._appearance)
        return self._renderers[cameras, size, depth]

    def render(self, cameras: tuple[str, ...], size: int) -> Tensor:
        """See `VectorEnv`. From 128 pixels on, images are antialiased."""
        return self._renderer(cameras, size).render()

    def set_appearance(self, seeds: Tensor | None, ranges: AppearanceRanges = AS_IT_IS) -> None:
        """See `VectorEnv`."""
        if seeds is None:
            seeds, ranges = torch.zeros_like(self.seeds), AS_IT_IS
        self._ranges = AS_IT_IS
        self._dress(seeds.to(self.device), ranges)

    def vary(self, ranges: AppearanceRanges) -> None:
        """See `VectorEnv`."""
        varied, self._ranges = self._ranges != AS_IT_IS, ranges
        if varied or ranges != AS_IT_IS:
            self._dress(self.seeds, ranges)

    def _dress_episodes(self, changed: Tensor | None = None) -> None:
        """Gives the episodes that have begun, all or where `changed`, their own appearance."""
        if self._ranges != AS_IT_IS:
            self._dress(self.seeds, self._ranges, changed)

    def _dress(self, seeds: Tensor, ranges: AppearanceRanges, changed: Tensor | None = None) -> None:
        self._appearance = self._appearances.draw(ranges, seeds)
        for renderer in self._renderers.values():
            renderer.dress(self._appearance, changed)
