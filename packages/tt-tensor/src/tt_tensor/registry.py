"""The package's functions by name, for the methods that call them: here, `tt.exp` is `tt_tensor.exp`.

`x.exp()` calls `exp`, and `exp` is defined in a module that needs the class `Tensor`, which needs its methods. So that
the modules do not import each other in a circle, a method looks its function up in here when it is called. The package
fills the table as the last step of its import."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

tt: Any = SimpleNamespace()


def fill(functions: dict[str, Any]) -> None:
    """Make these functions known under these names."""
    vars(tt).update(functions)
