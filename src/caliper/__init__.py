"""Caliper: calibrated Q-learning from pixels for robot manipulation, offline then online.

    import caliper

    run = caliper.train("preset=pick_place_tray_demo", seed=1)
    policy = run.policy()

What is offered here is described in `caliper.api`, and imported when it is first asked for. The tasks are in
Gymnasium's registry as soon as Gymnasium is imported as well.
"""

from typing import TYPE_CHECKING, Any

from caliper.registration import announce

if TYPE_CHECKING:
    from caliper.api import Run, collect, load_policy, load_run, make_env, train
    from caliper.errors import CaliperError

__version__ = "0.1.0"
__all__ = ["CaliperError", "Run", "collect", "load_policy", "load_run", "make_env", "train"]

announce()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'caliper' has no attribute '{name}'")
    from caliper import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
