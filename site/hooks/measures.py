"""Measure chapters and appendices as text: their length, their runs of code, and their voice.

    python site/hooks/measures.py                   a row for each chapter and appendix
    python site/hooks/measures.py autograd tensor   some of them
    python site/hooks/measures.py --sentences 40    sentences drawn at random from each, to be read by an editor

ENGLISH.md's aims, in sentences of a hundred: 25 with "we", 5 with "you", at most 0.5 that name no agent.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
from dataclasses import dataclass, fields

from reading import CONTRACT, Prose, outside_fences, read_chapter
from weave import ROOT, Appendix, Chapter, written

WE = re.compile(r"\b(we|our|ours|us|ourselves|let's)\b", re.IGNORECASE)
YOU = re.compile(r"\b(you|your|yours|yourself)\b", re.IGNORECASE)
VERB = "must|cannot|can|could|should|would|has|wants|needs|may|might|does|gets|sees|writes|uses|asks|finds|knows"
IMPERSONAL = re.compile(
    rf"\b(somebody|someone|nobody|no one|everybody|everyone|anybody|anyone|whoever|one ({VERB}))\b|^Who\b(?!.*\?)",
    re.IGNORECASE,
)
TERMS = [
    "activation", "attention", "autoregressive", "backpropagation", "backward pass", "batch normalization",
    "bias", "broadcasting", "calibration", "checkpoint", "computational graph", "contiguous", "convolution",
    "cross-entropy", "data augmentation", "data loader", "distillation", "dropout", "early stopping", "element",
    "embedding", "epoch", "feature map", "filter", "forward pass", "fully connected", "generator", "gradient",
    "gradient clipping", "gradient descent", "hidden", "hyperparameter", "im2col", "index", "inference",
    "initialization", "kernel", "latency", "layer normalization", "learning rate", "logits", "loss", "low-rank",
    "matrix product", "mini-batch", "momentum", "nonlinear", "normalization", "overfit", "padding", "perplexity",
    "pooling", "positional encoding", "pretrain", "profiler", "pruning", "quantization", "receptive field",
    "regulariz", "residual", "reverse mode", "roofline", "sampling", "scheduler", "seed", "skip connection",
    "softmax", "sparse", "speculative decoding", "stride", "temperature", "throughput", "tokenizer",
    "topological", "validation", "vanishing gradient", "vector-jacobian", "view", "vocabulary", "weight decay",
    "warm-up",
]  # fmt: skip


@dataclass(frozen=True)
class Measures:
    """Of a chapter. A run is the code between two pieces of prose, without blank lines and `__all__`; `we`, `you` and
    `impersonal` count sentences of a hundred; `terms` are those of the field's words above that it uses."""

    words: int
    code: int
    median_run: float
    longest_run: int
    at_line: int
    words_a_line: float
    we: float
    you: float
    impersonal: float
    sentence: float
    terms: int
    checks: int
    shows: int
    exercises: int


def measure(source: str, name: str) -> Measures:
    text = read_chapter(source, name)
    words = _words(text.title)
    runs = [(0, 1)]
    for block in text.blocks:
        if isinstance(block, Prose):
            words += _words(" ".join(outside_fences(block.text)))
            runs.append((0, block.line))
        elif block.aside != CONTRACT:
            size, at = runs[-1]
            more = sum(bool(line.strip()) for line in block.source.splitlines())
            runs[-1] = (size + more, at if size else block.line)
    runs = [run for run in runs if run[0]] or [(0, 1)]
    longest, at = max(runs)
    spoken = sentences(source, name)
    share = lambda pattern: round(100 * sum(bool(pattern.search(s)) for s in spoken) / max(1, len(spoken)), 1)
    lower = " ".join(spoken).lower()
    return Measures(
        words=words,
        code=sum(size for size, _ in runs),
        median_run=statistics.median(size for size, _ in runs),
        longest_run=longest,
        at_line=at,
        words_a_line=round(words / max(1, sum(size for size, _ in runs)), 1),
        we=share(WE),
        you=share(YOU),
        impersonal=share(IMPERSONAL),
        sentence=round(sum(map(_words, spoken)) / max(1, len(spoken)), 1),
        terms=sum(term in lower for term in TERMS),
        checks=len(text.experiments("check_")),
        shows=len(text.experiments("show_")),
        exercises=len(re.findall(r"#\s*exercise(?: \(starred\))?\s*$", source, re.MULTILINE)),
    )


def sentences(source: str, name: str) -> list[str]:
    """The sentences of a chapter's prose, without headings, tables, formulas and listings."""
    found = []
    for block in read_chapter(source, name).blocks:
        if isinstance(block, Prose):
            lines = "\n".join(line for line in outside_fences(block.text) if not re.match(r"#|\s*\||---", line))
            lines = re.sub(r"\$\$.*?\$\$", "", lines, flags=re.DOTALL)
            for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", lines):
                plain = re.sub(r"^\s*(?:[-*]|\d+\.) ", "", paragraph)
                plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", " ".join(plain.split()))
                found += re.split(r"(?<!e\.g\.)(?<!i\.e\.)(?<=[.!?])[\"')*]*\s+(?=[\"'(*`$A-Z])", plain)
    return [sentence for sentence in found if _words(sentence) > 2]


def _words(text: str) -> int:
    return sum(any(sign.isalnum() for sign in word) for word in text.split())


def print_measures(entries: list[Chapter | Appendix]) -> None:
    columns = [field.name for field in fields(Measures)]
    print(f"{'':<22}" + "".join(f"{name.replace('_', ' '):>13}" for name in columns))
    for entry in entries:
        found = measure((ROOT / entry.source).read_text(encoding="utf-8"), entry.source)
        name = str(entry) if isinstance(entry, Chapter) else f"   {entry.slug}"
        print(f"{name:<22}" + "".join(f"{getattr(found, column):>13,g}" for column in columns))


def print_sentences(entries: list[Chapter | Appendix], count: int) -> None:
    for entry in entries:
        spoken = sentences((ROOT / entry.source).read_text(encoding="utf-8"), entry.source)
        print(f"\n{entry}")
        for sentence in random.Random(entry.slug).sample(spoken, min(count, len(spoken))):
            print(f"  {sentence}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slugs", nargs="*", help="which chapters; without any, all that are written")
    parser.add_argument("--sentences", type=int, metavar="N", help="print N sentences of each, drawn at random")
    options = parser.parse_args(arguments)
    entries = [entry for entry in written() if not options.slugs or entry.slug in options.slugs]
    if options.sentences:
        print_sentences(entries, options.sentences)
    else:
        print_measures(entries)


if __name__ == "__main__":
    main()
