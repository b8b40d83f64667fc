"""The peer of learner_gpu.py: the official Cal-QL update (nakamotoo/Cal-QL) on states, written anew in JAX.

One jitted function: policy, two critics and temperature step by Adam from gradients at the same old weights,
then the targets follow. tests/caliper/training/test_update_gpu.py holds it
to the official code's own numbers.
"""

import math
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

POLICY_LR, CRITIC_LR, DISCOUNT, TAU, WEIGHT = 1e-4, 3e-4, 0.99, 0.005, 5.0


def dense(layers, x):
    """A perceptron with ReLUs between; layers are pairs (in, out), (out,)."""
    for kernel, bias in layers[:-1]:
        x = jax.nn.relu(x @ kernel + bias)
    return x @ layers[-1][0] + layers[-1][1]


def values(critics, obs, action):
    """Both critics' values (2, b, k) of actions (b, k, a)."""
    states = jnp.broadcast_to(obs[:, None], (*action.shape[:2], obs.shape[1]))
    inputs = jnp.concatenate([states, action], -1)
    return jnp.stack([dense(critic, inputs)[..., 0] for critic in critics])


def sample(policy, obs, eps):
    """Actions (b, k, a) and their log-densities (b, k) for normal noise (b, k, a)."""
    mean, raw = jnp.split(dense(policy["layers"], obs), 2, -1)
    log_std = jnp.clip(policy["scale"] * raw + policy["offset"], -20.0, 2.0)[:, None]
    u = mean[:, None] + jnp.exp(log_std) * eps
    normal = (-0.5 * eps**2 - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)
    return jnp.tanh(u), normal - (2 * (math.log(2) - u - jax.nn.softplus(-2 * u))).sum(-1)


def losses(weights, targets, batch, noise):
    """The sum of all losses; each reaches its own weights only."""
    still = jax.lax.stop_gradient
    obs, action, actions = batch["obs"], batch["action"][:, None], batch["action"].shape[1]
    ours, log_pi = sample(weights["policy"], obs, noise["pi"])
    alpha, q_pi = jnp.exp(still(weights["log_alpha"])), values(still(weights["critics"]), obs, ours)
    loss = (alpha * log_pi - q_pi.min(0)).mean()
    loss -= (weights["log_alpha"] * still(log_pi - actions)).mean()

    policy = still(weights["policy"])
    best = values(targets, batch["next_obs"], sample(policy, batch["next_obs"], noise["target"])[0])
    target = batch["reward"] + DISCOUNT * (1 - batch["terminal"]) * best.min(0).max(-1)
    current, log_current = sample(policy, obs, noise["current"])
    following, log_following = sample(policy, batch["next_obs"], noise["next"])
    q = values(weights["critics"], obs, jnp.concatenate([action, noise["uniform"], current, following], 1))
    k = current.shape[1]
    bounded = jnp.maximum(q[..., 1 + k :], batch["mc_return"][:, None])
    densities = jnp.concatenate([log_current, log_following], 1)
    columns = jnp.concatenate([q[..., 1 : 1 + k] + actions * math.log(2), bounded - densities], -1)
    gap = jax.nn.logsumexp(columns, -1) - q[..., 0]
    return loss + (((q[..., 0] - target) ** 2).mean(1) + WEIGHT * gap.mean(1)).sum()


def start(weights):
    """The state of training from first weights: {policy, critics, log_alpha}."""
    zeros = jax.tree.map(jnp.zeros_like, weights)
    return {"weights": weights, "targets": weights["critics"], "mean": zeros, "square": zeros, "step": 0}


@jax.jit
def step(state, batch, noise):
    """One update with given noise."""
    weights, count = state["weights"], state["step"] + 1
    slopes = jax.grad(losses)(weights, state["targets"], batch, noise)
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state["mean"], slopes)
    square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, state["square"], slopes)

    def moved(rate):
        def move(w, m, v):
            return w - rate * (m / (1 - 0.9**count)) / (jnp.sqrt(v / (1 - 0.999**count)) + 1e-8)

        return move

    rates = {"policy": POLICY_LR, "critics": CRITIC_LR, "log_alpha": POLICY_LR}
    new = {
        name: jax.tree.map(moved(rate), weights[name], mean[name], square[name])
        for name, rate in rates.items()
    }
    targets = jax.tree.map(lambda t, w: (1 - TAU) * t + TAU * w, state["targets"], new["critics"])
    return {"weights": new, "targets": targets, "mean": mean, "square": square, "step": count}


@jax.jit
def update(state, batch, key):
    """One update that draws its noise, with 10 sampled actions."""
    (b, a), keys = batch["action"].shape, jax.random.split(key, 5)
    names = ("pi", "target", "current", "next")
    shapes = [(b, 1 if name == "pi" else 10, a) for name in names]
    noise = {n: jax.random.normal(k, s) for n, k, s in zip(names, keys, shapes, strict=False)}
    noise["uniform"] = jax.random.uniform(keys[4], (b, 10, a), minval=-1.0, maxval=1.0)
    return step(state, batch, noise)


class OnStates:
    """A learner on one batch of noise, to be timed: two hidden layers of 256, as the official code has."""

    def __init__(self, b, states, actions):
        draw = np.random.default_rng(0).standard_normal

        def array(*shape):
            return jnp.asarray(draw(shape), jnp.float32)

        def layers(*sizes):
            return [(array(i, o) / i**0.5, jnp.zeros(o)) for i, o in pairwise(sizes)]

        one, nought = jnp.ones(()), jnp.zeros(())
        policy = {"layers": layers(states, 256, 256, 2 * actions), "scale": one, "offset": -one}
        critics = [layers(states + actions, 256, 256, 1) for _ in range(2)]
        self.state = start({"policy": policy, "critics": critics, "log_alpha": nought})
        self.batch = {"obs": array(b, states), "next_obs": array(b, states), "reward": array(b)}
        self.batch |= {"action": jnp.tanh(array(b, actions)), "terminal": jnp.zeros(b), "mc_return": array(b)}
        self.key, self.device = jax.random.PRNGKey(0), jax.devices()[0]

    def update(self):
        self.key, key = jax.random.split(self.key)
        self.state = update(self.state, self.batch, key)

    def wait(self):
        jax.block_until_ready(self.state)
