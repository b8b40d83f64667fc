"""How the updates of a run are made: one operation after the other, or as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from caliper.agents import Agent
from caliper.agents.nets import Info
from caliper.data.mixing import MixedSampler
from caliper.envs.graphs import uncollected
from caliper.training.finite import FiniteWatch
from caliper.types import Batch

WARM_UPS = 3  # updates before a capture: they make what is made once (moments, library handles, workspaces)


class EagerLearner:
    """Draws a batch and makes an update of it; the reference for the other.

    Attributes:
        watch: notes which metrics are not finite.

    Args:
        agent: what learns.
        sampler: gives the batches.
        batch_size: b.
        generator: draws the batches, on the sampler's device.
    """

    def __init__(
        self, agent: Agent, sampler: MixedSampler, batch_size: int, generator: torch.Generator
    ) -> None:
        self.agent = agent
        self.sampler = sampler
        self.batch_size = batch_size
        self.generator = generator
        self.watch = FiniteWatch(agent.device)

    def update(self) -> Info:
        """One `Agent.update`; its metrics may change with the next one: read them before."""
        return self.watch.note(self.agent.update(self.sampler.sample(self.batch_size, self.generator)))

    def bc_update(self) -> Info:
        """One `Agent.bc_update`; the same holds for its metrics."""
        info = self.agent.bc_update(self.sampler.sample(self.batch_size, self.generator))
        return self.watch.note(info, bc=True)


@dataclass
class _Graph:
    """A captured update, or the count of the updates made before its capture."""

    warm: int = 0
    replay: Callable[[], Info] | None = None


class GraphLearner(EagerLearner):
    """The whole update, from the draw of the batch to the targets' step, as one captured CUDA graph.

    What changes from update to update the graph reads on the device: sizes of the buffers, states of the
    generators, weights, moments, the fading weight of cloning. Where other operations are needed (see
    `Agent.next_update`), another is captured and the first is kept, for the two may alternate; where the
    batch is split otherwise, and at the switch, all are dropped. Before each capture `WARM_UPS` updates are
    made one operation after the other, an agent's very first among them. These draw the same numbers: it does
    not matter when a graph is captured, and a resumed run, which captures anew, goes on as an unbroken one
    would, but for the GPU's order of sums. Of several ranks each captures its own update, and with it how
    NCCL sends the gradients: as many replay at once as captured at once, for all decide alike.
    """

    warm_ups: float = WARM_UPS

    def __init__(
        self, agent: Agent, sampler: MixedSampler, batch_size: int, generator: torch.Generator
    ) -> None:
        super().__init__(agent, sampler, batch_size, generator)
        self._key: tuple[Any, ...] | None = None  # what all the graphs hold for
        self._graphs: dict[tuple[bool, ...], _Graph] = {}  # by what `Agent.next_update` says
        self._stream: torch.cuda.Stream | None = None
        for optimizer in agent.optimizers.values():
            # Loaded moments are new tensors, of which a graph knows nothing.
            optimizer.register_load_state_dict_post_hook(lambda _: self.forget())

    def update(self) -> Info:
        """See `EagerLearner.update`."""
        return self._run("update", self.agent.update)

    def bc_update(self) -> Info:
        """See `EagerLearner.bc_update`."""
        return self._run("bc", self.agent.bc_update)

    def forget(self) -> None:
        """Drops all graphs; the next updates make others."""
        self._graphs.clear()

    def _run(self, name: str, learn: Callable[[Batch], Info]) -> Info:
        key = (name, self.agent.online, *self.sampler.split(self.batch_size))
        if key != self._key:
            self._key = key
            self.forget()
        graph = self._graphs.setdefault(self.agent.next_update(), _Graph())

        def work() -> Info:
            batch = self.sampler.sample(self.batch_size, self.generator, captured=True)
            return self.watch.note(learn(batch), name == "bc")

        if graph.replay is None:
            if graph.warm < self.warm_ups:
                graph.warm += 1
                return self._aside(work)
            graph.replay = self._capture(work)
        elif name == "update":
            self.agent.updates += 1  # all that an update does on the host
        return graph.replay()

    def _aside(self, work: Callable[[], Info]) -> Info:
        """Does the work on the stream on which it will be captured."""
        here = torch.cuda.current_stream(self.agent.device)
        if self._stream is None:
            self._stream = torch.cuda.Stream(self.agent.device)  # type: ignore[no-untyped-call]  # torch's
        stream = self._stream
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            info = work()
        here.wait_stream(stream)
        return info

    def _capture(self, work: Callable[[], Info]) -> Callable[[], Info]:
        graph = torch.cuda.CUDAGraph()
        for generator in {self.agent.generator, self.generator}:
            graph.register_generator_state(generator)
        groups = [g for optimizer in self.agent.optimizers.values() for g in optimizer.param_groups]
        # Of fused Adam it is true anyway; a capture wants it said, and a step outside of one complains.
        for group in groups:
            group["capturable"] = True
        try:
            with uncollected(), torch.cuda.graph(graph, stream=self._stream):
                info = work()
        finally:
            for group in groups:
                group["capturable"] = False

        def replay() -> Info:
            graph.replay()
            return info

        return replay


LEARNERS: dict[str, type[EagerLearner]] = {"eager": EagerLearner, "graph": GraphLearner}
