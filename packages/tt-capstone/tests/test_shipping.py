"""Shipping: what is packed, that it is always the same, and that it runs where nothing of ours is installed."""

import ast
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

import tt_nlp
import tt_tensor as tt
from tt_autograd import save_checkpoint
from tt_capstone import load_language_model, projects, shipping
from tt_capstone.capstone import small_llama
from tt_capstone.llama_files import save_llama_gguf

command = vars(shipping)["main"]
COMPILED = ("numpy", "regex", "safetensors")
QUESTION = [{"role": "user", "content": "Hello"}]


def manifest(file):
    return json.loads(zipfile.ZipFile(file).read("MANIFEST.json"))


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    """The chat program in an archive."""
    return shipping.ship(tmp_path_factory.mktemp("shipped") / "chat.pyz")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The folder of a project with weights and three examples in it, and its archive."""
    folder = projects.new_project(tmp_path_factory.mktemp("shipped") / "digits", "Digits")
    model = tt.Linear(64, 10)
    model.weight.copy_(tt.from_numpy(np.eye(10, 64, dtype=np.float32)))
    model.bias.copy_(tt.zeros(10))
    save_checkpoint(folder / "model.safetensors", model.state_dict())
    np.save(folder / "examples.npy", np.eye(64, dtype=np.float32)[[7, 0, 9]])
    return folder, shipping.ship(folder.parent / "digits.pyz", project=folder)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small language model with random weights in a file."""
    tt.manual_seed(0)
    names = [tt_nlp.printed(byte) for byte in tt_nlp.tokenization.BYTES]
    file = tmp_path_factory.mktemp("weights") / "small.gguf"
    tokens = {"tokens": [*names, "<end>"], "token_type": [1] * 256 + [3], "model": "gpt2", "eos_token_id": 256}
    metadata = {f"tokenizer.ggml.{name}": value for name, value in tokens.items()}
    template = "{% for m in messages %}{{ m.role }}:{{ m.content }}<end>{% endfor %}"
    save_llama_gguf(small_llama(257), file, **metadata, **{"tokenizer.chat_template": template})
    return file


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A folder in which Python finds NumPy, regex and safetensors, and nothing of ours."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name in (*COMPILED, "numpy.libs"):
        spec = importlib.util.find_spec(name) if name in COMPILED else None
        source = Path(spec.origin).parent if spec else Path(np.__file__).parents[1] / name
        try:
            if source.exists():
                (folder / name).symlink_to(source, target_is_directory=True)
        except OSError:
            pytest.skip("this system does not allow links, with which NumPy is shown to another Python")
    return folder


def run(*arguments, libraries=None, cwd=None, python=sys.executable, code=None):
    """Run Python without the packages that are installed, but with those in a folder."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "TT_SWAP")}
    environment |= {"PYTHONPATH": str(libraries)} if libraries else {}
    line = [python, "-S", *(["-c", code] if code else []), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, encoding="utf-8", env=environment, cwd=cwd, check=False)


# What is in it


def test_the_same_files_give_the_same_bytes(project, chat, tmp_path):
    again = shipping.ship(tmp_path / "other.pyz", project=project[0])
    assert again.read_bytes() == project[1].read_bytes()
    entries = zipfile.ZipFile(chat).infolist()
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert [entry.filename for entry in entries] == sorted(entry.filename for entry in entries)


def test_all_of_the_program_is_packed_and_nothing_else_of_ours(chat):
    names = zipfile.ZipFile(chat).namelist()
    ours = {name.partition("/")[0] for name in names if name.startswith("tt_")}
    assert ours == {"tt_tensor", "tt_optim", "tt_autograd", "tt_spatial", "tt_data", "tt_nlp", "tt_opt", "tt_capstone"}
    wanted = ["tt_opt/compiled.py", "tt_opt/fast.py", "tt_autograd/digits.npz", "tt_capstone/template/project.py",
              "tt_capstone/shipping.py", "jinja2/environment.py", "markupsafe/_native.py"]  # fmt: skip
    assert [name for name in wanted if name not in names] == []
    unwanted = (".so", ".pyd", ".pyc", "RECORD", "direct_url.json")
    assert [name for name in names if name.endswith(unwanted) or "/tests/" in name or "__pycache__" in name] == []


def test_what_is_packed_is_what_is_imported(chat):
    with zipfile.ZipFile(chat) as packed:
        for module in ("tt_tensor.tensor", "tt_capstone.capstone", "tt_nlp"):
            spec = importlib.util.find_spec(module)
            name = f"{module.replace('.', '/')}{'/__init__' if spec.submodule_search_locations else ''}.py"
            assert packed.read(name) == Path(spec.origin).read_bytes()


def test_libraries_come_with_their_licences(chat):
    names = zipfile.ZipFile(chat).namelist()
    for library in ("jinja2", "markupsafe", "tqdm"):
        described = [name for name in names if name.lower().startswith(f"{library}-") and ".dist-info/" in name]
        assert any("LICEN" in name for name in described) and any(name.endswith("METADATA") for name in described)


def test_the_manifest_has_the_checksum_of_every_file(chat):
    with zipfile.ZipFile(chat) as packed:
        found = {name: hashlib.sha256(packed.read(name)).hexdigest() for name in packed.namelist()}
    content = manifest(chat)
    del found["MANIFEST.json"]
    assert content["files"] == found and content["lib"] is None and content["own_chapters"] == {}


def test_machine_code_is_asked_for_by_its_requirements(chat):
    needed = manifest(chat)["needed"]
    assert set(needed) == set(COMPILED) and needed["numpy"] == "numpy>=2.0"
    assert "regex>=" in needed["regex"] and "safetensors" in needed["safetensors"]


def test_nothing_of_this_machine_is_in_it(chat):
    here = [str(Path(__file__).parents[3]).encode(), sys.prefix.encode()]
    with zipfile.ZipFile(chat) as packed:
        assert [name for name in packed.namelist() if any(path in packed.read(name) for path in here)] == []


def test_data_are_read_in_a_way_that_works_in_an_archive(chat):
    """By importlib.resources: in an archive there is no file beside `__file__`."""
    beside = re.compile(rb"__file__\)\.(with_name|parent\b.* / )")
    with zipfile.ZipFile(chat) as packed:
        names = [name for name in packed.namelist() if name.startswith("tt_") and name.endswith(".py")]
        assert [name for name in names if beside.search(packed.read(name))] == []


def test_a_project_takes_only_what_it_imports(project):
    names = zipfile.ZipFile(project[1]).namelist()
    ours = {name.partition("/")[0] for name in names if name.startswith("tt_")}
    assert ours == {"tt_tensor", "tt_optim", "tt_autograd"}
    assert "project.py" in names and "jinja2/__init__.py" not in names
    assert not any(name.endswith((".npy", "model.safetensors")) for name in names)
    assert set(manifest(project[1])["needed"]) == {"numpy", "safetensors"}


def test_a_project_takes_its_card_and_the_libraries_that_it_imports(tmp_path):
    (tmp_path / "project.py").write_text("import numpy, jinja2, helper, tt_tensor", encoding="utf-8")
    (tmp_path / "helper.py").write_text("def later():\n    import threadpoolctl", encoding="utf-8")
    (tmp_path / "card.json").write_text("{}", encoding="utf-8")
    names = zipfile.ZipFile(shipping.ship(tmp_path / "x.zip", project=tmp_path)).namelist()
    assert {"helper.py", "card.json", "jinja2/__init__.py", "markupsafe/__init__.py", "threadpoolctl.py"} <= set(names)


def test_a_library_can_go_along(tmp_path, project):
    file = shipping.ship(tmp_path / "x.pyz", project=project[0], include=["threadpoolctl"])
    assert "threadpoolctl.py" in zipfile.ZipFile(file).namelist()


# How it is found out


@pytest.mark.parametrize(
    "source, found",
    [("import a.b, c", {"a.b", "c"}), ("from a import b as c", {"a", "a.b"}), ("from . import b", set()),
     ("def f():\n    if x:\n        import a", {"a"}), ("load('tt_x.y')", {"tt_x.y"}), ("'see tt_x.y'", set())],
)  # fmt: skip
def test_a_source_mentions_modules(source, found):
    assert shipping.mentioned(source) == found


def test_conditions_of_several_packages_hold_together():
    lines = ["safetensors>=0.4.3", "numpy>=2.0", "safetensors >=0.5", "Typing_Extensions"]
    found = {"numpy": "numpy>=2.0", "safetensors": "safetensors>=0.4.3,>=0.5", "typing-extensions": "typing-extensions"}
    assert shipping.joined(lines) == found


def test_an_archive_is_readable_everywhere():
    entry = zipfile.ZipFile(io.BytesIO(shipping.archive({"a/b.py": b"1"}))).getinfo("a/b.py")
    assert entry.external_attr >> 16 == 0o100644 and entry.create_system == 3 and entry.compress_type == 0


@pytest.mark.parametrize("run", ["project", "tt_capstone"])
def test_an_old_python_reads_the_beginning_so_that_it_can_say_what_is_wrong(run):
    ast.parse(shipping.starter(run), feature_version=(3, 7))


STAND_IN = """
import importlib.util, pathlib, sys
spec = importlib.util.find_spec("tt_optim.schedulers")
file = pathlib.Path(sys.argv[1])
file.write_bytes(pathlib.Path(spec.origin).read_bytes() + b"# mine")

class Finder:
    def find_spec(name, path=None, target=None):
        return importlib.util.spec_from_file_location(name, file) if name == "tt_optim.schedulers" else None

for name in [name for name in sys.modules if name.startswith("tt_")]:
    del sys.modules[name]
sys.meta_path.insert(0, Finder)
from tt_capstone import shipping
shipping.ship(sys.argv[2], project=sys.argv[3])
"""


def test_a_chapter_that_stands_in_is_the_one_that_is_packed(project, tmp_path):
    line = [sys.executable, "-c", STAND_IN, tmp_path / "mine.py", tmp_path / "x.pyz", project[0]]
    subprocess.run(line, check=True, env={**os.environ, "TT_SWAP": "0"})
    with zipfile.ZipFile(tmp_path / "x.pyz") as packed:
        assert packed.read("tt_optim/schedulers.py").endswith(b"# mine")
        assert not packed.read("tt_optim/optimizers.py").endswith(b"# mine")
    content = manifest(tmp_path / "x.pyz")
    assert list(content["own_chapters"]) == ["tt_optim.schedulers"]
    assert "import matplotlib" in (tmp_path / "mine.py").read_text(encoding="utf-8")
    assert content["needed"] == manifest(project[1])["needed"]  # the chapter's show_* functions draw


# Where it runs


def test_a_project_runs_where_nothing_of_ours_is(project, elsewhere, tmp_path):
    folder, file = project
    assert run(libraries=elsewhere, code="import tt_tensor").returncode == 1
    done = run(file, folder / "model.safetensors", folder / "examples.npy", libraries=elsewhere, cwd=tmp_path)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["7", "0", "9"], "")


def test_an_archive_runs_by_a_relative_path(project, elsewhere):
    done = run("digits.pyz", "--verify", libraries=elsewhere, cwd=project[1].parent)
    count = len(manifest(project[1])["files"])
    assert (done.returncode, done.stdout.strip()) == (0, f"all {count} files are as they were packed")


ANSWER = """
import sys
sys.path.insert(0, sys.argv[1])
from tt_capstone import load_language_model
chat = load_language_model(sys.argv[2])
print(ascii("".join(chat.answer([{"role": "user", "content": "Hello"}], 20, temperature=0))))
"""


def test_a_model_answers_there_as_it_does_here(chat, weights, elsewhere):
    done = run(chat, weights, libraries=elsewhere, code=ANSWER)
    wanted = "".join(load_language_model(weights).answer(QUESTION, 20, temperature=0))
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, ascii(wanted), "")


def test_the_archive_has_the_commands(chat, elsewhere, tmp_path):
    done = run(chat, "new", tmp_path / "mine", libraries=elsewhere)
    assert (done.returncode, done.stderr) == (0, "") and (tmp_path / "mine" / "project.py").is_file()


def test_what_is_missing_is_named_at_the_start(project, chat):
    done = run(project[1])
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("This program needs numpy>=2.0, safetensors") and "-m pip install" in done.stderr
    assert "regex" in run(chat, "--help").stderr


@pytest.mark.parametrize("arguments", [(), ("--verify",)])
def test_a_flipped_bit_is_noticed(project, elsewhere, tmp_path, arguments):
    data = bytearray(project[1].read_bytes())
    place = data.index(b"Adaptive") if b"Adaptive" in data else data.index(b"Adam")
    data[place] ^= 1
    (tmp_path / "x.pyz").write_bytes(data)
    done = run(tmp_path / "x.pyz", *arguments, libraries=elsewhere)
    assert done.returncode == 1 and "1 files are damaged, the first is " in done.stderr


# Numba would refuse to compile from a .pyz


def test_numba_is_hidden_from_an_archive_that_it_does_not_know(tmp_path):
    code = "from importlib.util import find_spec\ndef main(arguments):\n    print(find_spec('numba') is None)\n"
    (tmp_path / "project.py").write_text(code, encoding="utf-8")
    (tmp_path / "libraries" / "numba").mkdir(parents=True)
    (tmp_path / "libraries" / "numba" / "__init__.py").touch()
    shipping.ship(tmp_path / "x.pyz", project=tmp_path)
    shutil.copy(tmp_path / "x.pyz", tmp_path / "x.zip")
    for name, hidden in (("x.pyz", "True"), ("x.zip", "False")):
        done = run(tmp_path / name, libraries=tmp_path / "libraries")
        assert (done.stdout.strip(), done.stderr) == (hidden, ""), name


# What is refused


@pytest.mark.parametrize("name", ["chat", "chat.py", "chat.tar"])
def test_another_ending_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name} is not a name for an archive: let it end in .pyz or .zip"):
        shipping.ship(tmp_path / name)


def test_nothing_is_overwritten_by_a_folder(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="exists already: choose a new folder"):
        shipping.ship(tmp_path / "there", folder=True)


def test_what_is_not_installed_cannot_go_along(tmp_path, project):
    with pytest.raises(ValueError, match="no_such_library cannot be packed, because it is not installed here"):
        shipping.ship(tmp_path / "x.pyz", project=project[0], include=["no_such_library"])


def test_the_command_says_what_it_wrote_or_what_is_wrong(tmp_path, project, capsys):
    assert command([str(tmp_path / "x.pyz"), "--project", str(project[0])]) == 0
    said = capsys.readouterr().out
    assert "SHA-256 " + hashlib.sha256(project[1].read_bytes()).hexdigest() in said and "python x.pyz" in said
    assert command([str(tmp_path / "y.pyz"), "--project", str(tmp_path)]) == 1
    assert "has no project.py" in capsys.readouterr().err and not (tmp_path / "y.pyz").exists()


# In fresh environments, with the package index


def fresh(folder):
    venv.create(folder, with_pip=True)
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


@pytest.mark.install
def test_an_archive_runs_in_an_empty_environment(chat, weights, tmp_path):
    python = fresh(tmp_path / "env")
    done = subprocess.run([python, chat, "--verify"], capture_output=True, encoding="utf-8", check=False, cwd=tmp_path)
    assert done.returncode == 1 and "This program needs numpy" in done.stderr
    advice = done.stderr.partition(f"{python} ")[2].replace('"', "").split()
    assert advice[:3] == ["-m", "pip", "install"]
    subprocess.run([python, *advice], check=True, cwd=tmp_path)
    line = [python, "-c", ANSWER, chat, weights]
    done = subprocess.run(line, capture_output=True, encoding="utf-8", check=True, cwd=tmp_path)
    assert done.stdout.strip() == ascii("".join(load_language_model(weights).answer(QUESTION, 20, temperature=0)))


@pytest.mark.install
def test_a_folder_runs_in_an_empty_environment_without_a_network(project, tmp_path):
    folder, _ = project
    made = shipping.ship(tmp_path / "digits", project=folder, folder=True)
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    arguments = [folder / "model.safetensors", folder / "examples.npy"]
    done = subprocess.run([python, made, *arguments], capture_output=True, encoding="utf-8", check=True, cwd=tmp_path)
    assert done.stdout.split() == ["7", "0", "9"]
    done = subprocess.run([python, made, "--verify"], capture_output=True, encoding="utf-8", check=True)
    assert "files are as they were packed" in done.stdout
    changed = made / "lib" / "tqdm" / "__init__.py"
    assert changed.stat().st_nlink == 1, "a change would reach the cache that the file was linked from"
    changed.write_text("", encoding="utf-8")
    done = subprocess.run([python, made, "--verify"], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 1 and "the first is lib/tqdm/__init__.py" in done.stderr
    content = json.loads((made / "MANIFEST.json").read_text(encoding="utf-8"))
    (made / "MANIFEST.json").write_text(json.dumps({**content, "lib": "cpython-39 other"}), encoding="utf-8")
    done = subprocess.run([python, made], capture_output=True, encoding="utf-8", check=False)
    assert "This folder was packed for cpython-39 other, and this is " in done.stderr
