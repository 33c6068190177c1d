"""What strangers give to export and sparsify: the right file, or one line that says what to do."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import kernelprune as kp
from kernelprune.errors import Error, ShapeError, SparsityWarning

X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5),
    ).eval()  # fmt: skip


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = network()

    def forward(self, x):
        return self.inner(x)


class AnyArguments(Wrapped):
    """As the models of ultralytics are called."""

    def forward(self, x, *args, **kwargs):
        return self.inner(x, *args, **kwargs)


class Auxiliary(Wrapped):
    """A second head while it trains, as GoogLeNet has."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 5)

    def forward(self, x):
        return (self.inner(x), self.head(x.mean((2, 3)))) if self.training else self.inner(x)


class Nested(Wrapped):
    def forward(self, x):
        y = self.inner(x)
        return {"scores": y, "more": [y.relu(), None]}


class Returns(Wrapped):
    def __init__(self, result):
        super().__init__()
        self.result = result

    def forward(self, x):
        return (self.inner(x), self.result) if self.result is not None else None


class Branches(Wrapped):
    def forward(self, x):
        return self.inner(x) if x.sum() > 0 else self.inner(-x)


def exported(dynamic: bool) -> torch.export.ExportedProgram:
    shapes = ({0: torch.export.Dim("batch", min=1)},) if dynamic else None
    return torch.export.export(network(), (X,), dynamic_shapes=shapes)


def made_for_inference() -> nn.Module:
    with torch.inference_mode():
        return network()


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return network()


def with_sparse_weight(layout: str, layer: int = 5) -> nn.Module:
    model = network()
    sparse = getattr(model[layer].weight.detach(), layout)()
    model[layer].weight = nn.Parameter(sparse, requires_grad=False)
    return model


def spoilt(layer: int, role: str, value: float) -> nn.Module:
    model = network()
    getattr(model[layer], role).data.view(-1)[1] = value
    return model


def too_large() -> nn.Module:
    model = spoilt(1, "weight", 3e38)
    model[0].weight.data.fill_(9.0)
    return model


def mixed_types() -> nn.Module:
    model = network()
    model[5].double()
    return model


# Model -> the layers that sparsify swaps.
RIGHT = {
    "a plain one": (network, 1),
    "any arguments": (AnyArguments, 1),
    "an auxiliary head": (Auxiliary, 1),
    "nested outputs": (Nested, 1),
    "in inference mode": (made_for_inference, 1),
    "DataParallel": (lambda: nn.DataParallel(network()), 1),
    "torch.compile": (lambda: torch.compile(network(), backend="eager"), 1),
    "float64": (lambda: network().double(), 1),
    "torch.fx": (lambda: torch.fx.symbolic_trace(network()), 1),
    "torch.export": (lambda: exported(True).module(), None),
    "float16": (lambda: network().half(), None),
    "bfloat16": (lambda: network().bfloat16(), None),
}


@pytest.mark.parametrize("name", RIGHT)
def test_models_of_all_kinds(name: str, tmp_path, capfd) -> None:
    """A model that torch can export is refused, changed, or computes something else in the file."""
    make, swapped = RIGHT[name]
    model, path = make(), tmp_path / "model.safetensors"
    modes = [module.training for module in model.modules()]
    with warnings.catch_warnings():
        warnings.simplefilter("error", SparsityWarning)
        kp.export(model, X, path)
    assert [module.training for module in model.modules()] == modes
    given = X.to(next(model.parameters()).dtype)
    with torch.no_grad():
        wanted = torch.utils._pytree.tree_leaves(copy.deepcopy(model)(given))[0].float()
    found = kp.Engine(path).run(X)
    found = found[0] if isinstance(found, (tuple, list)) else found
    close = 0.05 if given.dtype.itemsize == 2 else 1e-4
    assert np.allclose(found, wanted.numpy(), rtol=close, atol=close)
    if swapped is None:
        with pytest.raises(Error, match="float32|no layers"):
            kp.sparsify(model, below=2)
    else:
        sparse = kp.sparsify(model, below=2)
        assert sum(isinstance(part, kp.SparseConv2d) for part in sparse.modules()) == swapped
    assert "".join(capfd.readouterr()) == ""


# Model -> (what export says, what sparsify says; None where it has nothing to say).
WRONG = {
    "traced": (lambda: torch.jit.trace(network(), X), "TorchScript", "TorchScript"),
    "scripted": (lambda: torch.jit.script(network()), "TorchScript", "TorchScript"),
    "scripted inside": (
        lambda: nn.Sequential(torch.jit.script(network())), "'0' is TorchScript", "TorchScript",
    ),
    "a program": (lambda: exported(True), r"give program.module\(\)", "not a torch.nn.Module"),
    "a fixed batch": (lambda: exported(False).module(), "constant", "no layers"),
    "a state dict": (lambda: network().state_dict(), "load it into a model", "not a torch.nn"),
    "a class": (lambda: Wrapped, r"make one first: Wrapped\(", "not a torch.nn.Module"),
    "meta": (on_meta, "'0.weight' lies on the meta device", "meta device"),
    "lazy": (lambda: nn.Sequential(nn.LazyConv2d(4, 3)), "lazy", "lazy"),
    "sparse": (lambda: with_sparse_weight("to_sparse"), "'5.weight' is a sparse", None),
    "a sparse convolution": (
        lambda: with_sparse_weight("to_sparse", 0), "'0.weight' is a sparse", "'0' has a sparse",
    ),
    "compressed": (lambda: with_sparse_weight("to_sparse_csr"), "'5.weight' is a sparse", None),
    "NaN": (lambda: spoilt(0, "weight", np.nan), "layer '0' holds NaN in its weight", None),
    "infinite": (lambda: spoilt(5, "bias", np.inf), "layer '5' holds infinite", None),
    "NaN statistics": (lambda: spoilt(1, "running_mean", np.nan), "'1' holds NaN in its run", None),
    "variance below 0": (
        lambda: spoilt(1, "running_var", -1.0), "'0': its weights are beyond float32", None,
    ),
    "beyond float32": (too_large, "'0': its weights are beyond float32", None),
    "two types": (mixed_types, "must have the same dtype", None),
    "nothing": (lambda: Returns(None), "returns nothing", None),
    "a string": (lambda: Returns("cat"), "output 'cat' does not depend on", None),
    "a number": (lambda: Returns(3), "output 3 does not depend on", None),
    "branches": (Branches, "data-dependent", None),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:.*torch.jit", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", WRONG)
def test_models_that_cannot_be_exported(name: str, tmp_path, capfd) -> None:
    """A stranger's mistake ends in a traceback, in torch's own words over several pages, or in a
    message that blames something else."""
    make, by_export, by_sparsify = WRONG[name]
    model = make()
    capfd.readouterr()
    with pytest.raises(Error, match=by_export) as found:
        kp.export(model, X, tmp_path / "model.safetensors")
    assert len(str(found.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())
    if by_sparsify is not None:
        with pytest.raises(Error, match=by_sparsify):
            kp.sparsify(model, below=2)
    assert "".join(capfd.readouterr()) == ""


EXAMPLES = {
    "an array": (X.numpy(), "ndarray, not a torch.Tensor .torch.from_numpy"),
    "a list": ([X], "is a list, .* several inputs are a tuple"),
    "a shape": ((1, 3, 6, 6), "is a int"),
    "a number": (3, "is a int"),
    "None": (None, "is a NoneType"),
    "no input": ((), "an empty tuple"),
    "no image": (X[:0], r"\[0, 3, 6, 6\], no image"),
    "no pixels": (X[..., :0], "no pixels"),
    "no batch": (X[0], r"example per image: \[\[6, 6\]\].*x\[None\] adds the batch"),
    "one pixel": (X[0, 0, 0], r"\[6\]; it must be a batch .*x\[None\] adds the batch"),
    "video": (X[None], r"example per image: \[\[2, 3, 6, 6\]\]"),
    "volumes": (X[None, None], r"\[1, 1, 2, 3, 6, 6\]; it must be a batch"),
    "meta": (X.to("meta"), "the meta device"),
    "sparse": (X.to_sparse(), "make it dense"),
    "NaN": (X * np.nan, "example input holds NaN"),
    "two inputs": ((X, X), "too many positional arguments"),
    "other channels": (X[:, :2], "to have 3 channels"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_that_are_none(name: str, tmp_path, capfd) -> None:
    """An example of another kind, shape or place is a riddle about torch.export."""
    x, why = EXAMPLES[name]
    with pytest.raises(Error, match=why) as found:
        kp.export(network(), x, tmp_path / "model.safetensors")
    assert len(str(found.value).splitlines()) == 1
    assert isinstance(found.value, ShapeError) == ("it must be a batch" in str(found.value))
    assert "".join(capfd.readouterr()) == ""


def test_zeros_that_gain_nothing(tmp_path) -> None:
    """Somebody prunes single weights, or two of four, and wonders why the engine is no faster."""
    model, path = network(), tmp_path / "model.safetensors"
    weight = model[0].weight.data
    weight.view(-1)[torch.arange(weight.numel()) % 4 < 2] = 0  # 2:4
    with pytest.warns(SparsityWarning, match=r"4\d % of the weights are zero, but only 0 % of the"):
        kp.export(model, X, path)
    weight.copy_(torch.randn(weight.shape) * (torch.rand(weight.shape[:2]) < 0.3)[..., None, None])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kp.export(model, X, path)


def test_without_torch() -> None:
    """Who installed the engine alone gets a traceback for the rest, and not what to type."""
    code = (
        "import functools, sys; sys.modules['torch'] = None\n"
        "import kernelprune as kp\n"
        "for name in 'export sparsify SynapticStrength compact train.fit models'.split():\n"
        "    try: functools.reduce(getattr, name.split('.'), kp)\n"
        "    except kp.Error as error: assert isinstance(error, ImportError); print(error)\n"
        "print(kp.Engine.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *lines, engine = done.stdout.splitlines()
    assert engine == "Engine" and len(lines) == 6
    wanted = r"kernelprune\.[\w.]+ needs the package 'torch': pip install \"kernelprune\[train\]\""
    assert all(re.fullmatch(wanted, line) for line in lines)


def test_misspelt_option(tmp_path: Path) -> None:
    """If this fails, `dynamics=` is written into the file as a remark, and sizes stay fixed."""
    with pytest.raises(Error, match="did you mean 'dynamic'"):
        kp.export(nn.ReLU(), torch.zeros(1, 3, 4, 4), tmp_path / "m.safetensors", dynamics="height")
    assert not (tmp_path / "m.safetensors").exists()
