"""torch.ops.kernelprune.conv2d and its gradients against torch's own convolution."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from ops.layers import CASES, arguments, case, pruned, whole
from torch.utils.checkpoint import checkpoint

from kernelprune import _core
from kernelprune.errors import DeviceError, ShapeError
from kernelprune.ops import SparseConv2d
from kernelprune.ops.pattern import _patterns

conv2d = torch.ops.kernelprune.conv2d


def gradients(layer: torch.nn.Module, x: torch.Tensor, seed: int = 2) -> list[torch.Tensor]:
    """Output, and gradients for input, weight and bias."""
    x = x.clone().requires_grad_()
    layer.zero_grad(set_to_none=True)
    y = layer(x)
    y.backward(whole(*y.shape, seed=seed))
    assert x.grad is not None
    return [y.detach(), x.grad, layer.weight.grad, layer.bias.grad]


@pytest.mark.parametrize("batch", [1, 3, 16, 21])
@pytest.mark.parametrize("name", CASES)
def test_output_and_gradients_are_those_of_the_dense_layer(name: str, batch: int) -> None:
    """If this fails, the operator or one of its gradients is wrong."""
    conv, layer, x = case(name, batch)
    kept = conv.weight.detach().flatten(2).ne(0).any(2)
    expected, found = gradients(conv, x), gradients(layer, x)
    expected[2] = expected[2][kept]
    for want, have in zip(expected, found, strict=True):
        assert torch.equal(want, have)
    assert found[0].is_contiguous()


@pytest.mark.parametrize("isa", _core.available_isas())
def test_each_instruction_set(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, the operator is wrong on machines with other vectors."""
    monkeypatch.setenv("KERNELPRUNE_ISA", isa)
    for name in CASES:
        for batch in (1, 17):
            conv, layer, x = case(name, batch)
            assert torch.equal(layer(x), conv(x)), name


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.to(memory_format=torch.channels_last),
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: torch.cat([x, x], 1)[:, :12],
        lambda x: x.repeat(2, 1, 1, 1)[::2],
        lambda x: torch.cat([x.flatten(), torch.zeros(1)])[1:].roll(1).view(x.shape),
    ],
    ids=["channels_last", "transposed", "slice of channels", "every second", "unaligned"],
)
def test_any_memory_layout(change) -> None:
    """If this fails, inputs that are not contiguous, or weights, are read in the wrong order."""
    conv, layer, x = case("3x3")
    odd = change(x)
    assert odd.shape == x.shape
    assert torch.equal(layer(odd), conv(odd))
    weight = layer.weight.detach().transpose(1, 2).contiguous().transpose(1, 2)
    _, *rest = arguments(layer, x)
    assert torch.equal(conv2d(x, weight, *rest[1:]), conv(x))


def test_empty_batch_and_no_connections() -> None:
    """If this fails, a batch without images or a layer without connections is an error."""
    conv, layer, x = case("3x3")
    assert layer(x[:0]).shape == conv(x[:0]).shape
    found = gradients(layer, x[:0])
    assert [float(g.abs().sum()) for g in found[2:]] == [0.0, 0.0]
    conv = pruned(density=0.0, kernel_size=3, padding=1)
    layer = SparseConv2d.from_dense(conv)
    assert len(layer.col) == 0
    for want, have in zip(gradients(conv, x)[:2], gradients(layer, x)[:2], strict=True):
        assert torch.equal(want, have)


@pytest.mark.parametrize("name", ["1x1", "3x3 small", "3x3 stride 2", "groups"])
def test_opcheck(name: str) -> None:
    """If this fails, the operators break a rule of torch's: schema, fake shapes, autograd."""
    _, layer, x = case(name)
    samples = arguments(layer, x.requires_grad_())
    torch.library.opcheck(conv2d, samples)
    torch.library.opcheck(conv2d, (*samples[:4], None, *samples[5:]))
    grad = layer(x).detach().requires_grad_()
    rest = samples[6:]
    torch.library.opcheck(
        torch.ops.kernelprune.conv2d_input,
        (grad, *samples[1:4], 12, list(x.shape[2:]), *rest),
    )
    torch.library.opcheck(
        torch.ops.kernelprune.conv2d_weight,
        (grad, x, *samples[2:4], list(layer.kernel_size), *rest),
    )


@pytest.mark.parametrize("name", ["3x3 small", "3x3 stride 2 odd", "same, even", "groups"])
def test_gradcheck(name: str) -> None:
    """If this fails, the gradients, or the gradients of gradients, are not the derivatives."""
    _, layer, x = case(name, 2)
    layer, x = layer.double(), x.double().requires_grad_()
    _, _, row_ptr, col, *_ = arguments(layer, x)

    def run(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return conv2d(x, weight, row_ptr, col, bias, *arguments(layer, x)[5:])

    parts = (x, layer.weight, layer.bias)
    assert torch.autograd.gradcheck(run, parts, fast_mode=True, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(
        run, parts, fast_mode=True, check_fwd_over_rev=True, check_rev_over_rev=True
    )


@pytest.mark.parametrize("name", ["weight", "row_ptr", "col"])
def test_a_change_before_the_gradients_is_an_error(name: str) -> None:
    """If this fails, gradients are those of weights or connections that were not used."""
    _, layer, x = case("3x3")
    y = layer(x.requires_grad_())
    with torch.no_grad():
        getattr(layer, name).zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_checkpoint() -> None:
    """If this fails, a layer keeps its input where a checkpoint is to compute it anew."""
    _, layer, x = case("3x3")
    kept: list[torch.Tensor] = []

    def run(x: torch.Tensor) -> torch.Tensor:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            return layer(x)

    run(x.clone().requires_grad_())
    assert [tuple(t.shape) for t in kept] == [
        tuple(t.shape) for t in (x, layer.weight, layer.row_ptr, layer.col)
    ]
    found = []
    for call in (layer, lambda x: checkpoint(layer, x, use_reentrant=False)):
        leaf = x.clone().requires_grad_()
        layer.zero_grad()
        call(leaf).square().sum().backward()
        found.append((leaf.grad, layer.weight.grad.clone()))
    for want, have in zip(*found, strict=True):
        assert torch.equal(want, have)


def test_a_first_call_in_inference_mode() -> None:
    """If this fails, a layer that was first used for inference cannot be trained."""
    _, layer, x = case("3x3")
    with torch.inference_mode():
        expected = layer(x)
    y = layer(x)
    assert torch.equal(y, expected) and not y.is_inference()
    assert y.data_ptr() != expected.data_ptr()
    y.sum().backward()


def test_gradients_of_gradients_in_float32() -> None:
    """If this fails, a penalty on gradients trains on wrong numbers."""
    conv, layer, x = case("3x3")
    found = []
    for module in (conv, layer):
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(module(leaf).square().sum(), leaf, create_graph=True)
        first.square().sum().backward()
        assert leaf.grad is not None
        found.append(leaf.grad)
    torch.testing.assert_close(found[1], found[0])


def test_weights_are_never_stale() -> None:
    """If this fails, a layer that packs its weights computes with those of an earlier step: after
    an optimizer, a load, a write past autograd, or a change of inference tensors."""
    options = {"kernel_size": 1, "padding": 0}
    conv = pruned(density=0.9, **options)
    layer = SparseConv2d.from_dense(conv)
    x = whole(1, 12, 2, 2)
    dense = lambda: layer.to_dense()(x)  # noqa: E731
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(layer(x), dense())
            layer.weight.mul_(2)
            assert torch.equal(layer(x), dense())
            layer.weight.data.add_(1)
            assert torch.equal(layer(x), dense())
            layer.weight.data = layer.weight.data + 1
            assert torch.equal(layer(x), dense())
    with torch.inference_mode():
        weight = layer.weight.clone()
        _, _, *rest = arguments(layer, x)
        first = conv2d(x, weight, *rest)
        weight += 1
        assert not torch.equal(conv2d(x, weight, *rest), first)


def test_an_uncounted_pattern() -> None:
    """If this fails, a pattern of which inference mode made one half hides changes of the other."""
    conv, layer, x = case("3x3")
    _, weight, row_ptr, _, bias, *rest = arguments(layer, x)
    with torch.inference_mode():
        col = layer.col.clone()
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(conv2d(x, weight, row_ptr, col, bias, *rest), conv(x))
        row_ptr[-1] = 0
        with pytest.raises(ShapeError, match="row_ptr"):
            conv2d(x, weight, row_ptr, col, bias, *rest)


@pytest.mark.parametrize("side", [(2, 2), (4, 4), (1, 1)])
def test_packed_weights_are_never_stale(side: tuple[int, int]) -> None:
    """The same for shapes whose kernels want the weights in another form."""
    conv = pruned(kernel_size=3, padding=1)
    layer, x = SparseConv2d.from_dense(conv), whole(1, 12, *side)
    with torch.no_grad():
        for change in (lambda w: w.mul_(2), lambda w: w.data.add_(1), lambda w: w.data.copy_(-w)):
            assert torch.equal(layer(x), layer.to_dense()(x))
            change(layer.weight)
            assert torch.equal(layer(x), layer.to_dense()(x))


def test_a_changed_pattern_is_another_pattern() -> None:
    """If this fails, a layer whose state was loaded computes with the connections it had before."""
    _, layer, x = case("3x3")
    layer(x)
    other = SparseConv2d.from_dense(pruned(seed=5, kernel_size=3, padding=1))
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer(x), other(x))
    with torch.no_grad():
        layer.col.zero_()
        layer.row_ptr[1:] = 0
        layer.row_ptr[-1] = 1
    with pytest.raises(ShapeError, match="row_ptr ends at 1"):
        layer(x)


def test_patterns_are_forgotten() -> None:
    """If this fails, every layer that ever ran stays in memory."""
    before = len(_patterns)
    _, layer, x = case("3x3")
    layer(x.requires_grad_()).sum().backward()
    assert len(_patterns) > before
    del layer
    x.grad = None
    assert len(_patterns) <= before


def test_threads_of_the_caller() -> None:
    """If this fails, threads that share layers, each with weights of its own, mix them up."""
    conv, layer, x = case("3x3 small", 1)
    layers = [copy.deepcopy(layer) for _ in range(3)]
    for i, twin in enumerate(layers):
        twin.weight.data.mul_(i + 1)
    expected = [twin(x).detach() for twin in layers]
    rest = arguments(layer, x)[2:]

    def work(number: int) -> bool:
        torch.set_num_threads(1)
        weight = layers[number % 3].weight
        with torch.no_grad():
            return all(
                torch.equal(conv2d(x, weight, *rest), expected[number % 3]) for _ in range(200)
            )

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_of_torch(threads: int) -> None:
    """If this fails, results depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for name in CASES:
            for batch in (1, 5, 33):
                conv, layer, x = case(name, batch)
                assert torch.equal(layer(x), conv(x)), (name, batch)
    finally:
        torch.set_num_threads(before)


# ---------------------------------------------------------------- what is refused


def test_a_pattern_elsewhere_is_refused() -> None:
    """If this fails, a pattern on another device gives an output that nobody has computed."""
    _, layer, x = case("3x3")
    for name in ("row_ptr", "col"):
        with pytest.raises(ShapeError, match=f"{name} is on meta, but the input is on cpu"):
            run_with(**{name: getattr(layer, name).to("meta")})


def run_with(**changes: object) -> torch.Tensor:
    """A good call but for these arguments."""
    _, layer, x = case("3x3")
    names = ("input", "weight", "row_ptr", "col", "bias", "in_channels", "stride", "padding")
    values = dict(zip(names, arguments(layer, x), strict=False))
    return conv2d(*{**values, **changes}.values())


def moved(tensor: torch.Tensor, place: int, value: int) -> torch.Tensor:
    tensor = tensor.clone()
    tensor[place] = value
    return tensor


ROWS = case("3x3")[1].row_ptr
COLUMNS = case("3x3")[1].col

REFUSED = {
    "rank": ({"input": torch.zeros(12, 8, 8)}, r"\[batch,12,height,width\]"),
    "channels": ({"input": torch.zeros(1, 11, 8, 8)}, r"\[batch,12,height,width\]"),
    "half": ({"input": torch.zeros(1, 12, 8, 8).half()}, "weight is torch.float32"),
    "small map": ({"input": torch.zeros(1, 12, 0, 8)}, "does not fit"),
    "weights": ({"weight": torch.zeros(5, 3, 3)}, "weight has 5 connections"),
    "dense weights": ({"weight": torch.zeros(24, 12, 3, 3)}, r"\[connections,kernel_h,kernel_w\]"),
    "bias": ({"bias": torch.zeros(23)}, r"bias must have the shape \[24\]"),
    "int64": ({"col": COLUMNS.long()}, "col must be a vector of int32"),
    "falls": ({"row_ptr": moved(ROWS, 2, -1)}, "row_ptr must rise"),
    "start": ({"row_ptr": moved(ROWS, 0, 1)}, "row_ptr must start at 0"),
    "end": ({"row_ptr": moved(ROWS, 24, int(ROWS[24]) + 1)}, "row_ptr must rise"),
    "too far": ({"col": moved(COLUMNS, -1, 12)}, "input channel 12, but there are 12"),
    "negative": ({"col": moved(COLUMNS, 0, -1)}, "input channel -1"),
    "twice": ({"col": moved(COLUMNS, 1, int(COLUMNS[0]))}, "not in ascending order"),
    "stride": ({"stride": (0, 1)}, "stride"),
    "padding": ({"padding": (3, 1, 1, 1)}, "padding is not smaller"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    """If this fails, a wrong argument gives a wrong result, a crash, or an error that names no
    argument."""
    changes, message = REFUSED[name]
    with pytest.raises(ShapeError, match=message):
        run_with(**changes)


def test_half_precision_is_refused_by_name() -> None:
    """If this fails, a model in half precision fails somewhere inside."""
    _, layer, x = case("3x3")
    with pytest.raises(ShapeError, match="float32"):
        layer.half()(x.half())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_one_clear_error() -> None:
    """If this fails, a machine without CUDA gets an error about something else."""
    from kernelprune.graph.ir import Graph
    from kernelprune.ops import cuda
    from kernelprune.ops.pattern import Pattern

    _, layer, x = case("3x3")
    pattern = Pattern(layer.row_ptr, layer.col)
    graph: Graph = cuda._graph(pattern, (12, 8, 8), layer.weight, (1, 1), (1, 1, 1, 1), (1, 1))
    with pytest.raises(DeviceError, match="cuda"):
        cuda._engine(pattern, graph, layer.weight, layer.bias, "cuda:0")


@pytest.mark.parametrize("name", ["3x3", "3x3 stride 2", "depthwise", "same, even"])
def test_cuda_layer_on_the_emulator(name: str) -> None:
    """If this fails, the one-layer model that CUDA runs is not the layer, or keeps old weights."""
    from kernelprune.ops import cuda
    from kernelprune.ops.pattern import pattern_of

    conv, layer, x = case(name, 2)
    pattern = pattern_of(layer.row_ptr, layer.col)
    for _ in range(2):
        expected = layer.to_dense()(x).detach()
        _, weight, _, _, bias, _, *geometry = arguments(layer, x)
        graph = cuda._graph(pattern, tuple(x.shape[1:]), weight, *geometry)
        engine = cuda._engine(pattern, graph, weight, bias, "cuda-emulated")
        output = torch.empty(2, *graph.nodes[0].shape)
        assert output.shape == expected.shape
        cuda._run(engine, x, output, [])
        assert torch.equal(output, expected)
        assert cuda._engine(pattern, graph, weight, bias, "cuda-emulated") is engine
        with torch.no_grad():
            layer.weight.mul_(2)


def test_nothing_is_written_beside_the_output() -> None:
    """If this fails, a kernel that writes straight into a tensor writes past its end."""
    for name in CASES:
        for batch in (1, 2, 17):
            conv, layer, x = case(name, batch)
            y = layer(x)
            guarded = torch.full((y.numel() + 64,), 7.0)
            pattern = next(p for p in _patterns.values() if p.is_of(layer.row_ptr, layer.col))
            (call,) = pattern.calls.values()
            call.run(
                x.data_ptr(), layer.weight.data_ptr(), layer.bias.data_ptr(),
                guarded[32:].data_ptr(), batch, 99,
            )  # fmt: skip
            assert torch.equal(guarded[32:-32].view(y.shape), y)
            assert guarded[:32].eq(7).all() and guarded[-32:].eq(7).all(), (name, batch)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["3x3", "3x3 small", "1x1", "3x3 stride 2"])
def test_numbers_that_are_none_go_through(name: str, bad: float) -> None:
    """If this fails, a training that has run into NaN or infinity looks healthy."""
    for batch in (1, 16):
        conv, layer, x = case(name, batch)
        x[0, :, 0, 0] = bad
        connected = layer.row_ptr[1:] > layer.row_ptr[:-1]
        expected, found = conv(x).isfinite(), layer(x).isfinite()
        assert torch.equal(expected[:, connected], found[:, connected])
