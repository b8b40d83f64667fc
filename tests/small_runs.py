"""Words of runs that take seconds, on `lift`, for tests and for campaigns of faults."""

SMALL = [
    "task=lift",
    "threads=1",
    "task.horizon=6",
    "data.episodes=4",
    "data.num_envs=2",
    "batch_size=8",
    "online.num_envs=2",
    "online.warmup_steps=6",
    "online.capacity=60",
    "evaluation.episodes=2",
    "evaluation.final_episodes=3",
    "evaluation.num_envs=2",
    "video.episodes=0",
    "log.every=1",
    "log.wandb=disabled",  # seconds a run
]
ACTOR = ["agent.actor_hidden=[16]"]
CRITIC = ["agent.critic_hidden=[16]", "agent.n_critics=2"]
SAMPLES = ["agent.n_actions=2", "agent.n_target_actions=2"]
AGENTS = {
    "bc": ACTOR,
    "sac": ACTOR + CRITIC,
    "cql": ACTOR + CRITIC + SAMPLES,
    "calql": ACTOR + CRITIC + SAMPLES,
    "rlpd": ACTOR + CRITIC,
    "wsrl": ACTOR + CRITIC + SAMPLES,
    "qtopt": [*CRITIC, "offline.bc_updates=0"],
    "iql": ACTOR + CRITIC,
    "awac": ACTOR + CRITIC,
    "td3bc": ACTOR + CRITIC,
    "fql": ACTOR + CRITIC,
    "qc": [*ACTOR, *CRITIC, "agent.chunk=2", "agent.best_of=4"],
}
