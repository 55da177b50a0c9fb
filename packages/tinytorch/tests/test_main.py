"""python -m tinytorch: a process in which torch is tinytorch, and nothing else is different."""

import os
import subprocess
import sys
import textwrap

import pytest


def run(*arguments, folder=None, code=0, **environment):
    """Standard output and error of `python -m tinytorch ARGUMENTS`."""
    process = subprocess.run(
        [sys.executable, "-m", "tinytorch", *arguments],
        capture_output=True, encoding="utf-8", cwd=folder, env=os.environ | environment,
    )
    assert process.returncode == code, process.stderr
    return process.stdout, process.stderr


@pytest.fixture
def program(tmp_path):
    def write(text, name="program.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


def test_torch_is_tinytorch(program):
    path = program("""
        import sys
        import torch, torch.nn as nn, torch.nn.functional as F
        import torch.utils.data as data
        from torch.optim.lr_scheduler import StepLR
        from torch.nn.modules.linear import Linear
        import tinytorch
        print(torch is tinytorch, nn is tinytorch.nn, F is nn.functional, Linear is nn.Linear, torch.__name__)
        print(torch.__spec__.name, sys.modules["torch.nn"] is nn, data.DataLoader.__name__, StepLR.__name__)
    """)
    out, err = run(str(path))
    assert out == "True True True True tinytorch\ntinytorch True DataLoader StepLR\n"
    assert err == "tinytorch: `torch` is tinytorch in this process\n"


def test_the_program_is_main_with_its_arguments(program):
    program("value = 7", "beside.py")
    path = program("""
        import sys, beside
        assert __name__ == "__main__" and __file__ == sys.argv[0] and sys.modules["__main__"].beside is beside
        import pickle
        class Thing: pass
        print(sys.argv[1:], beside.value, type(pickle.loads(pickle.dumps(Thing()))) is Thing, __spec__)
    """)
    assert run(str(path), "--lr", "0.1", "-v")[0] == "['--lr', '0.1', '-v'] 7 True None\n"
    assert run(path.name, folder=path.parent)[0] == "[] 7 True None\n"


def test_a_module_and_code(program):
    path = program("import torch, sys; print(torch.__name__, __name__, sys.argv[1:])", "tool.py")
    assert run("-m", "tool", "a", folder=path.parent)[0] == "tinytorch __main__ ['a']\n"
    assert run("-c", "import torch, sys; print(torch.__name__, sys.argv)", "a")[0] == "tinytorch ['-c', 'a']\n"


def test_a_traceback_begins_in_the_program(program):
    path = program("""
        def fail():
            raise KeyError("here")
        fail()
    """)
    _, err = run(str(path), code=1)
    lines = err.splitlines()[1:]
    assert lines[0] == "Traceback (most recent call last):" and lines[1].startswith(f'  File "{path}", line 4')
    assert lines[-1] == "KeyError: 'here'" and "runpy" not in err and "_as_torch" not in err


def test_the_exit_code_is_the_programs(program):
    run(str(program("raise SystemExit(3)")), code=3)


def test_what_is_missing_is_explained(program):
    out, _ = run(str(program("""
        for line in ("import torch.fft", "from torch import fft", "import torch.nothing", "import torchvision.ops"):
            try:
                exec(line)
            except ImportError as error:
                print(type(error).__name__, error)
    """)))
    lines = out.splitlines()
    assert lines[0].startswith("ModuleNotFoundError torch has `fft`; tinytorch does not: ") and len(lines) == 4
    assert lines[2].startswith("ModuleNotFoundError module 'tinytorch' has no attribute 'nothing'")


def test_verbose_names_the_modules(program):
    _, err = run("-v", str(program("import torch.nn")))
    assert "tinytorch: torch.nn is tinytorch.nn\n" in err


def test_help_and_mistakes(tmp_path):
    assert run("--help")[0].startswith("usage: python -m tinytorch")
    assert "usage" in run(code=2)[0]
    assert "cannot open 'none.py': No such file" in run("none.py", folder=tmp_path, code=1)[1]
    assert "-m needs an argument" in run("-m", code=1)[1]


def test_it_refuses_to_run_beside_the_real_torch(program):
    path = program("import types, sys; sys.modules['torch'] = types.ModuleType('torch')", "sitecustomize.py")
    _, err = run("-c", "1", code=1, PYTHONPATH=f"{path.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    assert "the real torch has been imported in this process" in err


def test_nothing_is_installed_under_the_name():
    process = subprocess.run(
        [sys.executable, "-c", "import sys, tinytorch; print('torch' in sys.modules)"], capture_output=True, text=True
    )
    assert process.stdout == "False\n"


def test_a_network_learns(program):
    out, _ = run(str(program("""
        import torch
        import torch.nn as nn
        from torch.utils.data import DataLoader, TensorDataset

        torch.manual_seed(0)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        net = nn.Sequential(nn.Linear(2, 16), nn.ReLU(inplace=True), nn.Linear(16, 2)).to(device)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
        x = torch.randn(128, 2)
        data = DataLoader(TensorDataset(x, (x[:, 0] * x[:, 1] > 0).long()), batch_size=32, shuffle=True)
        for epoch in range(20):
            for points, labels in data:
                points, labels = points.to(device), labels.to(device)
                optimizer.zero_grad(set_to_none=True)
                loss = nn.functional.cross_entropy(net(points), labels)
                loss.backward()
                optimizer.step()
        print(loss.item() < 0.3)
    """)))
    assert out == "True\n"


WORKERS = """
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Squares(Dataset):
        def __len__(self): return 6
        def __getitem__(self, i): return torch.tensor(i * i)

    if __name__ == "__main__":
        data = DataLoader(Squares(), batch_size=3, num_workers=2, multiprocessing_context={context!r})
        print([batch.tolist() for batch in data])
"""


@pytest.mark.parametrize("context", [None, "spawn"])
def test_workers_have_the_same_torch(program, context):
    assert run(str(program(WORKERS.format(context=context))))[0] == "[[0, 1, 4], [9, 16, 25]]\n"
