"""Seeds, dtypes, devices and other settings of a process, and torch's answers about machines that are not there."""

import subprocess
import sys

import numpy as np
import pytest

import tinytorch as torch
import tt_opt
import tt_tensor as tt


def test_a_seed_gives_the_same_numbers_and_returns_the_generator():
    assert isinstance(torch.manual_seed(3), torch.Generator) and torch.initial_seed() == 3
    first = torch.rand(3).tolist()
    torch.manual_seed(3)
    assert tt.rand(3).tolist() == first
    torch.manual_seed(-1)
    assert torch.initial_seed() == 2**64 - 1
    torch.cuda.manual_seed_all(3)
    assert torch.rand(3).tolist() == first


def test_seeds_that_are_drawn_differ():
    assert torch.seed() != torch.seed()


def test_the_default_generator_is_the_common_one():
    torch.manual_seed(5)
    first = torch.rand(2).tolist()
    torch.default_generator.manual_seed(5)
    assert torch.rand(2).tolist() == first


def test_fork_rng_continues_as_before():
    torch.manual_seed(1)
    expected = torch.rand(2).tolist()
    torch.manual_seed(1)
    with torch.random.fork_rng():
        torch.rand(7)
    assert torch.rand(2).tolist() == expected


def test_the_default_dtype():
    torch.set_default_dtype(torch.float32)
    torch.set_default_tensor_type(torch.FloatTensor)
    torch.set_default_tensor_type("torch.FloatTensor")
    assert torch.get_default_dtype() is torch.float32
    with pytest.raises(RuntimeError, match="give dtype="):
        torch.set_default_dtype(torch.float64)
    with pytest.raises(RuntimeError, match="give dtype="):
        torch.set_default_tensor_type(torch.DoubleTensor)


def test_dtypes_that_numpy_lacks_can_be_named_and_not_used():
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    assert kinds["float16"] == torch.half and torch.bfloat16 != torch.float32 and torch.cfloat is torch.complex64
    for use in (lambda: torch.zeros(2, dtype=torch.bfloat16), lambda: torch.zeros(2).to(torch.bfloat16)):
        with pytest.raises(TypeError, match="torch.bfloat16"):
            use()


def test_tensor_makes_float32_of_whatever_it_is_given():
    for data in (np.ones(2), [1, 2], [np.float64(1), 2], (True, False), torch.ones(2, dtype=torch.float64)):
        assert torch.Tensor(data).dtype == torch.float32 and torch.Tensor(data).shape == (2,)
    assert torch.Tensor(3, 2).shape == (3, 2) and torch.Tensor().shape == (0,)


def test_every_tensor_is_a_tensor_and_one_of_its_dtypes():
    result = torch.ones(2, requires_grad=True) * 2
    for tensor in (torch.ones(2), result, torch.nn.Parameter(torch.ones(1))):
        assert isinstance(tensor, torch.Tensor) and isinstance(tensor, torch.FloatTensor)
        assert not isinstance(tensor, torch.LongTensor) and issubclass(type(tensor), torch.Tensor)

    class Own(torch.Tensor):
        __slots__ = ()

    assert isinstance(Own([1.0]), Own) and not isinstance(torch.ones(1), Own)
    assert torch.Tensor.add is torch.ones(1).add.__func__



def test_kinds():
    assert isinstance(torch.float32, torch.dtype)
    assert torch.finfo(torch.float32).max > 3e38 and torch.iinfo(torch.int8).max == 127
    assert torch.pi > 3.14 and torch.inf > 0 and torch.newaxis is None
    assert torch.LongTensor([1, 2]).dtype == torch.long and torch.FloatTensor(2, 3).shape == (2, 3)
    assert torch.zeros(2, layout=torch.strided).shape == (2,)


def test_answers_about_devices():
    assert not torch.cuda.is_available() and torch.cuda.device_count() == 0 and not torch.backends.mps.is_available()
    assert not torch.accelerator.is_available() and torch.accelerator.current_accelerator() is None
    torch.cuda.empty_cache(), torch.cuda.synchronize(), torch.mps.manual_seed(1)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.set_default_device("cpu")
    with pytest.raises(RuntimeError, match="CPU only"):
        torch.set_default_device("cuda")
    assert not torch.distributed.is_available()


def test_mixed_precision_must_be_off():
    with torch.autocast("cpu", enabled=False), torch.amp.autocast("cpu", dtype=torch.float32):
        scaler = torch.cuda.amp.GradScaler(enabled=False)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler.scale(weight.sum()).backward()
    scaler.unscale_(optimizer), scaler.step(optimizer), scaler.update()
    assert weight.item() == 0.0
    with pytest.raises(RuntimeError, match="autocast is not available"):
        torch.autocast("cpu", dtype=torch.bfloat16)
    for make in (lambda: torch.autocast("cuda"), torch.cuda.amp.autocast, torch.cuda.amp.GradScaler):
        with pytest.warns(UserWarning, match="is off, because there is no CUDA device"):
            make()


def test_recording_is_switched():
    torch.set_grad_enabled(False)
    assert not torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    with torch.set_grad_enabled(False):
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()

    @torch.set_grad_enabled(False)
    def inside():
        return torch.is_grad_enabled()

    assert not inside() and torch.is_grad_enabled()


def test_inference_mode():
    for decorate in (torch.inference_mode, torch.inference_mode(), torch.no_grad, torch.no_grad()):
        assert decorate(torch.is_grad_enabled)() is False
    assert torch.inference_mode(False)(torch.is_grad_enabled)() is True
    with torch.inference_mode(), torch.inference_mode(mode=False):
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


def test_anomalies_are_searched():
    x = torch.tensor(-1.0, requires_grad=True)
    with torch.autograd.set_detect_anomaly(True), pytest.raises(RuntimeError, match=r"(?i)nan"):
        torch.sqrt(x).backward()
    torch.sqrt(x).backward()


def test_backward_of_several():
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    torch.autograd.backward([y.sum(), (3 * y).sum()])
    assert x.grad.tolist() == [8.0, 8.0]
    torch.autograd.backward(x * 1, torch.tensor([1.0, 2.0]))
    assert x.grad.tolist() == [9.0, 10.0]
    with pytest.raises(RuntimeError, match="autograd.grad"):
        torch.autograd.backward(x.sum(), inputs=[x])


def test_derivatives_of_functions():
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    functional = torch.autograd.functional
    assert functional.jacobian(lambda x: x**2, x).tolist() == [[2.0, 0.0], [0.0, 4.0]]
    assert functional.hessian(lambda x: (x**3).sum(), x).tolist() == [[6.0, 0.0], [0.0, 12.0]]
    with pytest.raises(TypeError, match="take one tensor"):
        functional.jacobian(lambda x, y: x * y, (x, x))
    with pytest.raises(RuntimeError, match="create_graph=True"):
        functional.hessian(lambda x: x.sum(), x, create_graph=True)


def test_gradients_are_checked():
    x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(torch.exp, (x,)) and torch.autograd.gradgradcheck(torch.exp, x)
    wrong = lambda x: x * x.detach()
    assert torch.autograd.gradcheck(wrong, x, raise_exception=False) is False
    with pytest.raises(RuntimeError, match="finite differences"):
        torch.autograd.gradcheck(wrong, x)


def test_old_variables_are_tensors():
    x = torch.autograd.Variable(torch.ones(2), requires_grad=True)
    assert isinstance(x, torch.Tensor) and x.requires_grad


def test_a_function_of_its_own_is_written_otherwise():
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

    with pytest.raises(RuntimeError, match="Double.apply.*tt_autograd.rule"):
        Double.apply(torch.ones(1))


def test_checkpointing_computes_the_same():
    x = torch.ones(2, requires_grad=True)
    torch.utils.checkpoint.checkpoint(lambda a, b=1: (a * b).sum(), x, b=3, use_reentrant=False).backward()
    assert x.grad.tolist() == [3.0, 3.0]
    assert torch.utils.checkpoint.checkpoint_sequential([torch.exp, torch.abs], 2, torch.zeros(1)).item() == 1.0


def test_a_writer_of_scalars(tmp_path):
    import json

    from tinytorch.utils.tensorboard import SummaryWriter, _Scalars

    with _Scalars(log_dir=tmp_path / "run") as writer:
        writer.add_scalar("loss", torch.tensor(1.5), 3)
        writer.add_scalars("both", {"a": 1, "b": 2}, 4)
        with pytest.raises(RuntimeError, match="add_image needs the package tensorboardX"):
            writer.add_image("x", None)
    rows = [json.loads(line) for line in (tmp_path / "run" / "scalars.jsonl").read_text().splitlines()]
    assert [(row["tag"], row["step"]) for row in rows] == [("loss", 3), ("both/a", 4), ("both/b", 4)]
    assert [row["value"] for row in rows] == [1.5, 1.0, 2.0]
    assert SummaryWriter


def test_assert_close():
    x = torch.ones(2)
    torch.testing.assert_close({"a": [x]}, {"a": [x + 1e-7]})
    for other in (x + 1e-3, torch.ones(3), x.double(), 1.0):
        with pytest.raises(AssertionError):
            torch.testing.assert_close(x, other)
    with pytest.raises(ValueError, match="together"):
        torch.testing.assert_close(x, x, rtol=0.1)


def kernels(code, **environment):
    import os

    env = {name: value for name, value in os.environ.items() if name != "TT_KERNELS"} | environment
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", env=env)
    assert process.returncode == 0, process.stderr
    return process.stdout.split()


STEP = """
import tinytorch as torch, sys
before = 'tt_opt' in sys.modules
net = torch.nn.Linear(2, 2)
loss = torch.nn.functional.cross_entropy(net(torch.ones(3, 2)), torch.tensor([0, 1, 1]))
loss.backward()
import tt_opt
print(before, tt_opt.kernel_set(), round(float(net.weight.grad.abs().sum()), 4) > 0)
"""


def test_the_best_kernels_are_turned_on_by_the_first_operation_that_takes_time():
    assert kernels(STEP) == ["False", tt_opt.best_set(), "True"]


@pytest.mark.parametrize("name", ["default", "fast"])
def test_an_environment_variable_names_other_kernels(name):
    before = "True"
    assert kernels(STEP, TT_KERNELS=name) == [before, name, "True"]
