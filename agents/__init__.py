"""Agents by name: `build_agent({"name": "calql", ...}, {"name": "conv"}, spec, action_dim, device, seed)`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch

from caliper.agents.awac import AWAC, AWACConfig
from caliper.agents.base import Agent, AgentConfig, Noise
from caliper.agents.bc import BC, BCConfig
from caliper.agents.calql import CalQL
from caliper.agents.cql import CQL, CQLConfig
from caliper.agents.fql import FQL, FQLConfig
from caliper.agents.iql import IQL, IQLConfig
from caliper.agents.qc import QC, QCConfig
from caliper.agents.qtopt import QTOpt, QTOptConfig
from caliper.agents.rlpd import RLPD, RLPDConfig
from caliper.agents.sac import SAC, SACConfig
from caliper.agents.td3bc import TD3BC, TD3BCConfig
from caliper.agents.wsrl import WSRL, WSRLConfig
from caliper.encoders import build_encoder
from caliper.errors import CaliperError, one_of
from caliper.limits import check_limits, check_types
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
    "fql": (FQL, FQLConfig),
    "qc": (QC, QCConfig),
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
        CaliperError: unknown name or key, a value of another type or that makes no sense, or an encoder that
            does not fit the images.
    """
    options = {key: value for key, value in cfg.items() if key != "name"}
    name = cfg.get("name")
    if name not in AGENTS:
        raise CaliperError(f"agent.name={name} is unknown; {one_of(sorted(AGENTS), name)}")
    make, make_config = AGENTS[name]
    known = sorted(field.name for field in fields(make_config))
    for key in options:
        if key not in known:
            raise CaliperError(f"The agent {name} has no key {key!r}; it knows {', '.join(known)}.")
    check_types("agent", options, make_config)
    config = make_config(**options)
    check_limits(make_config, vars(config), "agent")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(config, lambda: build_encoder(encoder_cfg, spec), action_dim, device, seed)


__all__ = ["AGENTS", "Agent", "Noise", "build_agent"]
