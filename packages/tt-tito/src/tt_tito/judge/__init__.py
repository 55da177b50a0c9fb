"""The judge: what a learner's file of a chapter is worth. It survives whatever the file does and
believes nothing that it says.

The parent, this process, runs a chapter's tests on the reference and notes what they want (`recording`). A child runs
the same tests on the learner's file (`sandbox`, `child`, `guard`) and sends the values that come out (`values`). The
parent compares the values with what it has noted (`verdict`), and gives the points (`assessment`, `grade`)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tt_tito.judge.assessment import Assessment, Mark, assess
    from tt_tito.judge.sandbox import Limits

__all__ = ["Assessment", "Limits", "Mark", "assess"]


def __getattr__(name: str) -> Any:
    """What the parent has of this package; a child, which starts for each run anew, need not wait for it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tt_tito.judge import assessment

    return getattr(assessment, name)
