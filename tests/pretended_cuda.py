"""A CUDA device that is not there: tensors of the CPU that say they are on it, operations that believe it.

Memory is marked, not tensors, so that views, parameters and gradients are where their memory is. What torch
refuses on a real GPU is refused: operations on memory of both kinds, generators of another device, NumPy's
look at the device's memory. What waits for the device is noted. Warp's arrays count as the device's.
"""

from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
import warp as wp
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from caliper.envs import graphs
from caliper.envs.engines import warp as warp_engine

CUDA = torch.device("cuda", 0)
# These take memory from one device to the other; every other operation has all its tensors on one.
TRANSFERS = ("copy_", "_to_copy", "lift_fresh", "alias", "detach", "set_")
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal")
JOINS = ("cat", "stack", "_fused_adamw_", "_foreach")  # not even a number may come from elsewhere


class _Marks:
    """The memory of the pretended device, kept so that no other gets its address."""

    def __init__(self):
        self.storages = {}
        self.leaving = False  # what is copied now leaves the device

    def add(self, tensor):
        if torch.is_tensor(tensor) and tensor.numel():
            storage = tensor.untyped_storage()
            self.storages[storage.data_ptr()] = storage
        return tensor

    def __contains__(self, tensor):
        return tensor.untyped_storage().data_ptr() in self.storages


def _is_cuda(device):
    return device is not None and torch.device(device).type == "cuda"


class _Devices(TorchFunctionMode):
    """Reads the devices that Python names, and makes tensors on the CPU instead."""

    def __init__(self, marks, waits):
        super().__init__()
        self.marks, self.waits = marks, waits

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        marked = bool(args) and torch.is_tensor(args[0]) and args[0] in self.marks
        if marked and name in ("tolist", "cpu"):
            self.waits.append(name)
        if name == "cpu":
            return self._leave(args[0]) if marked else args[0]
        if name in ("numpy", "__array__") and marked:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if name == "to":
            return self._to(func, args, kwargs, marked)
        generator, device = kwargs.get("generator"), kwargs.get("device")
        if generator is not None and hasattr(generator, "pretended"):
            here = _is_cuda(device) or marked
            assert generator.pretended == here, f"{name}: the generator is on another device"
        if not _is_cuda(device):
            return func(*args, **kwargs)
        made = func(*args, **{**kwargs, "device": "cpu"})
        if (
            torch.is_tensor(args[0] if args else None)
            and made.data_ptr() == args[0].data_ptr()
            and not marked
        ):
            made = made.clone()
        return self.marks.add(made)

    def _to(self, func, args, kwargs, marked):
        target = kwargs.pop("device", None)
        rest = []
        for arg in args[1:]:
            if torch.is_tensor(arg):
                target, arg = (CUDA if arg in self.marks else "cpu"), arg.dtype
            elif isinstance(arg, (str, torch.device)):
                target = arg
            if isinstance(arg, torch.dtype):
                rest.append(arg)
        out = func(args[0], *rest, **kwargs) if rest or kwargs else args[0]
        if target is None or _is_cuda(target) == marked:
            return out
        if not _is_cuda(target):
            self.waits.append("to")
            return self._leave(out)
        return self.marks.add(out.clone())

    def _leave(self, tensor):
        self.marks.leaving = True
        try:
            return tensor.clone()
        finally:
            self.marks.leaving = False


class _Operations(TorchDispatchMode):
    """Refuses what mixes devices, and marks what operations on marked memory make."""

    def __init__(self, marks, waits):
        super().__init__()
        self.marks, self.waits = marks, waits

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [t for t in tree_leaves((args, kwargs)) if torch.is_tensor(t) and t.numel()]
        here = [t for t in given if t in self.marks]
        name = func._schema.name.removeprefix("aten::")
        if here and name not in TRANSFERS:
            strict = name.startswith(JOINS)
            strangers = [t for t in given if t not in self.marks and (t.dim() or strict)]
            assert not strangers, (
                f"{func}: memory of the GPU meets the CPU's, {[tuple(t.shape) for t in strangers]}"
            )
        if here and name in WAITS:
            self.waits.append(name)
        out = func(*args, **kwargs)
        # The backward pass makes its zeros where the gradients are, without asking Python.
        backward = not given and torch._C._current_autograd_node() is not None
        if (here and name != "copy_" and not self.marks.leaving) or backward:
            tree_map(self.marks.add, out)
        return out


class _Generator(torch.Generator):
    def __new__(cls, device="cpu"):
        generator = super().__new__(cls, "cpu")
        generator.pretended = _is_cuda(device)
        return generator


@contextmanager
def pretended_cuda():
    """A place with a pretended CUDA device; yields the list of what has waited for it, in order."""
    marks, waits, to_torch = _Marks(), [], wp.to_torch
    device = torch._C.TensorBase.device.__get__
    autocast, cpu = torch.autocast, wp.get_device("cpu")
    patches = {
        (torch.Tensor, "device"): property(lambda t: CUDA if t in marks else device(t)),
        (torch.cuda, "mem_get_info"): lambda device: (1 << 30, 1 << 30),
        (torch.Tensor, "is_cuda"): property(lambda t: t in marks),
        (torch, "Generator"): _Generator,
        (torch, "autocast"): lambda kind, *args, **kwargs: autocast("cpu", *args, **kwargs),
        (wp, "to_torch"): lambda *args, **kwargs: marks.add(to_torch(*args, **kwargs)),
        (wp, "device_to_torch"): lambda device: CUDA,
        (graphs, "warp_device"): lambda device: cpu,
        (warp_engine, "warp_device"): lambda device: cpu,
        (graphs.TorchGraph, "_queue"): lambda self, work: work(),
    }
    with ExitStack() as stack:
        for (owner, name), value in patches.items():
            stack.enter_context(mock.patch.object(owner, name, value, create=True))
        stack.enter_context(_Devices(marks, waits))
        stack.enter_context(_Operations(marks, waits))
        yield waits
