"""Agents by name: `build_agent({"name": "calql", ...}, {"name": "conv"}, spec, action_dim, device, seed)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch

from caliper.agents.awac import AWAC, AWACConfig
from caliper.agents.base import Agent, AgentConfig, Noise
from caliper.agents.bc import BC, BCConfig
from caliper.agents.calql import CalQL
from caliper.agents.cql import CQL, CQLConfig
from caliper.agents.iql import IQL, IQLConfig
from caliper.agents.qtopt import QTOpt, QTOptConfig
from caliper.agents.rlpd import RLPD, RLPDConfig
from caliper.agents.sac import SAC, SACConfig
from caliper.agents.td3bc import TD3BC, TD3BCConfig
from caliper.agents.wsrl import WSRL, WSRLConfig
from caliper.encoders import build_encoder
from caliper.errors import CaliperError
from caliper.types import ObsSpec

AGENTS: dict[str, tuple[type[Agent], type[AgentConfig]]] = {
    "bc": (BC, BCConfig),
    "sac": (SAC, SACConfig),
    "cql": (CQL, CQLConfig),
    "calql": (CalQL, CQLConfig),
    "iql": (IQL, IQLConfig),
    "awac": (AWAC, AWACConfig),
    "td3bc": (TD3BC, TD3BCConfig),
    "rlpd": (RLPD, RLPDConfig),
    "wsrl": (WSRL, WSRLConfig),
    "qtopt": (QTOpt, QTOptConfig),
}

# What values of any agent's keys must be; of a list, each entry. Written so that NaN fails.
LIMITS: dict[str, tuple[Callable[[float], bool], str]] = {
    "at least 1": (
        lambda value: value >= 1,
        "chunk actor_hidden critic_hidden n_critics actor_every best_of n_actions n_target_actions "
        "n_target_actions_online",
    ),
    "at least 0": (
        lambda value: value >= 0,
        "actor_lr bc_lr critic_lr temperature_lr value_lr shift_pad tau actor_tau "
        "mc_weight init_temperature actor_start bc_weight bc_weight_online bc_fade_steps conservative_weight "
        "conservative_weight_online beta max_weight target_noise target_noise_clip first_std min_std",
    ),
    "above 0": (lambda value: value > 0, "cql_temperature temperature exploration_noise"),
    "at most 1": (lambda value: value <= 1, "tau actor_tau mc_weight"),
}


def build_agent(
    cfg: Mapping[str, Any],
    encoder_cfg: Mapping[str, Any],
    spec: ObsSpec,
    action_dim: int,
    device: torch.device | str,
    seed: int,
) -> Agent:
    """Makes the agent that `cfg["name"]` names; the other keys fill its config.

    Args:
        cfg: name and keys, see `configs/agent/*.yaml`.
        encoder_cfg: see `caliper.encoders.build_encoder`; each network gets an encoder of its own.
        spec: of the observations.
        action_dim: length of an action.
        device: where the agent lives.
        seed: of its weights and of its random numbers; torch's global generator is left as it was.

    Raises:
        CaliperError: unknown name or key, a value that makes no sense, or an encoder that does not fit the
            images.
    """
    options = {key: value for key, value in cfg.items() if key != "name"}
    name = cfg.get("name")
    if name not in AGENTS:
        raise CaliperError(f"Unknown agent {name!r}; choose one of {', '.join(sorted(AGENTS))}.")
    make, make_config = AGENTS[name]
    known = sorted(field.name for field in fields(make_config))
    for key in options:
        if key not in known:
            raise CaliperError(f"The agent {name} has no key {key!r}; it knows {', '.join(known)}.")
    config = make_config(**options)
    _check_values(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(config, lambda: build_encoder(encoder_cfg, spec), action_dim, device, seed)


def _check_values(config: AgentConfig) -> None:
    for limit, (holds, keys) in LIMITS.items():
        for key in keys.split():
            value = getattr(config, key, None)
            entries = value if isinstance(value, Sequence) else [] if value is None else [value]
            if not all(map(holds, entries)):
                raise CaliperError(f"agent.{key}={value} makes no sense; it must be {limit}")


__all__ = ["AGENTS", "Agent", "Noise", "build_agent"]
