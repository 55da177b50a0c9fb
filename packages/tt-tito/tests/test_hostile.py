"""The judge survives what learners' files do, by accident or on purpose, and is not deceived by it."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time

import psutil
import pytest

from tt_tito import course, curriculum
from tt_tito.exercises import exercises, graft, skeleton
from tt_tito.judge import Limits, assess, box, grade, guard, sandbox, scratch

CHAPTER = curriculum.chapter("activations")
REFERENCE = course.reference(CHAPTER).read_text(encoding="utf-8")
NAMES = [exercise.name for exercise in exercises(REFERENCE)]
SKELETON = skeleton(REFERENCE, str(CHAPTER))
ELU = "x = as_floats(x)\nreturn np.maximum(x, 0) + alpha * np.expm1(np.minimum(x, 0))"
RIGHT = {"elu": ELU, "relu_slope": "return (x > 0) * 1.0"}
QUICK = Limits(seconds=2, memory=1 << 30)

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel refuses this on Linux only")

pytestmark = pytest.mark.slow


def has_landlock():
    return guard.landlock_version() > 0


BOXED = box.boundary() == "bubblewrap"


@pytest.fixture(params=["bubblewrap", "without"])
def held(request, monkeypatch):
    """What holds the runs of a test: a box, then only what the process does to itself."""
    if request.param == "bubblewrap" and not BOXED:
        pytest.skip("needs bubblewrap, and a kernel that lets it make namespaces")
    if request.param == "without":
        monkeypatch.setattr(box, "_bubblewrap", lambda: None)
        if sys.platform == "linux" and not (has_landlock() and guard.has_filter()):
            pytest.skip("needs Landlock and seccomp")
    return request.param


@pytest.fixture
def marks(monkeypatch):
    """The marks of the runs of a test."""
    marks, environment = set(), sandbox._environment
    monkeypatch.setattr(sandbox, "_environment", lambda scratch, mark: marks.add(mark) or environment(scratch, mark))
    return marks


@pytest.fixture
def judged(tmp_path, marks, monkeypatch):
    """Judge a chapter with some code at the end of the module, or at the begin of a function."""
    folder, scratch = tmp_path / "handed in", tmp_path / "scratch"
    folder.mkdir()
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    def judge(module="", *, limits=QUICK, **functions):
        text = REFERENCE + textwrap.dedent(module)
        for name, code in functions.items():
            body = textwrap.indent(textwrap.dedent(code).strip() + f"\n{RIGHT[name]}", "    ")
            text = graft(text, f"def {name}(x, /):\n{body}\n", [name])
        file = folder / "activations.py"
        file.write_text(text, encoding="utf-8")
        found = assess(CHAPTER, file, limits=limits, alone=False)
        assert file.read_text(encoding="utf-8") == text and os.listdir(folder) == ["activations.py"]
        assert len(found.to_json().encode()) < 64 * 1024 and len(found.message.splitlines()) <= 12
        assert not left_behind(marks) and not os.listdir(scratch)
        return found

    return judge


def left_behind(marks):
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(sandbox.MARK) in marks:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_what_the_others_are_compared_with(held, judged):
    assert judged("import os, sys", elu="", relu_slope="").full


# ## Time and memory


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time; time.sleep(1000)",
        "import signal\nfor s in {*signal.Signals} - {9, 19}: signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
        "import threading\nlock = threading.Lock(); lock.acquire(); lock.acquire()",
        "while True:\n    try:\n        while True: print(1)\n    except BaseException: pass",
        "sum(range(10 ** 12))",
    ],
)
def test_what_does_not_end(judged, code):
    start = time.monotonic()
    found = judged(elu=code, limits=Limits(seconds=1))
    assert found.status == "timeout" and time.monotonic() - start < 15
    first, last = found.message.splitlines()
    assert first.startswith("x = Tensor([-1, 2]); elu(x); x did not end within 1 seconds") and last.startswith("See ")


def test_whoever_is_slow_but_goes_on_has_more_time(judged, monkeypatch):
    slow = "import time; time.sleep(0.5)"
    assert judged(elu=slow, limits=Limits(seconds=2)).full
    monkeypatch.setattr(sandbox, "TESTS", 1)
    assert judged(elu=slow, limits=Limits(seconds=2)).status == "timeout"


def test_an_import_that_does_not_end(judged):
    found = judged("while True: pass", limits=Limits(seconds=1))
    assert (found.status, found.message) == ("timeout", "Importing activations.py did not end within 1 seconds.")


@pytest.mark.parametrize(
    "code",
    [
        "hog = []\nwhile True: hog.append(bytearray(1 << 24))",
        "np.ones(1 << 40)",
        "'x' * (1 << 34)",
        "global HOG\nHOG = []\nwhile True: HOG.append(' ' * (1 << 16) + str(len(HOG)))",
    ],
)
@on_linux
def test_memory_bombs(held, judged, code):
    found = judged(elu=code, limits=Limits(seconds=8, memory=1 << 29))
    assert found.status == "memory" and "emory" in found.message


def test_memory_is_watched_where_it_has_no_limit(judged, monkeypatch):
    monkeypatch.setattr(sandbox.Child, "_memory", lambda child: child.ready.is_set() << 40)
    found = judged(elu="import time; time.sleep(1000)", limits=Limits(seconds=5))
    assert found.status == "memory" and "took more than 1 GB of memory" in found.message


# ## Ends


@pytest.mark.parametrize("status", [0, 1, 42])
def test_leaving_without_a_word(held, judged, status):
    found = judged(elu=f"import os; os._exit({status})")
    assert found.status == "crashed" and f"ended Python with exit status {status}" in found.message


def test_leaving_after_everything_was_right(judged):
    found = judged("import os, atexit, threading; threading.Timer(0.01, os._exit, [0]).start()")
    assert found.status == "crashed"


@pytest.mark.parametrize(
    "code, said",
    [
        ("import sys; sys.exit(0)", "raised SystemExit: 0 (activations.py, line "),
        ("raise KeyboardInterrupt", "raised KeyboardInterrupt"),
        ("raise GeneratorExit", "raised GeneratorExit"),
        ("class Out(BaseException): pass\nraise Out('a' * 10_000)", "raised Out: aaaa"),
        ("import pytest; pytest.exit('all passed', 0)", "Exit: all passed"),
        ("import pytest; pytest.skip('nothing to see')", "Skipped: nothing to see"),
        ("input('your name? ')", "raised EOFError"),
        ("def f(): return f()\nf()", "RecursionError"),
        ("import sys; sys.modules.clear(); import numpy.linalg, tt_tensor", ""),
    ],
)
def test_raising_something(judged, code, said):
    found = judged(relu_slope=code)
    assert found.status == "failed" and said in found.message


@pytest.mark.parametrize("code", ["import sys; sys.exit(0)", "raise SystemExit", "1 / 0", "raise KeyboardInterrupt"])
def test_an_import_that_fails(judged, code):
    found = judged(code)
    line = len(REFERENCE.splitlines()) + 1
    assert found.status == "error" and found.message.startswith("Importing activations.py raised ")
    assert f"(activations.py, line {line})" in found.message


def test_a_segmentation_fault(held, judged):
    found = judged(elu="import ctypes; ctypes.string_at(0)")
    assert found.status == "crashed" and ("SIGSEGV" in found.message or "OSError" in found.message)


def test_recursion_without_a_bottom(judged):
    found = judged(elu="import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(x): return [*map(f, [x])]\nf(1)")
    assert found.status in ("crashed", "memory")


def test_threads_that_hang_do_not_matter(judged):
    start = time.monotonic()
    found = judged("import threading, time; threading.Thread(target=time.sleep, args=[1000]).start()")
    assert found.full and time.monotonic() - start < 15


# ## Output


def test_much_output(judged):
    found = judged("print('x' * 50_000_000 + ' the end')\nprint('1 passed')")
    assert found.full and found.printed.endswith("the end\n1 passed") and len(found.printed) <= sandbox.TAIL


def test_what_is_printed_changes_nothing(judged):
    code = "import sys; print('== 35 passed =='); sys.stderr.write('\\x1b[32mpassed'); return x"
    found = judged(elu=code)
    assert found.status == "failed" and "\x1b" not in found.printed + found.message
    assert "== 35 passed ==" in found.printed


# ## Whoever waits may stop waiting


ENDLESS = """
import sys
from pathlib import Path
from tt_tito import curriculum
from tt_tito.judge import Limits, assess, box
if sys.argv[2] == "without":
    box._bubblewrap = lambda: None
try:
    assess(curriculum.chapter("activations"), Path(sys.argv[1]), limits=Limits(seconds=60))
except KeyboardInterrupt:
    sys.exit(7)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_ends_with_its_parent(held, tmp_path, number):
    file = tmp_path / "activations.py"
    file.write_text(f"{REFERENCE}\nopen('begun', 'w')\nwhile True: pass", encoding="utf-8")
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", ENDLESS, file, held], env=environment, stderr=subprocess.DEVNULL)

    def has_begun():
        boxes = [f"/proc/{process.pid}/root{box.SCRATCH}/begun" for process in runs()]
        return any(map(os.path.exists, boxes)) or any(tmp_path.glob("*/begun"))

    def runs():
        return psutil.Process(parent.pid).children(recursive=True)

    try:
        wait_until(has_begun)
        children = runs()
        parent.send_signal(number)
        assert parent.wait(10) == (7 if number == signal.SIGINT else -number)
        if number == signal.SIGINT or sys.platform == "linux":
            wait_until(lambda: not any(c.is_running() and c.status() != psutil.STATUS_ZOMBIE for c in children))
    finally:
        parent.kill()
        parent.wait()


def wait_until(happened, seconds=20):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


# ## Forgery


def test_events_of_ones_own_are_noticed_on_whatever_descriptor(judged):
    code = """
        import os
        for descriptor in range(256):
            try:
                os.write(descriptor, b'token ["import", null]\\ntoken ["done"]\\n')
            except OSError:
                pass
    """
    found = judged(code)
    assert found.status == "failed" and "wrote into the channel" in found.message


def test_the_token_alone_does_not_help(judged):
    code = """
        import gc, os
        for function in gc.get_objects():
            if getattr(function, "__qualname__", "") == "_channel.<locals>.send":
                function("import", None)
                function("test", "test_activations.py::test_the_input_stays_as_it_was")
                function("check", "x = Tensor([-1, 2]); relu(x); x", {"array": ["<f4", [2], "AACAvwAAAEA="]})
                function("end", None)
                function("done")
                os._exit(0)
    """
    found = judged(code)
    assert found.status == "failed" and 0 < found.right < found.checks


@pytest.mark.parametrize(
    "event",
    [
        "'check'",
        "'check', 1, 2",
        "'end', {'raised': 1}",
        "'test', {'list': []}",
        "'import', {'class': ['os', 'system']}",
        "'check', 'x', {'array': ['O', [1], 'AAAAAAAAAAA=']}",
        "'check', 'x', {'array': ['<f8', [1 << 70], '']}",
        "'check', 'x', {'array': ['<f8', [2, 2], 'AAAAAAAAAAA=']}",
        "'check', 'x', {'dict': [[{'list': []}, 1]]}",
        "'nothing'",
        "",
    ],
)
def test_events_that_make_no_sense(judged, event):
    code = f"""
        import gc, os
        for function in gc.get_objects():
            if getattr(function, "__qualname__", "") == "_channel.<locals>.send":
                function({event})
    """
    assert judged(code).status in ("failed", "error")


def test_too_many_events(judged):
    code = """
        import gc
        for function in gc.get_objects():
            if getattr(function, "__qualname__", "") == "_channel.<locals>.send":
                while True:
                    function("check", "x" * 1_000_000, None)
    """
    found = judged(code, limits=Limits(seconds=10))
    assert found.status == "failed" and "sent more than can be judged" in found.message


def test_closing_every_descriptor(judged):
    found = judged(elu="import os; os.closerange(0, 4096)")
    assert found.status == "crashed" and "closed the channel" in found.message


@pytest.mark.parametrize(
    "code",
    [
        "np.allclose = np.array_equal = np.all = lambda *a, **k: True",
        "np.asarray = np.array = lambda *a, **k: np.zeros(3)",
        "np.maximum = lambda x, y: x",
        "import builtins; builtins.all = builtins.isinstance = lambda *a: True",
        "import tt_tensor.teaching; tt_tensor.teaching.expect = lambda *a, **k: None",
        "import tt_tensor.teaching; tt_tensor.teaching.complaint = lambda *a, **k: None",
        "import pytest; pytest.main = lambda *a, **k: 0",
        "import _pytest.python; _pytest.python.Function.runtest = lambda self: None",
        "import _pytest.runner; _pytest.runner.runtestprotocol = lambda *a, **k: []",
        "import json; json.JSONEncoder.encode = lambda self, event: '[\"done\"]'",
        "import sys; sys.modules['tt_tensor.teaching'].Raised = sys.modules['tt_tito.judge.values'].encode = None",
        "import sys; sys.modules.pop('tt_tensor.teaching').expect = print",
        "import sys; sys.settrace(lambda *a: None); sys.setprofile(lambda *a: None)",
    ],
)
def test_a_patch_makes_nothing_right(judged, code):
    found = judged(code, elu="return x + 0.5")
    assert not found.passed and found.right < found.checks


def test_patching_numpy_is_refused_even_where_everything_is_right(judged):
    found = judged("np.allclose = lambda *a, **k: True")
    assert found.status == "failed"
    assert found.message == "numpy.allclose was replaced by something else: leave it unchanged."


EQUAL = "class Equal({}):\n    __eq__ = __ge__ = __le__ = lambda self, other: True"


@pytest.mark.parametrize(
    "code",
    [
        EQUAL.format("") + "\nreturn Equal()",
        EQUAL.format("") + "\n    __array__ = lambda self, *a, **k: self\nreturn Equal()",
        EQUAL.format("float") + "\nreturn Equal(7)",
        EQUAL.format("tuple") + "\nreturn Equal((7, 7, 7))",
        EQUAL.format("np.ndarray") + "\nreturn np.array([7.0, 7, 7]).view(Equal)",
        "class Meta(type):\n    __eq__ = lambda self, other: True\n    __hash__ = None\nreturn Meta('float', (), {})",
        "return 10 ** 100_000",
        "return 'x' * 10_000_000",
        "return b'x' * 10_000_000",
        "return [0] * 10_000_000",
        "return np.zeros(10 ** 7)",
        "return np.zeros((0, 1 << 40))",
        "nested = []\nfor _ in range(500): nested = [nested]\nreturn nested",
        "endless = []\nendless.append(endless)\nreturn endless",
        "return {object(): object()}",
        "return np.array([object()] * 3)",
        "return '\\ud800\\x00\\u202e' * 1000",
        "return float('nan')",
        "return lambda: [0, 0, 1]",
        "return type",
    ],
)
def test_strange_values(judged, code):
    found = judged(relu_slope=code)
    assert found.status in ("failed", "memory") and 0 < found.right < found.checks
    assert all(line.isprintable() for line in found.message.splitlines())


# ## Files, processes, the network


@pytest.mark.parametrize(
    "code",
    [
        "open(path, 'w').close()",
        "open(path, 'r+').truncate()",
        "import os; os.close(os.open(path, os.O_TRUNC | os.O_WRONLY))",
        "import os; os.remove(path)",
        "import os; os.rename(path, 'x')",
        "import os; os.replace('own', path)",
        "import os; os.truncate(path, 0)",
        "import os; os.chmod(path, 0)",
        "import os; os.link(path, 'x'); open('x', 'w')",
        "import os; os.symlink(path, 'x'); open('x', 'w')",
        "import os; os.chdir(os.path.dirname(path)); os.unlink(os.path.basename(path))",
        "import os; os.remove(os.path.basename(path), dir_fd=os.open(os.path.dirname(path), os.O_RDONLY))",
        "import shutil; shutil.rmtree(__import__('os').path.dirname(path))",
        "import pathlib; pathlib.Path(path).write_text('gone')",
        "np.save(path, np.ones(3))",
        "np.memmap(path, mode='r+', shape=3)[:] = 0",
        "import sqlite3; sqlite3.connect(path).execute('create table t (x)')",
    ],
)
def test_files_elsewhere_stay(held, judged, tmp_path, code):
    precious = tmp_path / "precious.txt"
    precious.write_text("thesis", encoding="utf-8")
    found = judged(elu=f"path = {str(precious)!r}\nopen('own', 'w').close()\n{code}")
    assert found.status == "failed" and "Error" in found.message
    assert precious.read_text(encoding="utf-8") == "thesis" and os.access(precious, os.R_OK)


@pytest.mark.skipif(not has_landlock(), reason="needs Landlock")
@pytest.mark.parametrize(
    "code",
    [
        "import ctypes; ctypes.CDLL(None).unlink(path.encode())",
        "import ctypes; ctypes.CDLL(None).truncate(path.encode(), 0)",
        "from safetensors.numpy import save_file; save_file({'x': np.ones(3)}, path)",
        "import os; os.open(os.path.basename(path), os.O_TRUNC | os.O_RDWR, dir_fd=os.open(os.path.dirname(path), 0))",
        "print(open(path).read())",
    ],
)
def test_the_kernel_keeps_files_from_what_goes_past_python(held, judged, tmp_path, code):
    precious = tmp_path / "precious.txt"
    precious.write_text("thesis", encoding="utf-8")
    found = judged(elu=f"path = {str(precious)!r}\n{code}")
    assert precious.read_text(encoding="utf-8") == "thesis" and "thesis" not in found.printed


def test_the_home_of_a_run_is_its_scratch_folder(held, judged):
    code = """
        import os, pathlib, tempfile
        assert pathlib.Path.home() == pathlib.Path.cwd() == pathlib.Path(tempfile.gettempdir()), pathlib.Path.home()
        assert not [name for name in os.environ if name.startswith("TT_") and name != "TT_JUDGE"], os.environ
        (pathlib.Path.home() / "mine").write_text("here I may write")
        os.makedirs("a/b/c", mode=0o500)
        import shutil
        shutil.rmtree("a/b/c", ignore_errors=True)
    """
    assert judged(code).full


@pytest.mark.parametrize("which", [lambda: course.reference(CHAPTER), lambda: course.unit_tests(CHAPTER)])
def test_neither_the_reference_nor_the_tests_can_be_read(held, judged, which):
    found = judged(f"SOLUTION = open({str(which())!r}, encoding='utf-8').read()")
    assert found.status == "error" and "PermissionError" in found.message


def test_the_compiled_reference_cannot_be_loaded(held, judged):
    code = f"""
        import importlib.util
        spec = importlib.util.spec_from_file_location("solution", {str(course.reference(CHAPTER))!r})
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    """
    found = judged(code)
    assert found.status == "error" and "PermissionError" in found.message


FORK = "import os\nif os.fork() == 0:\n    os.setsid()\n    import time; time.sleep(1000)"


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(FORK, marks=pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")),
        "import os\nwhile True: os.fork()",
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'while True: pass'], start_new_session=True)",
        "import os; os.system('sleep 1000 &')",
        "import os, sys; os.execv(sys.executable, ['python', '-c', 'while True: pass'])",
        "import multiprocessing as m, time; m.get_context('spawn').Process(target=time.sleep, args=[1000]).start()",
    ],
)
def test_processes_are_refused(judged, code):
    found = judged(elu=code)
    assert found.status == "failed" and "Error" in found.message


@on_linux
@pytest.mark.parametrize(
    "code",
    [
        "import ctypes\nwhile True: ctypes.pythonapi.fork()",
        "import ctypes\nlibc = ctypes.CDLL(None)\nwhile True:\n    if libc.vfork() == 0: libc.setsid()",
        "import ctypes; ctypes.CDLL(None).system(b'setsid sleep 1000 &')\nwhile True: pass",
    ],
)
def test_fork_bombs_past_python(held, judged, code):
    assert judged(elu=code, limits=Limits(seconds=1)).status == "timeout"


def test_what_a_run_left_behind_is_ended():
    """The second line of defence, for where the kernel does not refuse processes: they are known by their mark."""
    marks, start, sleep = [secrets.token_hex(16) for _ in range(2)], time.time(), "import time; time.sleep(60)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleep!r}], start_new_session=True)"
    subprocess.run([sys.executable, "-c", code], env=os.environ | {sandbox.MARK: marks[0]}, check=True)
    other = subprocess.Popen([sys.executable, "-c", sleep], env=os.environ | {sandbox.MARK: marks[1]})
    try:
        wait_until(lambda: len(left_behind(marks)) == 2)
        sandbox.end_marked(marks[0], start)
        assert [process.pid for process in left_behind(marks)] == [other.pid]
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("code", ["os.kill(os.getppid(), 0)", "os.killpg(os.getpgid(os.getppid()), 0)"])
def test_other_processes_cannot_be_ended(judged, code):
    found = judged(elu=f"import os; {code}")
    assert found.status == "failed" and "ending a process is refused" in found.message


@pytest.mark.parametrize("by", ["socket.create_connection(('127.0.0.1', port))", "ctypes_connect()"])
def test_there_is_no_network(held, judged, by):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        port = server.getsockname()[1]
        code = f"""
            import ctypes, socket, struct
            port = {port}
            def ctypes_connect():
                mine = socket.socket()
                address = struct.pack("<HH4s8x", socket.AF_INET, socket.htons(port), bytes([127, 0, 0, 1]))
                if ctypes.CDLL(None).connect(mine.fileno(), address, 16):
                    raise OSError("not connected")
            {by}
        """
        found = judged(elu=code)
        assert found.status == "failed" and "Error" in found.message
        with pytest.raises(TimeoutError):
            server.accept()


def test_modules_beside_the_file_are_not_those_of_the_judge(judged, tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise ImportError('the wrong one')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), *sys.path])
    assert judged(elu="").full


# ## The same file gives the same report


@pytest.mark.parametrize(
    "module, elu",
    [
        ("", "raise KeyError(object(), __import__('os').getcwd())"),
        ("", "i = 0\nwhile True: print(i := i + 1)"),
        ("", "return x + hash('a') % 7"),
        ("", "raise ValueError({'b', 'a', 'c'})"),
        ("import os, tempfile; raise OSError(tempfile.gettempdir())", ""),
    ],
)
def test_same_file_same_report(judged, module, elu):
    reports = {judged(module, elu=elu, limits=Limits(seconds=1)).to_json() for _ in range(2)}
    assert len(reports) == 1


# ## The boundary is the kernel's


PAST_THE_HOOK = """
import ctypes, os, struct
from tt_tito.judge import guard
for table in (guard.PATHS, guard.DESCRIPTORS, guard.REFUSED):
    table.clear()
libc = ctypes.CDLL(None, use_errno=True)
parent = os.getppid()
ERRORS = []
def tried(name, *arguments):
    ctypes.set_errno(0)
    done = getattr(libc, name)(*arguments)
    ERRORS.append((name, done, ctypes.get_errno()))
    return done
def system_call(number, *arguments):
    return tried("syscall", number, *arguments)
"""


@on_linux
def test_what_the_kernel_refuses(held, judged):
    code = """
tried("kill", parent, 0)
tried("kill", -1, 0)
tried("socket", 2, 1, 0)
tried("prlimit", parent or 1, 1, struct.pack("QQ", 1 << 40, 1 << 40), None)
tried("ptrace", 16, parent or 1, None, None)
tried("process_vm_readv", parent or 1, None, 0, None, 0, 0)
tried("setpriority", 0, parent or 1, 1)
tried("sched_setaffinity", parent or 1, 8, struct.pack("Q", 1))
tried("fcntl", 1, 8, parent or 1)
tried("unshare", 0x10000000)
tried("mount", None, b"/", None, 32, None)
tried("shmget", 0, 4096, 0o600)
tried("memfd_create", b"x", 0)
tried("mkfifo", b"x", 0o600)
tried("prctl", 1, 0, 0, 0, 0)
system_call(424, 0, 0, 0, 0)  # pidfd_send_signal
system_call(425, 8, bytes(120))  # io_uring_setup
system_call(434, parent or 1, 0)  # pidfd_open
for path in ("/etc/passwd", "/etc/shadow", f"/proc/{parent or 2}/environ", f"/proc/{parent or 2}/mem"):
    tried("open", path.encode(), 0)
assert len(ERRORS) == 22 and all(done == -1 and error for _, done, error in ERRORS), ERRORS
"""
    found = judged(PAST_THE_HOOK + code)
    assert found.full, found.message


@on_linux
def test_a_process_may_do_to_itself_what_it_likes(held, judged):
    code = """
        import os, resource, signal, threading
        signal.signal(signal.SIGUSR1, lambda *a: None)
        signal.raise_signal(signal.SIGUSR1)
        resource.getrlimit(resource.RLIMIT_AS)
        threading.Thread(target=print).start()
        assert len(os.listdir("/proc/self/task")) <= 3  # with the one that looks for what is stuck
    """
    assert judged(code).full


@on_linux
def test_the_reference_is_out_of_reach(held, judged):
    code = f"""
        from tt_tito.judge import guard
        import ctypes, os
        path = {str(course.reference(CHAPTER))!r}
        folder, name = os.path.split(path)
        ways = [
            lambda: os.open(name, os.O_RDONLY, dir_fd=os.open(folder, os.O_RDONLY)),
            lambda: os.open("/proc/self/root" + path, os.O_RDONLY),
            lambda: ctypes.CDLL(None).open(path.encode(), 0),
            lambda: (os.chdir(folder), os.open(name, os.O_RDONLY))[1],
            lambda: (os.symlink(path, "link"), ctypes.CDLL(None).open(b"link", 0))[1],
            lambda: (os.link(path, "other"), ctypes.CDLL(None).open(b"other", 0))[1],
        ]
        for way in ways:
            try:
                got = os.read(way(), 1 << 20).decode()
            except OSError:
                got = ""
            os.chdir(os.environ["HOME"])
            assert "def softmax" not in got
    """
    assert judged(code).full


@on_linux
def test_neither_compiled_nor_in_another_package_is_the_reference(held, judged):
    code = """
        import os, sys
        seen = []
        for start in sys.path:
            for package in os.listdir(start) if os.path.isdir(start) else ():
                for place, folders, files in os.walk(os.path.join(start, package)) if "tt_" in package else ():
                    seen += [os.path.join(place, file) for file in files if file.startswith("activations.")]
        def size(path):
            try:
                return len(open(path, "rb").read())
            except OSError:
                return 0
        assert all(size(path) < 1000 for path in seen), seen
    """
    assert judged(code).full


def test_another_copy_of_the_course_is_out_of_reach(tmp_path, monkeypatch):
    (tmp_path / "tt_tensor").mkdir()
    (copy := tmp_path / "tt_tensor" / "activations.py").write_text(REFERENCE, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    box.import_path.cache_clear()
    try:
        assert {os.path.realpath(course.reference(CHAPTER)), os.path.realpath(copy)} <= set(box.hidden_from(CHAPTER))
    finally:
        box.import_path.cache_clear()


# ## What fills the machine


SPACE = "for i in range(400):\n    with open(str(i), 'wb') as f: f.write(bytes(1 << 24))"
DELETED = """
held = []
for i in range(200):
    held.append(open("x", "wb", buffering=0))
    held[-1].write(bytes(1 << 24))
    os.unlink("x")
"""
THREADS = """
import threading, time
threading.stack_size(1 << 15)
for _ in range(10 ** 6):
    threading.Thread(target=time.sleep, args=[99], daemon=True).start()
"""


@on_linux
@pytest.mark.parametrize(
    "code, says",
    [
        (SPACE, ("made more", "No space")),
        (DELETED, ("made more", "No space")),
        ("for i in range(10 ** 7): open(str(i), 'w').close()", ("made more than 20,000 files", "did not end")),
        (THREADS, ("threads", "thread", "emory")),
    ],
    ids=["space", "deleted", "files", "threads"],
)
def test_what_fills_the_machine_is_ended(held, judged, code, says):
    start = time.monotonic()
    found = judged("import os\n" + code, limits=Limits(seconds=20))
    assert found.status in ("error", "crashed", "memory", "timeout") and time.monotonic() - start < 60, found
    assert any(text in found.message for text in says), found.message


@on_linux
def test_a_deep_folder_goes_away(held, judged):
    """The fixture looks whether it does."""
    code = "import ctypes\nlibc = ctypes.CDLL(None)\nname = b'a' * 200\n"
    code += "for _ in range(1500): libc.mkdir(name, 0o700); libc.chdir(name)"  # ten seconds, or less than one
    found = judged(code, limits=Limits(seconds=60))
    assert found.full or "made folders in folders without an end." in found.message, found.message


def test_a_scratch_folder_goes_away_whatever_is_in_it(tmp_path):
    top = tmp_path / "top"
    top.mkdir()
    here = os.getcwd()
    try:
        os.chdir(top)
        for number in range(3000):
            os.mkdir("a")
            os.symlink("/", "link")
            os.chdir("a")
            if number % 500 == 499:
                os.chmod(".", 0o300)
    finally:
        os.chdir(here)
    scratch._remove(top)
    assert not top.exists()


# ## What the parent does is limited


@pytest.mark.parametrize(
    "text",
    [
        b"x = " + b"[" * 150 + b"1" + b"]" * 150,
        b"(" * 500_000,
        b"-" * 900_000 + b"1",
        b"x" + b".a" * 400_000,
        b"a = " + b"1 + " * 240_000 + b"1",
        b"def f():\n" + b"".join(b" " * i + b"if 1:\n" for i in range(1, 90)) + b" " * 90 + b"pass",
        b"f'" + b"{" * 100_000,
        b"\xff\xfe" + b"x\0" * 1000,
        b"lambda: (" * 50_000,
        b"x = 9" + b"9" * 900_000,
        b"1 if 1 else " * 80_000 + b"1",
    ],
    ids=range(11),
)
def test_texts_that_are_hard_to_read(tmp_path, text):
    file, start = tmp_path / "activations.py", time.monotonic()
    file.write_bytes(text)
    found = assess(CHAPTER, file, limits=QUICK)
    assert found.points == 0 and time.monotonic() - start < 60


def test_long_messages_take_no_time(judged):
    code = """
        import gc, os
        for function in gc.get_objects():
            if getattr(function, "__qualname__", "") == "_channel.<locals>.send":
                function("import", {"raised": [["builtins.ValueError"], "x" * 8_000_000, "y" * 6_000_000]})
                os._exit(0)
    """
    start = time.monotonic()
    assert judged(code).status in ("error", "failed") and time.monotonic() - start < 20


# ## A class
#
# Honest and hostile files together: each honest row has its points, and no hostile row has more than its work.

HONEST = {
    "right": (REFERENCE, len(NAMES)),
    "half": (graft(SKELETON, REFERENCE, NAMES[:5]), 5),
    "wrong": (graft(REFERENCE, "def softmax(x, dim):\n    return x\n", ["softmax"]), len(NAMES) - 1),
    "draws": (f"{REFERENCE}\nimport matplotlib.pyplot as plt\n", len(NAMES)),
}
STEAL = f"""
import importlib.util, os, sys
path = {str(course.reference(CHAPTER))!r}
def steal(text):
    space = {{}}
    exec(compile(text, "stolen", "exec"), space)
    globals().update({{name: space[name] for name in {NAMES!r} if name in space}})
"""
HOSTILE = {  # code at the end of a right chapter, or of one of which nothing is written
    "deep": ("right", "import os\nfor _ in range(1500): os.mkdir('a'); os.chdir('a')"),
    "limits": ("right", "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_FSIZE, (100, 100))"),
    "pidfd": ("right", "import os, signal\nsignal.pidfd_send_signal(os.pidfd_open(os.getppid()), 9)"),
    "kill": ("right", f"{PAST_THE_HOOK}\nlibc.kill(-1, 9)\nlibc.kill(parent, 9)"),
    "sigio": ("right", "import fcntl, os\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, os.getppid())"),
    "nice": ("right", "import os\nos.setpriority(os.PRIO_PROCESS, os.getppid(), 19)"),
    "hook": ("right", f"{PAST_THE_HOOK}\nopen(PRECIOUS, 'w').write('gone')"),
    "dir_fd": ("right", """
import os
os.open("precious", os.O_WRONLY | os.O_TRUNC, dir_fd=os.open(os.path.dirname(PRECIOUS), 0))
"""),
    "chmod": ("right", f"{PAST_THE_HOOK}\nlibc.chmod(PRECIOUS.encode(), 0)\nlibc.utimes(PRECIOUS.encode(), None)"),
    "read": ("right", f"{PAST_THE_HOOK}" + """
for path in (PRECIOUS, f"/proc/{parent}/environ", "/etc/shadow"):
    try:
        found = open(path).read()
    except OSError:
        continue
    raise KeyError(found)
"""),
    "steals": ("blank", f"""{STEAL}
steal(os.read(os.open(os.path.basename(path), 0, dir_fd=os.open(os.path.dirname(path), 0)), 1 << 20))
"""),
    "loads": ("blank", f"""{STEAL}
spec = importlib.util.spec_from_file_location("s", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
globals().update(vars(module))
"""),
    "compiled": ("blank", f"""{STEAL}
import marshal
exec(marshal.loads(open(importlib.util.cache_from_source(path), "rb").read()[16:]))
"""),
    "frames": ("blank", """
import sys
def elu(x, /, alpha=1.0):
    frame = sys._getframe()
    while frame:
        if "wanted" in frame.f_locals:
            return frame.f_locals["wanted"]
        frame = frame.f_back
"""),
    "socket": ("blank", "import socket\nsocket.socket()"),
    "space": ("right", SPACE),
    "files": ("right", "for i in range(10 ** 7): open(str(i), 'w').close()"),
    "threads": ("right", THREADS),
    "memory": ("right", "hog = []\nwhile True: hog.append(bytearray(1 << 24))"),
    "forks": ("right", "import ctypes\nfor _ in range(10 ** 6): ctypes.CDLL(None).fork()"),
    "shared": ("right", "import ctypes\nfor _ in range(100): ctypes.CDLL(None).shmget(0, 1 << 24, 0o600)"),
    "sleeps": ("sleeps", ""),
    "endless": ("right", "while True: pass"),
    "floods": ("right", "import sys\nfor _ in range(10 ** 5): sys.stderr.write('x' * 10_000)"),
    "forges": ("blank", """
import os
for descriptor in range(3, 256):
    try:
        os.write(descriptor, b'token ["done"]\\n')
    except OSError:
        pass
"""),
    "patches": ("blank", "np.allclose = np.array_equal = lambda *a, **k: True"),
}  # fmt: skip
WAIT = "@(lambda f: lambda *a, **k: (__import__('time').sleep(4.5), f(*a, **k))[1])"


def hand_in_a_class(folder, precious):
    """40 folders; the most points of each that is hostile, and the points of each that is honest."""
    honest, hostile = {}, {}

    def put(name, text, file="activations.py"):
        (folder / name).mkdir(parents=True)
        (folder / name / file).write_text(text, encoding="utf-8")

    for name, (kind, code) in HOSTILE.items():
        text = {"right": REFERENCE, "blank": SKELETON, "sleeps": REFERENCE}[kind]
        if kind == "sleeps":
            for exercise in NAMES[:6]:
                text = text.replace(f"def {exercise}(", f"{WAIT}\ndef {exercise}(")
        put(f"hostile {name}", f"{text}\nPRECIOUS = {str(precious)!r}\n{code}\n")
        hostile[f"hostile {name}"] = {"right": len(NAMES), "blank": 0, "sleeps": len(NAMES) - 6}[kind]
    put("hostile \x1b[2J[/red]", SKELETON)
    hostile[r"hostile \x1b[2J[/red]"] = 0
    put("hostile huge", "")
    with open(folder / "hostile huge" / "activations.py", "wb") as file:
        file.truncate(1 << 40)
    put("hostile notebook", "[" * (1 << 22), "activations.ipynb")
    put("hostile parser", "(" * 900_000)
    hostile |= {"hostile huge": 0, "hostile notebook": 0, "hostile parser": 0}
    for number, (text, points) in enumerate([*HONEST.values()] * 2):
        put(f"honest {number}", text)
        honest[f"honest {number}"] = points
    for name, target in {"link": folder / "honest 0/activations.py", "reference": course.reference(CHAPTER)}.items():
        (folder / f"hostile {name}").mkdir()
        (folder / f"hostile {name}" / "activations.py").symlink_to(target)
    return honest, hostile


def soon(chapter, file, **options):
    """Judge a file; what is hostile has half of the time, of which most of it takes all."""
    limits = Limits(seconds=5, budget=30) if file.parent.name.startswith("hostile") else Limits()
    return assess(chapter, file, limits=limits, **options)


@on_linux
def test_a_hostile_class(tmp_path, marks, monkeypatch):
    folder, kept = tmp_path / "class", tmp_path / "kept"
    (temporary := tmp_path / "temporary").mkdir()
    kept.mkdir()
    (precious := kept / "precious").write_text("thesis", encoding="utf-8")
    before = os.stat(precious)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("SECRET", "a key of the instructor's")
    monkeypatch.setattr(grade, "assess", soon)
    honest, hostile = hand_in_a_class(folder, precious)
    assert len(honest) + len(hostile) + 2 == 40
    start, tables = time.monotonic(), []
    found = grade.grade([folder], ("unit",), came=lambda marks: tables.append(len(marks.rows)))
    seconds = time.monotonic() - start
    grade.write_csv(found, tmp_path / "marks.csv")
    points = {row.learner: row.assessment.points for row in found.rows}
    assert {name: points[name] for name in honest} == honest
    assert {name: got for name, got in points.items() if name in hostile and got > hostile[name]} == {}
    assert len(points) == len(found.rows) == len(honest) + len(hostile)
    assert not [row for row in found.rows if row.assessment.status == grade.NOT_JUDGED]
    assert all(row.assessment.passed for row in found.rows if row.assessment.points == row.assessment.out_of)
    assert sorted(found.without_files) == ["hostile link", "hostile reference"]
    assert {left.reason for left in found.left} == {"is a symbolic link, which is not followed"}
    table = (tmp_path / "marks.csv").read_text(encoding="utf-8")
    assert "thesis" not in table and "SECRET" not in table and "root:" not in table and "\x1b" not in table
    after = os.stat(precious)
    assert precious.read_text(encoding="utf-8") == "thesis"
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert os.listdir(kept) == ["precious"] and not os.listdir(temporary) and not left_behind(marks)
    print(f"{len(found.rows)} rows in {seconds:.0f} s")
    assert tables == list(range(len(found.rows) + 1)) and seconds < 600  # every row has its budget
