"""tinytorch through tt.toml: what a learner has written runs under torch's names."""

import os
import subprocess
import sys

import pytest

from tt_tito import course, curriculum, exercises

START = (
    "import sys, tt_tito.finder as finder; finder.activate(); sys.argv[1:] = {arguments!r}; "
    "from tinytorch._as_torch import main; main()"
)

PROGRAM = """
import torch
import torch.nn as nn

net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
nn.functional.cross_entropy(net(torch.ones(4, 2)), torch.tensor([0, 1, 0, 1])).backward()
optimizer.step()
print(nn.Linear.__init__.__code__.co_filename, nn.Linear is torch.nn.modules.Linear, getattr(nn.Linear, "mine", False))
"""

GPT = """
import torch
import torch.nn as nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.project = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(0.0))

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = (t.view(B, T, self.heads, -1).transpose(1, 2) for t in self.attend(self.before(x)).split(C, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=True)
        x = x + self.project(y.transpose(1, 2).contiguous().view(B, T, C))
        return x + self.mlp(self.between(x))


class GPT(nn.Module):
    def __init__(self, vocabulary=11, context=8, width=16):
        super().__init__()
        self.context = context
        self.transformer = nn.ModuleDict(dict(
            wte=nn.Embedding(vocabulary, width), wpe=nn.Embedding(context, width), drop=nn.Dropout(0.0),
            h=nn.ModuleList([Block(width, 4) for _ in range(2)]), ln_f=nn.LayerNorm(width),
        ))
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.transformer.wte.weight = self.head.weight

    def start(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            torch.nn.init.normal_(module.weight, mean=0.0, std=0.2)
            if getattr(module, "bias", None) is not None:
                torch.nn.init.zeros_(module.bias)

    def forward(self, ids, targets=None):
        x = self.transformer.wte(ids) + self.transformer.wpe(torch.arange(ids.size(1), dtype=torch.long))
        x = self.transformer.drop(x)
        for block in self.transformer.h:
            x = block(x)
        logits = self.head(self.transformer.ln_f(x))
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1)

    @torch.no_grad()
    def generate(self, ids, count):
        for _ in range(count):
            logits = self(ids[:, -self.context:])[0][:, -1, :] / 0.8
            logits[logits < torch.topk(logits, 5)[0][:, [-1]]] = -float("Inf")
            ids = torch.cat((ids, torch.multinomial(F.softmax(logits, dim=-1), num_samples=1)), dim=1)
        return ids


net, data = GPT(), torch.arange(200) ** 2 % 11
torch.manual_seed(1337)  # here and not before, because a learner's layers may draw other random numbers
net.apply(net.start)
decayed = [p for p in net.parameters() if p.dim() >= 2]
others = [p for p in net.parameters() if p.dim() < 2]
optimizer = torch.optim.AdamW(
    [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=0.01, betas=(0.9, 0.95),
)
for step in range(12):
    for group in optimizer.param_groups:
        group["lr"] = 0.01 * min(1, (step + 1) / 4)
    places = [(37 * step + 31 * text) % (len(data) - 9) for text in range(6)]
    x = torch.stack([data[i : i + 8] for i in places])
    y = torch.stack([data[i + 1 : i + 9] for i in places])
    y[0, 0] = -1
    loss = net(x, y)[1]
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    print(loss.item())
net.eval()
torch.manual_seed(1)
print(*net.generate(torch.zeros((1, 1), dtype=torch.long), 12)[0].tolist())
"""


def run(folder, *arguments):
    """What a program prints in a folder, with the stand-ins of its tt.toml."""
    environment = {name: value for name, value in os.environ.items() if name != "TT_SWAP"}
    process = subprocess.run(
        [sys.executable, "-c", START.format(arguments=arguments)],
        capture_output=True, encoding="utf-8", cwd=folder, env=environment,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.split()


@pytest.fixture
def workspace(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    (tmp_path / "work").mkdir()
    return tmp_path


def typed_in(folder, *slugs):
    """The course's own text of chapters as a learner's files, with a mark on Linear, and a tt.toml that names them."""
    for slug in slugs:
        text = course.reference(curriculum.chapter(slug)).read_text(encoding="utf-8")
        text += "\nLinear.mine = True\n" if slug == "layers" else ""
        (folder / "work" / f"{slug}.py").write_text(text, encoding="utf-8")
    lines = [f'{slug} = "work/{slug}.py"' for slug in slugs]
    (folder / "tt.toml").write_text("\n".join(["[use]", *lines]) + "\n", encoding="utf-8")


def test_without_a_table_the_layers_are_the_courses(workspace):
    assert run(workspace, "program.py")[1:] == ["True", "False"]


def test_one_chapter_is_the_learners(workspace):
    typed_in(workspace, "layers")
    assert run(workspace, "program.py") == [str(workspace / "work" / "layers.py"), "True", "True"]


def test_chapters_2_to_8_are_the_learners(workspace):
    typed_in(workspace, "tensor", "activations", "layers", "losses", "optimizers", "autograd", "training")
    assert run(workspace, "program.py") == [str(workspace / "work" / "layers.py"), "True", "True"]


def test_a_gpt_learns_the_same_on_what_a_learner_has_typed(workspace):
    """A GPT in the form of nanoGPT, on the course and on solutions of another hand: the same losses and tokens."""
    (workspace / "gpt.py").write_text(GPT, encoding="utf-8")
    of_the_course = run(workspace, "gpt.py")
    slugs = ("tensor", "activations", "layers", "losses", "optimizers", "autograd", "training")
    typed_in(workspace, *slugs)
    for slug in slugs:
        file = workspace / "work" / f"{slug}.py"
        text = file.read_text(encoding="utf-8")
        solution = course.solution(curriculum.chapter(slug), "two").read_text(encoding="utf-8")
        names = [exercise.name for exercise in exercises.exercises(text)]
        file.write_text(exercises.graft(text, solution, names), encoding="utf-8")
    assert run(workspace, "program.py") == [str(workspace / "work" / "layers.py"), "True", "True"]
    of_the_learner = run(workspace, "gpt.py")
    losses = [[float(loss) for loss in printed[:12]] for printed in (of_the_course, of_the_learner)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5) and losses[0][-1] < losses[0][0] - 0.5
    assert of_the_learner[12:] == of_the_course[12:] and len(of_the_course) == 25
