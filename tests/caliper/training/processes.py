"""Ranks of a run as forked processes of the test's own: nothing has to be imported again."""

import os
import signal
import sys
import time
import traceback
import warnings

import torch
import torch.distributed as dist

TIMEOUT = 60.0
KEPT: list[object] = []  # a store ends with its last reference


def start(count, work, folder):
    """Process numbers of ranks that do `work(rank)`; what each prints is in folder/rank.out and .err."""
    folder.mkdir(parents=True, exist_ok=True)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # as torchrun's agent has
    KEPT.append(store)
    found = []
    for rank in range(count):
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # Python 3.12 on threads, of which none is used
            number = os.fork()
        if number == 0:
            _be(rank, count, store.port, work, folder)
        found.append(number)
    return found


def _be(rank, count, port, work, folder):
    status = 1
    try:
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            **{"RANK": str(rank), "WORLD_SIZE": str(count)},
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            **{"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count)},
        }
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder / f"{rank}.{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")  # not what pytest has put there
        torch.set_num_threads(1)
        work(rank)
        status = 0
    except SystemExit as error:
        status = error.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def statuses(numbers, timeout=TIMEOUT):
    """How the processes ended, as from waitpid; what is still at work after the time is killed."""
    ended, until = {}, time.monotonic() + timeout
    while len(ended) < len(numbers):
        for number in set(numbers) - set(ended):
            if time.monotonic() > until:
                os.kill(number, signal.SIGKILL)
            done, status = os.waitpid(number, os.WNOHANG)
            if done:
                ended[number] = os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return [ended[number] for number in numbers]
