"""Networks of all agents, and how they move: policies, ensembles of Q functions, losses, a step, an average.

Each network has an encoder of its own, and sees an image once, however many actions are sampled or valued.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from caliper.encoders import Encoder
from caliper.types import Obs

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
MakeEncoder = Callable[[], Encoder]
Info = dict[str, Tensor]  # metrics by name, 0-d tensors on the device


@dataclass(frozen=True, slots=True)
class TanhGaussian:
    """A diagonal Gaussian squashed into (-1, 1) by tanh (Haarnoja et al. 2018, arXiv:1812.05905, appendix C).

    Attributes:
        mean: float32 (b, a), before the squashing.
        log_std: float32 (b, a).
    """

    mean: Tensor
    log_std: Tensor

    def sample(
        self, k: int = 1, generator: torch.Generator | None = None, eps: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """K actions per state and their log-densities, differentiable in mean and log_std.

        Args:
            k: draws per state.
            generator: draws them, on the policy's device.
            eps: standard normal (b, k, a); given, nothing is drawn.

        Returns:
            actions (b, k, a) and log-densities (b, k).
        """
        if eps is None:
            (b, a), device = self.mean.shape, self.mean.device
            eps = torch.randn(b, k, a, generator=generator, device=device)
        log_std = self.log_std[:, None]
        u = self.mean[:, None] + log_std.exp() * eps
        log_normal = (-0.5 * eps.square() - log_std - HALF_LOG_2PI).sum(-1)
        action = torch.tanh(u)
        # log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)), stable for any u
        log_slope = (2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u))).sum(-1)
        return action, log_normal - log_slope

    def mode(self) -> Tensor:
        """The greedy action tanh(mean), (b, a)."""
        return torch.tanh(self.mean)


@dataclass(frozen=True, slots=True)
class Gaussian:
    """A diagonal Gaussian in the action space itself, its mean in (-1, 1); samples are clipped to the box.

    Its density is finite at the box's faces, where scripted experts stay: a tanh-Gaussian's is not.

    Attributes:
        mean: float32 (b, a).
        log_std: float32 (b, a).
    """

    mean: Tensor
    log_std: Tensor

    def sample(
        self, k: int = 1, generator: torch.Generator | None = None, eps: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `TanhGaussian.sample`; log-densities are those before the clip."""
        if eps is None:
            (b, a), device = self.mean.shape, self.mean.device
            eps = torch.randn(b, k, a, generator=generator, device=device)
        log_std = self.log_std[:, None]
        action = self.mean[:, None] + log_std.exp() * eps
        return action.clamp(-1.0, 1.0), (-0.5 * eps.square() - log_std - HALF_LOG_2PI).sum(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-density (b,) of actions (b, a)."""
        eps = (action - self.mean) * torch.exp(-self.log_std)
        return (-0.5 * eps.square() - self.log_std - HALF_LOG_2PI).sum(-1)

    def mode(self) -> Tensor:
        """The greedy action (b, a)."""
        return self.mean


@dataclass(frozen=True, slots=True)
class FlowPolicy:
    """Actions that a vector field makes of standard normal noise, clipped to the box; it has no density.

    Attributes:
        field: the network.
        features: its encoder's, (b, f).
    """

    field: VectorField
    features: Tensor

    def sample(
        self, k: int = 1, generator: torch.Generator | None = None, eps: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """See `TanhGaussian.sample`; without log-densities."""
        if eps is None:
            shape, device = (len(self.features), k, self.field.action_dim), self.features.device
            eps = torch.randn(shape, generator=generator, device=device)
        return self.field.push(self.features, eps).clamp(-1.0, 1.0), None

    def mode(self) -> Tensor:
        """The greedy action (b, a): that of the noise zero, the middle of the noise."""
        middle = torch.zeros(1, 1, self.field.action_dim, device=self.features.device)
        return self.sample(eps=middle)[0][:, 0]


Policy = TanhGaussian | Gaussian | FlowPolicy


class Actor(nn.Module):
    """Encoder and perceptron to a tanh-Gaussian; scale and offset of log std are learned (official code)."""

    def __init__(self, make_encoder: MakeEncoder, action_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.encoder = make_encoder()
        self.layers = perceptron([self.encoder.dim, *hidden, 2 * action_dim])
        self.log_std_scale = nn.Parameter(torch.tensor(1.0))
        self.log_std_offset = nn.Parameter(torch.tensor(-1.0))

    def forward(self, obs: Obs) -> TanhGaussian:
        """The policy at b observations."""
        mean, raw = self.layers(self.encoder(obs)).float().chunk(2, -1)
        return TanhGaussian(mean, torch.clamp(self.log_std_scale * raw + self.log_std_offset, -20.0, 2.0))


class GaussianActor(nn.Module):
    """Encoder and perceptron to a Gaussian with one standard deviation for all states, learned or given."""

    def __init__(
        self, make_encoder: MakeEncoder, action_dim: int, hidden: Sequence[int], std: float | None = None
    ) -> None:
        super().__init__()
        self.encoder = make_encoder()
        self.layers = perceptron([self.encoder.dim, *hidden, action_dim])
        start = torch.full((action_dim,), 0.0 if std is None else math.log(std))
        self.log_std = nn.Parameter(start, requires_grad=std is None)

    def forward(self, obs: Obs) -> Gaussian:
        """The policy at b observations."""
        mean = torch.tanh(self.layers(self.encoder(obs)).float())
        return Gaussian(mean, self.log_std.clamp(-20.0, 2.0).expand_as(mean))


class VectorField(nn.Module):
    """Encoder and perceptron to a vector for each of k points per state, in the space of the actions.

    With `steps` it is the velocity v(s, x, t) of a flow from noise to actions, followed in so many steps of
    Euler's; with none it is a map mu(s, z) that leads from noise to an action at once. As in `Critic`, what
    the first layer makes of the features is computed once per state.
    """

    def __init__(self, make_encoder: MakeEncoder, action_dim: int, hidden: Sequence[int], steps: int) -> None:
        super().__init__()
        self.encoder = make_encoder()
        self.action_dim = action_dim
        self.steps = steps
        time = 1 if steps else 0
        self.layers = perceptron([self.encoder.dim + action_dim + time, *hidden, action_dim])

    def forward(self, obs: Obs) -> FlowPolicy:
        """The policy at b observations."""
        return FlowPolicy(self, self.encoder(obs))

    def vector(self, features: Tensor, x: Tensor) -> Tensor:
        """Vectors (b, k, a), float32, at points x: (b, k, a), or (b, k, a + 1) where a time comes last."""
        first, f = self.layers[0], features.shape[-1]
        assert isinstance(first, nn.Linear)  # for the type checker
        of_state = F.linear(features, first.weight[:, :f], first.bias)  # (b, h)
        hidden = of_state[:, None] + F.linear(x, first.weight[:, f:])  # (b, k, h)
        vector: Tensor = self.layers[1:](hidden)
        return vector.float()

    def push(self, features: Tensor, z: Tensor) -> Tensor:
        """Where noise z (b, k, a) leads, (b, k, a), not clipped."""
        if not self.steps:
            return self.vector(features, z)
        x = z
        for i in range(self.steps):
            time = torch.full_like(x[..., :1], i / self.steps)
            x = x + self.vector(features, torch.cat([x, time], -1)) / self.steps
        return x


AnyActor = Actor | GaussianActor | VectorField


class Value(nn.Module):
    """Encoder and perceptron to a value of the state."""

    def __init__(self, make_encoder: MakeEncoder, hidden: Sequence[int]) -> None:
        super().__init__()
        self.encoder = make_encoder()
        self.layers = perceptron([self.encoder.dim, *hidden, 1])

    def forward(self, obs: Obs) -> Tensor:
        """Values (b,) of b observations."""
        value: Tensor = self.layers(self.encoder(obs)).float()
        return value[:, 0]


class Critic(nn.Module):
    """An encoder, and e perceptrons Q(features, action) with stacked weights, valued at k actions per state.

    The two are called one after the other, `critic(critic.encoder(obs), action)`: an image is encoded once.
    The first layer is linear in [features, action], so its product with the features is computed once per
    state and each of the k actions only adds its own small product. Both together are most of the speed of an
    update on pixels.

    Attributes:
        encoder: observations to features (b, f), or (e, b, f) with an encoder per critic.
        weights: of each layer, (e, in, out).
        biases: of each layer, (e, 1, out).
        activations: after each hidden layer: LayerNorm, where wanted, and ReLU.
    """

    def __init__(
        self,
        make_encoder: MakeEncoder,
        action_dim: int,
        hidden: Sequence[int],
        critics: int,
        *,
        layer_norm: bool,
        encoder_per_critic: bool,
    ) -> None:
        super().__init__()
        self.encoder = EncoderPerCritic(make_encoder, critics) if encoder_per_critic else make_encoder()
        sizes = [self.encoder.dim + action_dim, *hidden, 1]
        self.weights = nn.ParameterList(torch.empty(critics, i, o) for i, o in pairwise(sizes))
        self.biases = nn.ParameterList(torch.zeros(critics, 1, o) for o in sizes[1:])
        for layer, weight in enumerate(self.weights):
            for member in weight:
                nn.init.orthogonal_(member.data, math.sqrt(2.0) if layer < len(hidden) else 1e-2)
        # LayerNorm without gain and offset: the linear layers around it supply them, at less cost. ReLU works
        # in the memory of its input, which is not needed again.
        self.activations = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(size, elementwise_affine=False), nn.ReLU(inplace=True))
            if layer_norm
            else nn.ReLU(inplace=True)
            for size in hidden
        )

    def forward(self, features: Tensor, action: Tensor, member: int | None = None) -> Tensor:
        """Values of k actions per state.

        Args:
            features: (b, f) shared by the ensemble, or (e, b, f).
            action: (b, k, a).
            member: the only member to be asked.

        Returns:
            float32 (e, b, k), or (1, b, k) of one member.
        """
        if action.is_cuda and member is None:
            return self.batched(features, action).float()
        # On a CPU products member by member are faster than batched ones, up to a sixth.
        (b, k, _), f = action.shape, features.shape[-1]
        values = []
        for i in range(len(self.weights[0])) if member is None else [member]:
            weights, biases = [w[i] for w in self.weights], [v[i] for v in self.biases]
            of_state = torch.addmm(
                biases[0], features if features.dim() == 2 else features[i], weights[0][:f]
            )
            x = torch.baddbmm(of_state[:, None], action, weights[0][f:].expand(b, -1, -1))  # (b, k, h)
            for layer, activation in enumerate(self.activations, 1):
                x = activation(x).view(b * k, -1)
                if layer + 1 < len(weights):
                    x = torch.addmm(biases[layer], x, weights[layer])
                else:
                    x = x @ weights[layer][:, 0] + biases[layer]
            values.append(x.view(b, k))
        return torch.stack(values).float()

    def batched(self, features: Tensor, action: Tensor) -> Tensor:
        """The whole ensemble in batched products: few kernels, as a GPU wants it."""
        (b, k, a), e, f = action.shape, len(self.weights[0]), features.shape[-1]
        of_state = torch.baddbmm(
            self.biases[0], features.expand(e, b, f), self.weights[0][:, :f]
        )  # (e, b, h)
        of_action = torch.matmul(action.reshape(1, b * k, a), self.weights[0][:, f:]).view(e, b, k, -1)
        x = of_action + of_state[:, :, None]  # (e, b, k, h)
        for layer, activation in enumerate(self.activations, 1):
            x = torch.baddbmm(self.biases[layer], activation(x).view(e, b * k, -1), self.weights[layer])
        return x.view(e, b, k)


class EncoderPerCritic(nn.Module):
    """One encoder for each member of the ensemble."""

    def __init__(self, make_encoder: MakeEncoder, critics: int) -> None:
        super().__init__()
        members = [make_encoder() for _ in range(critics)]
        self.members = nn.ModuleList(members)
        self.dim = members[0].dim

    def forward(self, obs: Obs) -> Tensor:
        """Features (e, b, f)."""
        return torch.stack([member(obs) for member in self.members])


def trained(network: AnyActor) -> list[nn.Parameter]:
    """The parameters that learn, those of the encoder first."""
    of_encoder = set(network.encoder.parameters())
    return sorted((p for p in network.parameters() if p.requires_grad), key=lambda p: p not in of_encoder)


def perceptron(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers and ReLUs; first weights as in the official code: orthogonal, the last one's small."""
    layers = [nn.Linear(i, o) for i, o in pairwise(sizes)]
    for layer in layers:
        nn.init.orthogonal_(layer.weight, math.sqrt(2.0) if layer is not layers[-1] else 1e-2)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*[module for layer in layers for module in (layer, nn.ReLU())][:-1])


def td_loss(q: Tensor, y: Tensor) -> tuple[Tensor, Info]:
    """Squared error of the critics' values q (e, b) of the data's actions against the target y (b,).

    A mean over the batch, summed over the ensemble.
    """
    loss = (q - y).square().mean(1).sum()
    info = {"critic/td_loss": loss, "critic/q_data": q.mean(), "critic/target": y.mean()}
    return loss, info | {"critic/loss": loss}  # an algorithm with more terms puts their sum there


def bc_loss(pi: Policy, action: Tensor) -> Tensor:
    """Squared error (b,) of the greedy action against the recorded one (b, a), summed over its entries.

    Not the likelihood: scripted experts saturate, and an action of +-1 lies at +-6 before the tanh, where a
    Gaussian has to spread over several units to hold it beside the actions around 0. On a synthetic clipped
    proportional controller the mean error of the greedy action after 1,500 steps was 0.71 with the likelihood
    and 0.02 with this. But it does not train the standard deviation.
    """
    return (pi.mode() - action).square().sum(-1)


def flow_loss(
    flow: FlowPolicy, action: Tensor, generator: torch.Generator, start: Tensor | None, time: Tensor | None
) -> Tensor:
    """Flow matching (Lipman et al. 2022, arXiv:2210.02747) of the recorded actions, along straight lines.

    x_t = (1 - t) x_0 + t a;  mean |v(s, x_t, t) - (a - x_0)|^2, over the batch and the action's entries.

    Args:
        flow: at the b states.
        action: (b, a).
        generator: draws what is None of
        start: x_0, standard normal (b, 1, a), and
        time: t, uniform in [0, 1] (b, 1, 1).
    """
    end = action[:, None]  # (b, 1, a)
    if start is None:
        start = torch.randn(end.shape, generator=generator, device=end.device)
    if time is None:
        time = torch.rand(end[..., :1].shape, generator=generator, device=end.device)
    x = torch.lerp(start, end, time)
    velocity = flow.field.vector(flow.features, torch.cat([x, time], -1))
    return (velocity - (end - start)).square().mean()


def descend(optimizers: Mapping[str, torch.optim.Optimizer], losses: Mapping[str, Tensor]) -> Info:
    """Steps optimisers along the loss of the same name, all gradients taken at the same old parameters.

    A loss's gradient reaches the parameters of its own optimiser only.

    Returns:
        the gradient norms, as "<name>/grad_norm".
    """
    info: Info = {}
    for name, loss in losses.items():
        weights = [p for group in optimizers[name].param_groups for p in group["params"]]
        optimizers[name].zero_grad(set_to_none=True)
        torch.autograd.backward(loss, inputs=weights)
    for name in losses:
        optimizers[name].step()  # where a run has several ranks, hooks have averaged the gradients by now
        weights = [p for group in optimizers[name].param_groups for p in group["params"]]
        gradients = [p.grad for p in weights if p.grad is not None]
        info[f"{name}/grad_norm"] = nn.utils.get_total_norm(gradients)
    return info


@torch.no_grad()
def polyak(target: Iterable[Tensor], source: Iterable[Tensor], tau: float) -> None:
    """Moves every target tensor by the fraction tau towards its source: t <- (1 - tau) t + tau s."""
    torch._foreach_lerp_(list(target), list(source), tau)
