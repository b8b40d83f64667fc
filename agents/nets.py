"""Networks of all agents: policies and ensemble of Q functions, each with its own encoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from caliper.encoders import Encoder
from caliper.types import Obs

LOG_2 = math.log(2.0)
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
MakeEncoder = Callable[[], Encoder]


@dataclass(frozen=True, slots=True)
class TanhGaussian:
    """A diagonal Gaussian squashed into (-1, 1) by tanh (Haarnoja et al. 2018, arXiv:1812.05905, appendix C).

    Attributes:
        mean: float32 (b, a), before the squashing.
        log_std: float32 (b, a).
    """

    mean: Tensor
    log_std: Tensor

    def sample(self, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Actions and their log-densities for standard normal noise, differentiable in mean and log_std.

        Args:
            eps: (b, k, a), k draws per state.

        Returns:
            actions (b, k, a) and log-densities (b, k).
        """
        log_std = self.log_std[:, None]
        u = self.mean[:, None] + log_std.exp() * eps
        log_normal = (-0.5 * eps.square() - log_std - HALF_LOG_2PI).sum(-1)
        return torch.tanh(u), log_normal - log_slope(u)

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-density (b,) of actions (b, a) strictly inside (-1, 1)."""
        u = torch.atanh(action)
        eps = (u - self.mean) * torch.exp(-self.log_std)
        return (-0.5 * eps.square() - self.log_std - HALF_LOG_2PI).sum(-1) - log_slope(u)

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

    def sample(self, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Actions (b, k, a) for standard normal noise (b, k, a), and log-densities (b, k) before the clip."""
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


Policy = TanhGaussian | Gaussian


def log_slope(u: Tensor) -> Tensor:
    """Sum over actions of log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)), stable for any u."""
    return (2.0 * (LOG_2 - u - F.softplus(-2.0 * u))).sum(-1)


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
        mean, raw = through(self.layers, self.encoder(obs)).float().chunk(2, -1)
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
        mean = torch.tanh(through(self.layers, self.encoder(obs)).float())
        return Gaussian(mean, self.log_std.clamp(-20.0, 2.0).expand_as(mean))


class Value(nn.Module):
    """Encoder and perceptron to a value of the state."""

    def __init__(self, make_encoder: MakeEncoder, hidden: Sequence[int]) -> None:
        super().__init__()
        self.encoder = make_encoder()
        self.layers = perceptron([self.encoder.dim, *hidden, 1])

    def forward(self, obs: Obs) -> Tensor:
        """Values (b,) of b observations."""
        return through(self.layers, self.encoder(obs)).float()[:, 0]


def perceptron(sizes: Sequence[int]) -> nn.ModuleList:
    """Linear layers with the official code's first weights: orthogonal, and the last one's small."""
    layers = [nn.Linear(i, o) for i, o in pairwise(sizes)]
    for layer in layers:
        nn.init.orthogonal_(layer.weight, math.sqrt(2.0) if layer is not layers[-1] else 1e-2)
        nn.init.zeros_(layer.bias)
    return nn.ModuleList(layers)


def through(layers: nn.ModuleList, x: Tensor) -> Tensor:
    """Applies linear layers with ReLUs between."""
    for layer in list(layers)[:-1]:
        x = F.relu(layer(x))
    x = layers[-1](x)
    return x


class QEnsemble(nn.Module):
    """e perceptrons Q(features, action) with stacked weights, evaluated at k actions per state at once.

    The first layer is linear in [features, action], so its product with the features is computed once per
    state and each of the k actions only adds its own small product. This, and encoding each image once, is
    most of the speed of an update on pixels.
    """

    def __init__(
        self, features: int, action_dim: int, hidden: Sequence[int], critics: int, layer_norm: bool
    ) -> None:
        super().__init__()
        sizes = [features + action_dim, *hidden, 1]
        self.features = features
        self.layer_norm = layer_norm
        self.weights = nn.ParameterList(  # (e, in, out)
            torch.empty(critics, i, o) for i, o in pairwise(sizes)
        )
        self.biases = nn.ParameterList(torch.zeros(critics, 1, o) for o in sizes[1:])
        for layer, weight in enumerate(self.weights):
            for member in weight:
                nn.init.orthogonal_(member.data, math.sqrt(2.0) if layer < len(hidden) else 1e-2)

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        """Values of k actions per state.

        Args:
            features: (b, f) shared by the ensemble, or (e, b, f).
            action: (b, k, a).

        Returns:
            float32 (e, b, k).
        """
        if action.is_cuda:
            return self.together(features, action).float()
        critics = len(self.weights[0])
        return torch.stack([self.alone(i, features, action) for i in range(critics)]).float()

    def together(self, features: Tensor, action: Tensor) -> Tensor:
        """The whole ensemble in batched products: few kernels, as a GPU wants it."""
        (b, k, a), e, f = action.shape, len(self.weights[0]), self.features
        of_state = torch.baddbmm(
            self.biases[0], features.expand(e, b, f), self.weights[0][:, :f]
        )  # (e, b, h)
        of_action = torch.matmul(action.reshape(1, b * k, a), self.weights[0][:, f:]).view(e, b, k, -1)
        x = of_action + of_state[:, :, None]  # (e, b, k, h)
        for weight, bias in zip(list(self.weights)[1:], list(self.biases)[1:], strict=True):
            x = torch.baddbmm(bias, self.activate(x).view(e, b * k, -1), weight)
        return x.view(e, b, k)

    def alone(self, member: int, features: Tensor, action: Tensor) -> Tensor:
        """One member's values (b, k): on a CPU products one by one are faster than batched, up to a sixth."""
        (b, k, _), f = action.shape, self.features
        weights, biases = [w[member] for w in self.weights], [v[member] for v in self.biases]
        of_state = torch.addmm(
            biases[0], features if features.dim() == 2 else features[member], weights[0][:f]
        )
        x = torch.baddbmm(of_state[:, None], action, weights[0][f:].expand(b, -1, -1))  # (b, k, h)
        for weight, bias in zip(weights[1:-1], biases[1:-1], strict=True):
            x = torch.addmm(bias, self.activate(x).view(b * k, -1), weight)
        if len(weights) > 1:
            x = self.activate(x).view(b * k, -1) @ weights[-1][:, 0] + biases[-1]
        return x.view(b, k)

    def activate(self, x: Tensor) -> Tensor:
        """LayerNorm, where wanted, and ReLU, in the memory of their input where that is not needed again."""
        if self.layer_norm:
            # Without gain and offset: the linear layers around it supply them, at less cost.
            x = F.layer_norm(x, x.shape[-1:])
        return F.relu(x, inplace=True)


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


class Critic(nn.Module):
    """Encoder and Q ensemble, called apart: an image is encoded once, however many actions are valued."""

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
        self.head = QEnsemble(self.encoder.dim, action_dim, hidden, critics, layer_norm)

    def start_from(self, encoder: Encoder) -> None:
        """Copies the weights of another network's encoder into each of its own."""
        own = self.encoder.members if isinstance(self.encoder, EncoderPerCritic) else [self.encoder]
        for member in own:
            member.load_state_dict(encoder.state_dict())

    def encode(self, obs: Obs) -> Tensor:
        """Features (b, f), or (e, b, f) with an encoder per critic."""
        features: Tensor = self.encoder(obs)
        return features

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        """Values (e, b, k) of actions (b, k, a)."""
        values: Tensor = self.head(features, action)
        return values
