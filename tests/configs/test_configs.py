"""The YAML files: each one composes, says what the code says, and gives way to the command line."""

import inspect
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path

import pytest
import yaml

from caliper import configs
from caliper.agents import AGENTS
from caliper.config import schema
from caliper.config.compose import compose, load, to_yaml, usual_values
from caliper.config.deviations import deviations
from caliper.config.meanings import choices, meanings
from caliper.config.schema import RunConfig
from caliper.config.validate import check
from caliper.encoders import ENCODERS
from caliper.envs.tasks import TASKS
from caliper.errors import CaliperError

ROOM = 64 << 30  # bytes


@pytest.fixture(autouse=True)
def room(monkeypatch):
    """Whether a preset fits is asked of no particular machine here."""
    monkeypatch.setattr("caliper.config.estimate.free_memory", lambda: ROOM)


FOLDER = Path(configs.__file__).parent
GROUPS = {"agent": sorted(AGENTS), "encoder": sorted(choices("encoder"))}
TASK_FILES, PRESETS = (
    sorted(p.stem for p in (FOLDER / group).glob("*.yaml")) for group in ("task", "preset")
)
METHODS = sorted(choices("agent"))  # the algorithms, and what is one with other settings of the driver


# The paper's state benchmarks, through Gymnasium; each family has a preset with the paper's settings.
BENCHMARKS = [name for name in TASK_FILES if name.startswith(("antmaze", "kitchen", "adroit"))]
PAPER = [name for name in PRESETS if name.startswith(("antmaze", "kitchen", "adroit"))]


def content(group, name):
    if group in GROUPS:
        return choices(group)[name]
    path = FOLDER / group / f"{name}.yaml"
    return yaml.safe_load(path.read_text()) or {} if path.exists() else {}


def holds(part, values):
    """Whether a part of a configuration has these values, and perhaps more."""
    part = part if isinstance(part, dict) else asdict(part)
    return all(holds(part[k], v) if isinstance(v, dict) else part[k] == v for k, v in values.items())


def test_every_part_has_its_file_and_every_file_its_part():
    assert set(AGENTS) <= set(METHODS)
    assert {p.stem for p in (FOLDER / "driver").glob("*.yaml")} <= set(METHODS)
    assert set(GROUPS["encoder"]) == set(ENCODERS)
    assert set(TASK_FILES) - set(BENCHMARKS) - {"robosuite"} == set(TASKS)


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group, names in GROUPS.items() for name in names]
)
def test_one_word_chooses_a_part(group, name):
    random = ["encoder.weights=random"] * (name == "pretrained")  # the file must be named
    config = compose([f"{group}={name}", "task.size=64", *random])
    asked = content("driver", name).get("agent", {}) if group == "agent" else {}
    asked |= {"weights": "random"} if random else {}
    assert getattr(config, group) == content(group, name) | asked
    assert getattr(config, group)["name"] == name
    check(config)


@pytest.mark.parametrize("name", GROUPS["agent"])
def test_an_agents_file_holds_every_key_with_its_default(name):
    def plain(value):
        return list(value) if isinstance(value, tuple) else value

    defaults = {f.name: plain(f.default) for f in fields(AGENTS[name][1]) if f.default is not MISSING}
    assert content("agent", name) == {"name": name, **defaults}


@pytest.mark.parametrize("name", GROUPS["encoder"])
def test_an_encoders_file_holds_every_option_with_its_default(name):
    parameters = inspect.signature(ENCODERS[name]).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.name != "spec"}
    defaults = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    assert content("encoder", name) == {"name": name, **defaults}


@pytest.mark.parametrize("task", [name for name in TASK_FILES if name not in BENCHMARKS])
def test_a_task_names_an_encoder_which_the_command_line_overrides(task):
    named = [d["override /encoder"] for d in content("task", task)["defaults"] if "override /encoder" in d]
    assert len(named) == 1
    config = compose([f"task={task}"])
    assert config.task.name == task and config.encoder["name"] == named[0]
    check(config)
    for words in (["encoder=d4pg", f"task={task}"], [f"task={task}", "encoder=d4pg"]):
        assert compose(words).encoder == content("encoder", "d4pg")


@pytest.mark.parametrize("task", BENCHMARKS)
def test_a_benchmark_is_seen_as_state_and_rewarded_as_in_the_paper(task):
    pytest.importorskip("gymnasium_robotics", reason="needs the extra robotics")
    config = compose([f"task={task}"])
    assert (config.task.name, config.encoder["name"], config.task.cameras) == (task, "state", [])
    dense = task == "kitchen"
    assert (config.reward.scale, config.reward.bias) == ((1, -4) if dense else (10, -5))
    assert config.reward.sparse == (not dense) == (not config.task.dense)
    assert config.task.successes_only == task.startswith("adroit")
    check(config)


def test_the_papers_settings():
    """The table of the official scripts (Kitchen: of a fork and of WSRL)."""
    rows = {
        "antmaze": ([256] * 2, [256] * 4, 5.0, True, 0.8, True, 1_000_000, 1_000_000, 0.5),
        "kitchen": ([512] * 3, [512] * 3, 5.0, False, 1.0, False, 500_000, 1_500_000, 0.25),
        "adroit": ([512] * 2, [512] * 3, 1.0, False, 1.0, True, 20_000, 200_000, 0.5),
    }
    for name, row in rows.items():
        c = compose([f"preset={name}"])
        keys = "actor_hidden critic_hidden conservative_weight lagrange gap importance_sampling"
        assert (
            *(c.agent[k] for k in keys.split()),
            c.offline.updates,
            c.online.env_steps,
            c.online.mixing,
        ) == row
        assert (c.agent["n_actions"], c.agent["discount"], c.batch_size, c.online.utd) == (10, 0.99, 256, 1)
        assert c.task.name.startswith(name)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_composes_and_gives_way(preset):
    if preset in PAPER:
        pytest.importorskip("gymnasium_robotics", reason="needs the extra robotics")
    config = compose([f"preset={preset}"])
    check(
        compose([f"preset={preset}", "device=cpu", "learner=eager"])
    )  # a preset for a GPU is in order without one
    own = content("preset", preset)
    for group, values in own.items():
        if group in ("agent", "data", "offline", "online"):
            assert holds(getattr(config, group), values)
    changed = compose(
        [f"preset={preset}", "task=pick_place_can", "encoder=d4pg", "seed=7", "offline.updates=3"]
    )
    assert (changed.task.name, changed.encoder["name"]) == ("pick_place_can", "d4pg")
    assert (changed.seed, changed.offline.updates) == (7, 3)
    goes_beyond = config.agent != compose(["agent=calql"]).agent
    assert bool(deviations(asdict(config))) == goes_beyond  # what goes beyond is said


def test_without_a_preset_nothing_goes_beyond_the_published_algorithm():
    config, usual = asdict(compose([])), usual_values()
    for part in ("data", "reward", "offline", "online", "evaluation", "video", "log"):
        assert config[part] == usual[part]
    assert deviations(config) == []


def test_deviations_are_read_off_the_values():
    config = compose(
        ["preset=pick_place_tray_demo", "agent.conservative_weight=1.0", "offline.bc_updates=300"]
    )
    said = {d.key: (d.value, d.published) for d in deviations(asdict(config))}
    assert said["agent.conservative_weight"] == (1.0, 5.0) and said["offline.bc_updates"] == (300, 0)
    assert said["batch_size"] == (64, 256) and "agent.critic_lr" not in said
    (weight,) = [str(d) for d in deviations(asdict(config)) if d.key == "agent.conservative_weight"]
    assert weight == "agent.conservative_weight = 1, published 5 (W)"
    for name in ("nobodys", ["calql"]):  # a stranger's file may say anything
        assert deviations({"agent": {"name": name}}) == deviations({}) == []


SECTIONS = {
    "": RunConfig, "task": schema.TaskConfig, "sim": schema.SimConfig,
    "data": schema.DataConfig, "data.prior": schema.PriorConfig,
    "data.appearance": schema.AppearanceConfig, "online.appearance": schema.AppearanceConfig,
    "reward": schema.RewardScale, "offline": schema.OfflineConfig,
    "online": schema.OnlineConfig, "evaluation": schema.EvalConfig, "video": schema.VideoConfig,
    "log": schema.LogConfig,
}  # fmt: skip
SAID_ABOVE = {f"data.prior.{key}" for key in ("start", "stage", "mixture")} | {"reward.scale", "reward.bias"}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_stands_in_train_yaml_with_its_meaning_and_limits(section):
    """What is said of a key's limits beside it is what is checked."""
    for field in fields(SECTIONS[section]):
        name = f"{section}.{field.name}".removeprefix(".")
        if "limits" not in field.metadata or name in ("task.name", "sim.name"):
            continue
        comment = meanings()[name]
        assert comment or name in SAID_ABOVE, f"{name} says nothing"
        assert comment.endswith(str(field.metadata["limits"])), name


def test_composing_twice_gives_the_same():
    assert compose(["task=lift"]) == compose(["task=lift"])
    with pytest.raises(CaliperError):
        compose(["task=nothing"])
    assert compose(["task=lift"]).task.name == "lift"  # a refusal leaves no trace


@pytest.mark.parametrize("method", METHODS)
def test_a_method_goes_with_every_preset(method):
    for preset in [name for name in PRESETS if name not in PAPER]:
        prior = ["data.prior.episodes=1"] if method == "cog" else []
        config = compose([f"preset={preset}", f"agent={method}", "device=cpu", "learner=eager", *prior])
        check(config)
        own = content("driver", method)
        assert config.method == own.get("method")
        for group in ("agent", "offline", "online"):  # what makes the method, a preset does not change
            part = getattr(config, group)
            for key, value in own.get(group, {}).items():
                assert (part[key] if isinstance(part, dict) else getattr(part, key)) == value
        published = {k: v for k, v in choices("agent")[config.agent["name"]].items() if k != "name"}
        said = {d.key.removeprefix("agent.") for d in deviations(asdict(config))}
        assert said & published.keys() == {k for k, v in published.items() if config.agent[k] != v}


def test_what_a_preset_sets_for_other_agents_is_dropped_and_what_the_user_sets_is_not():
    config = compose(["preset=pick_place_tray_demo", "agent=bc"])
    for key in ("bc_weight", "actor_lr"):  # cloning has a learning rate of its own
        assert key not in config.agent
    assert config.agent["precision"] == "auto" and "agent.precision" in [
        d.key for d in deviations(asdict(config))
    ]
    with pytest.raises(CaliperError, match=r"bc has no key 'bc_weight'"):
        check(compose(["preset=pick_place_tray_demo", "agent=bc", "agent.bc_weight=0.5"]))


@pytest.mark.parametrize(
    ("name", "keys"),
    [("bc", "actor_lr critic_lr"), ("qtopt", "actor_hidden actor_lr actor_every bc_lr bc_weight")],
)
def test_an_agent_has_no_key_for_what_it_lacks(name, keys):
    assert not set(keys.split()) & content("agent", name).keys()


def test_a_run_saved_with_keys_of_other_agents_loads_without_them(tmp_path):
    config, path = compose(["agent=qtopt"]), tmp_path / "config.yaml"
    old = {"actor_hidden": [256, 256], "actor_lr": 1e-4, "bc_lr": 3e-4, "bc_weight": 0.0}
    path.write_text(to_yaml(replace(config, agent=config.agent | old)))
    assert load(path, []) == config
    with pytest.raises(CaliperError, match=r"there is no key 'agent\.actor_lr'"):
        load(path, ["agent.actor_lr=1e-3"])
    path.write_text(to_yaml(replace(config, agent=config.agent | {"nobodys": 1})))
    with pytest.raises(CaliperError, match="qtopt has no key 'nobodys'"):
        check(load(path, []))


@pytest.mark.parametrize("preset", [name for name in PRESETS if name not in PAPER])
def test_state_observations_go_with_every_preset(preset):
    config = compose([f"preset={preset}", "obs=state", "device=cpu", "learner=eager"])
    check(config)
    assert (config.task.obs, config.encoder["name"]) == ("state", "state")
    with pytest.raises(CaliperError, match=r"task.obs=state.*conv.*obs=state"):
        check(compose(["task.obs=state", "encoder=conv"]))
