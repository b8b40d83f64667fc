"""How the updates of a run are made: one operation after the other, compiled, or as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from caliper.agents import Agent, Noise
from caliper.agents.base import Info
from caliper.data.mixing import MixedSampler
from caliper.envs.graphs import uncollected
from caliper.errors import CaliperError
from caliper.types import Batch

WARM_UPS = 3  # updates before a capture: they make what is made once (moments, library handles, workspaces)


class EagerLearner:
    """Draws a batch and makes an update of it; the reference for the other two.

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

    def update(self) -> Info:
        """One `Agent.update`; its metrics may change with the next one: read them before."""
        return self.agent.update(self.sampler.sample(self.batch_size, self.generator))

    def clone(self) -> Info:
        """One `Agent.clone`; the same holds for its metrics."""
        return self.agent.clone(self.sampler.sample(self.batch_size, self.generator))


class CompiledLearner(EagerLearner):
    """Losses and gradients of an update as one program that torch.compile makes.

    The same random numbers are drawn as without, in the same order, but ahead; the numbers agree up to the
    rounding of sums. The first update takes a minute or two, and so does the first of another phase.
    """

    backend = "inductor"

    def __init__(
        self, agent: Agent, sampler: MixedSampler, batch_size: int, generator: torch.Generator
    ) -> None:
        super().__init__(agent, sampler, batch_size, generator)
        self._compiled = torch.compile(self._gradients, backend=self.backend, fullgraph=True, dynamic=False)

    def update(self) -> Info:
        """See `EagerLearner.update`.

        Raises:
            CaliperError: the compiler fails, or there is none.
        """
        agent, batch = self.agent, self.sampler.sample(self.batch_size, self.generator)
        agent.begin()
        try:
            # Gradients are taken inside the program; without this torch ends it before them.
            with torch._dynamo.config.patch(trace_autograd_ops=True):
                gradients, info = self._compiled(batch, agent.draw(batch, Noise()))
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = " ".join(str(error).split("\n\n")[0].split())
            raise CaliperError(
                f"learner=compile cannot compile the update ({reason}); install a C++ compiler "
                "(apt-get install g++), or use learner=eager"
            ) from error
        for name, values in gradients.items():
            for weight, gradient in zip(agent.trained(name), values, strict=True):
                if gradient is not None and gradient.stride() != weight.stride():
                    gradient = torch.empty_like(weight).copy_(gradient)  # fused Adam wants one layout
                weight.grad = gradient
        info |= agent.step(gradients)
        agent.follow()
        return info

    def _gradients(self, batch: Batch, noise: Noise) -> tuple[dict[str, tuple[Tensor | None, ...]], Info]:
        losses, info = self.agent.losses(batch, noise)
        gradients: dict[str, tuple[Tensor | None, ...]] = {
            name: torch.autograd.grad(loss, self.agent.trained(name), allow_unused=True)
            for name, loss in losses.items()
        }
        return gradients, {name: value.detach() for name, value in info.items()}


@dataclass
class _Graph:
    """One phase's captured update, or the count of the updates made before its capture."""

    warm: int = 0
    replay: Callable[[], Info] | None = None


class GraphLearner(EagerLearner):
    """The whole update, from the draw of the batch to the targets' step, as one captured CUDA graph.

    What changes from update to update the graph reads on the device: sizes of the buffers, states of the
    generators, weights, moments, the fading weight of cloning. Where other operations are needed (see
    `Agent.phase`), another is captured and the first is kept, for phases may alternate; where the batch is
    split otherwise, and at the switch, all are dropped. Before each capture `WARM_UPS` updates are made one
    operation after the other. These draw the same numbers: it does not matter when a graph is captured, and
    a resumed run, which captures anew, goes on as an unbroken one would, but for the GPU's order of sums.
    """

    def __init__(
        self, agent: Agent, sampler: MixedSampler, batch_size: int, generator: torch.Generator
    ) -> None:
        super().__init__(agent, sampler, batch_size, generator)
        self._key: tuple[Any, ...] | None = None  # what all the graphs hold for
        self._graphs: dict[tuple[bool, ...], _Graph] = {}  # by the agent's phase
        self._stream: torch.cuda.Stream | None = None
        for optimizer in agent.optimizers.values():
            # Loaded moments are new tensors, of which a graph knows nothing.
            optimizer.register_load_state_dict_post_hook(lambda _: self.forget())

    def update(self) -> Info:
        """See `EagerLearner.update`."""
        self.agent.begin()
        return self._run("update", lambda batch: self.agent.learn(batch, Noise()))

    def clone(self) -> Info:
        """See `EagerLearner.clone`."""
        return self._run("clone", self.agent.clone)

    def forget(self) -> None:
        """Drops all graphs; the next updates make others."""
        self._graphs.clear()

    def _run(self, name: str, learn: Callable[[Batch], Info]) -> Info:
        key = (name, self.agent.online, *self.sampler.split(self.batch_size))
        if key != self._key:
            self._key = key
            self.forget()
        graph = self._graphs.setdefault(self.agent.phase(), _Graph())

        def work() -> Info:
            return learn(self.sampler.sample(self.batch_size, self.generator, captured=True))

        if graph.replay is None:
            if graph.warm < WARM_UPS:
                graph.warm += 1
                return self._aside(work)
            graph.replay = self._capture(work)
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


LEARNERS: dict[str, type[EagerLearner]] = {
    "eager": EagerLearner,
    "compile": CompiledLearner,
    "graph": GraphLearner,
}
