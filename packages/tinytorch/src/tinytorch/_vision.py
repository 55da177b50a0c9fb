"""What the modules of tinytorch.vision have in common: words for what torchvision has and tt_data has not."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from typing import Any


def offer(module: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a module."""

    def names() -> list[str]:
        return sorted(name for name in vars(sys.modules[module]) if name[0] != "_")

    def missing(name: str) -> Any:
        if name == "__all__":
            return names()
        near = difflib.get_close_matches(name, names(), 3, 0.5) or names()
        hint = "" if name[:2] == "__" else f"; the nearest here: {', '.join(near)}"
        raise AttributeError(f"module {module!r} has no attribute {name!r}{hint}", name=name)

    return missing, names
