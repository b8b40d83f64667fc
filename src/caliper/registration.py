"""Caliper's tasks in Gymnasium's registry: `caliper/Lift-v0` and the others, without an import of Gymnasium.

`import caliper` comes before `import gymnasium` in a sorted list, and Gymnasium has no entry points to be
found by; so where it is not imported yet, a finder waits for its registry. A run that never uses Gymnasium
does not pay for it.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

REGISTRY = "gymnasium.envs.registration"


def announce() -> None:
    """Registers every task with Gymnasium: now if it is imported, else as soon as it is."""
    if REGISTRY in sys.modules:
        register_envs(sys.modules[REGISTRY])
    elif not any(isinstance(finder, _Waiting) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Waiting())


class _Waiting:
    """A finder that finds nothing itself; it lets the registry's module register the tasks when it is run."""

    def find_spec(
        self, name: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        if name != REGISTRY:
            return None
        sys.meta_path.remove(self)
        if (spec := find_spec(name)) is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_and_register(module: ModuleType) -> None:
            run(module)
            register_envs(module)

        spec.loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec


def register_envs(registration: ModuleType) -> None:
    """Registers every task with the controller, frequency and horizon that `caliper train` gives it.

    Args:
        registration: the module `gymnasium.envs.registration`.
    """
    from importlib.resources import files

    import yaml

    for file in files("caliper.configs").joinpath("task").iterdir():
        task = dict(yaml.safe_load(file.read_text(encoding="utf-8"))["task"])
        env_id = f"caliper/{gymnasium_name(task['name'])}-v0"
        # One that another library steps, or that was registered before.
        if {"env_id", "env"} & set(task) or env_id in registration.registry:
            continue
        registration.register(
            env_id,
            entry_point="caliper.envs.gym:GymEnv",
            vector_entry_point="caliper.envs.gym:make_vector",
            kwargs={"task": task.pop("name"), **task},
        )


def gymnasium_name(task: str) -> str:
    """A task's name as Gymnasium writes names: PickPlaceCan for pick_place_can."""
    return "".join(word.capitalize() for word in task.split("_"))
