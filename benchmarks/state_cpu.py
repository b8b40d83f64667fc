"""Cal-QL on AntMaze, Franka Kitchen and Adroit's door, per CPU second: Caliper beside CORL, and its envs.

Updates, one thread: Caliper's agent as `build_agent` makes it from preset=antmaze, kitchen and adroit,
against `CalQL` of CORL (github.com/tinkoff-ai/CORL, algorithms/finetune/cal_ql.py) on the same torch, with
the same batch of 256, 10 sampled actions, maximum backup, constants and networks: CORL's own classes, whose
layers are all 256 wide and whose policy always has three of them, get the preset's layers instead. Both then
have the same number of weights, the two scalars for the scale and offset of log std among them.

Environment steps: 8 worlds of `make_envs` against Gymnasium's 8 of `make_vec(.., vectorization_mode="sync")`,
with the same seeds and the same random actions. A look at the first steps shows that both sides' observations
are equal bit for bit. gymnasium-robotics is as Caliper mends it (see `caliper.envs.gymnasium_env`): without
that the kitchen cannot be made with MuJoCo 4. No episode ends within what is timed.

The sides take turns, three times, so that other load on the machine falls on both; a ratio is the median of
the rounds' ratios. CORL is not on PyPI: clone it, and name the folder. What its file imports besides (d4rl,
gym, pyrallis, wandb) serves its environments, its command line and its log, not its update, and empty modules
stand in for it. Without CORL only the environments are measured, and nothing is written.

    python benchmarks/state_cpu.py --corl FOLDER            # full, writes benchmarks/results/state_cpu.json
    python benchmarks/state_cpu.py --corl FOLDER --quick    # under 50 s, writes nothing
"""

import importlib.util
import os
import sys
import warnings
from itertools import cycle
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import numpy as np
import torch
from _common import parser, report  # type: ignore[import-not-found]  # beside this script
from learner_cpu import rate  # type: ignore[import-not-found]  # the same

from caliper.agents.nets import perceptron
from caliper.config.build import action_length, learner_spec, make_agent, make_envs
from caliper.config.compose import compose
from caliper.envs.gymnasium_env import flatten
from caliper.types import Batch, Obs
from caliper.utils.provenance import checkout

PRESETS = {
    "antmaze": ["preset=antmaze"],
    "kitchen": ["preset=kitchen"],
    "adroit_door": ["preset=adroit", "task=adroit_door"],
}
FILE = Path("algorithms", "finetune", "cal_ql.py")
WORLDS, ROUNDS = 8, 3


def load_corl(folder):
    """CORL's file as a module; None, with a sentence, where there is no such file."""
    if folder is None or not (folder / FILE).is_file():
        where = "--corl FOLDER is not given" if folder is None else f"{folder / FILE} does not exist"
        print(f"{where}: name a clone of github.com/tinkoff-ai/CORL; only environments are measured now")
        return None
    unused = {name: ModuleType(name) for name in ("d4rl", "gym", "pyrallis", "wandb")}
    vars(unused["gym"])["Env"] = object  # in annotations
    vars(unused["pyrallis"])["wrap"] = lambda: lambda main: main  # decorates the script's main function
    spec = importlib.util.spec_from_file_location("corl_cal_ql", folder / FILE)
    module = importlib.util.module_from_spec(spec)
    with patch.dict(sys.modules, unused):
        spec.loader.exec_module(module)
    return module


def caliper_update(config, batch):
    """Caliper's update of a batch, all that it trains, and the weights of its policy and critics."""
    agent = make_agent(config, "cpu")
    networks = [*agent.actor.parameters(), *agent.critic.parameters()]
    trained = [*networks, *agent.target_critic.parameters(), agent.log_alpha]
    if config.agent["lagrange"]:
        trained.append(agent.log_lagrange)
    return lambda: agent.update(batch), trained, networks


def corl_update(corl, config, batch):
    """The same of CORL's."""
    cfg, proprio, actions = config.agent, batch.obs.proprio.shape[1], batch.action.shape[1]
    assert cfg["n_critics"] == 2 and cfg["n_target_actions"] == cfg["n_actions"]  # CORL knows nothing else
    assert cfg["precision"] == "float32" and not cfg["layer_norm"]
    actor = corl.TanhGaussianPolicy(proprio, actions, max_action=1.0)
    actor.base_network = perceptron([proprio, *cfg["actor_hidden"], 2 * actions])
    critics = [corl.FullyConnectedQFunction(proprio, actions) for _ in range(2)]
    for critic in critics:
        critic.network = perceptron([proprio + actions, *cfg["critic_hidden"], 1])
    first, second = (torch.optim.Adam(critic.parameters(), cfg["critic_lr"]) for critic in critics)
    trainer = corl.CalQL(
        critics[0],
        first,
        critics[1],
        second,
        actor,
        torch.optim.Adam(actor.parameters(), cfg["actor_lr"]),
        target_entropy=-actions,
        discount=cfg["discount"],
        backup_entropy=cfg["backup_entropy"],
        policy_lr=cfg["temperature_lr"],
        qf_lr=cfg["critic_lr"],
        soft_target_update_rate=cfg["tau"],
        bc_steps=0,
        cql_n_actions=cfg["n_actions"],
        cql_importance_sample=cfg["importance_sampling"],
        cql_lagrange=cfg["lagrange"],
        cql_target_action_gap=cfg["gap"],
        cql_temp=cfg["cql_temperature"],
        cql_alpha=cfg["conservative_weight"],
        cql_max_target_backup=True,
    )
    networks = [p for net in (actor, *critics) for p in net.parameters()]
    others = [trainer.target_critic_1, trainer.target_critic_2, trainer.log_alpha]
    if cfg["lagrange"]:
        others.append(trainer.log_alpha_prime)
    reward, terminal, mc_return = (x[:, None] for x in (batch.reward, batch.terminal, batch.mc_return))
    tensors = [batch.obs.proprio, batch.action, reward, batch.next_obs.proprio, terminal, mc_return]
    trained = [*networks, *(p for module in others for p in module.parameters())]
    return lambda: trainer.train(tensors), trained, networks


def random_batch(config):
    """A batch as the preset's, of random numbers."""
    b, proprio, actions = config.batch_size, learner_spec(config).proprio, action_length(config)

    def obs():
        return Obs(torch.zeros(b, 0, 3, 1, 1, dtype=torch.uint8), torch.randn(b, proprio))

    action = 2 * torch.rand(b, actions) - 1
    return Batch(obs(), action, torch.randn(b), obs(), torch.zeros(b), torch.randn(b))


def by_turns(ours, peer, factor=1):
    """Rates of two measurements that take turns, and their ratio: the medians, and the ratios' range."""
    rounds = np.array([[factor * ours(), factor * peer()] for _ in range(ROUNDS)])
    ratios = rounds[:, 0] / rounds[:, 1]
    ours_typical, peer_typical = np.median(rounds, 0).tolist()
    return {
        "ours": round(ours_typical, 3),
        "peer": round(peer_typical, 3),
        "ratio": round(float(np.median(ratios)), 2),
        "ratio_from": round(float(ratios.min()), 2),
        "ratio_to": round(float(ratios.max()), 2),
    }


def updates(corl, config, n):
    """Both sides' updates per CPU second."""
    torch.manual_seed(0)
    batch = random_batch(config)
    ours, our_trained, our_weights = caliper_update(config, batch)
    theirs, their_trained, their_weights = corl_update(corl, config, batch)
    count = sum(p.numel() for p in our_weights)
    assert count == sum(p.numel() for p in their_weights), "the networks are not the same"
    for step in (ours, theirs):  # makes the optimisers' state
        step()
    rates = by_turns(lambda: rate(ours, n, our_trained), lambda: rate(theirs, n, their_trained))
    cfg = config.agent
    layers = {"actor": list(cfg["actor_hidden"]), "critic": list(cfg["critic_hidden"])}
    return rates | {"weights": count, **layers, "lagrange": cfg["lagrange"]}


def env_steps(config, n):
    """Both sides' environment steps per CPU second."""
    import gymnasium

    env, task = make_envs(config, WORLDS), config.task
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # published data belongs to versions that Gymnasium calls outdated
        peer = gymnasium.make_vec(task.env_id, WORLDS, vectorization_mode="sync", **task.kwargs)
        for world in peer.envs:
            if left := getattr(world.unwrapped, "tmp_xml_file_path", None):  # AntMaze's scene
                Path(left).unlink(missing_ok=True)
        space, rng = peer.single_action_space, np.random.default_rng(0)
        middle, reach = (space.high + space.low) / 2, (space.high - space.low) / 2
        moves = rng.uniform(-1, 1, (50, WORLDS, env.action_dim)).astype(np.float32)
        our_moves, their_moves = cycle(torch.as_tensor(moves)), cycle(middle + moves * reach)
        env.reset(seeds=torch.arange(WORLDS))
        peer.reset(seed=list(range(WORLDS)))
        for _ in range(5):
            step, (seen, *_) = env.step(next(our_moves)), peer.step(next(their_moves))
            theirs = [flatten(one) for one in gymnasium.vector.utils.iterate(peer.observation_space, seen)]
            assert np.array_equal(step.obs.proprio.numpy(), np.stack(theirs)), "the worlds are not the same"
    assert 5 + ROUNDS * n < task.horizon, "an episode would end"
    ours_moving, theirs_moving = (
        [torch.from_numpy(world.unwrapped.data.qpos) for world in worlds] for worlds in (env.envs, peer.envs)
    )
    rates = by_turns(
        lambda: rate(lambda: env.step(next(our_moves)), n, ours_moving),
        lambda: rate(lambda: peer.step(next(their_moves)), n, theirs_moving),
        WORLDS,
    )
    peer.close()
    return rates | {"env_id": task.env_id}


def main():
    """Measures and reports."""
    command = parser(__doc__.splitlines()[0])
    command.add_argument("--corl", type=Path, help="a clone of github.com/tinkoff-ai/CORL")
    args = command.parse_args()
    torch.set_num_threads(1)
    corl = load_corl(args.corl)
    learner, envs, load = {}, {}, os.getloadavg()[0]
    for name, words in PRESETS.items():
        config = compose(words)
        envs[name] = env_steps(config, 10 if args.quick else 60)
        print(f"{name}: environment steps {envs[name]}", flush=True)
        if corl is not None:
            learner[name] = updates(corl, config, 1 if args.quick else 4)
            print(f"{name}: updates {learner[name]}", flush=True)
    report(
        "state_cpu",
        *({name: row[side] for name, row in learner.items()} for side in ("ours", "peer", "ratio")),
        "Cal-QL updates per CPU second, one thread, batch 256",
        ("torch", "gymnasium", "gymnasium-robotics", "mujoco", "numpy"),
        args.quick or corl is None,
        corl=corl and checkout(args.corl)["commit"],
        updates=learner,
        env_steps=envs,
        rounds=ROUNDS,
        load_average=[round(x, 1) for x in (load, os.getloadavg()[0])],
        nice=os.nice(0),
    )


if __name__ == "__main__":
    main()
