"""OpenAI's tiktoken with our vocabulary. It has no training, and keeps nothing from one text to the next."""

import tiktoken
import tokens as t

GPT2 = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""  # as tiktoken has it


def _encoding(size):
    encoding = tiktoken.Encoding("ours", pat_str=GPT2, mergeable_ranks=t.tokenizer(size).ranks, special_tokens={})
    text = t.text()

    def step():
        return len(encoding.encode_ordinary(text))

    return step


def again_1024():
    return _encoding(1024)


def first_1024():
    return _encoding(1024)


def again_4096():
    return _encoding(4096)


def first_4096():
    return _encoding(4096)
