"""The judge: what a learner's file of a chapter is worth. It survives whatever the file does, and is not to be told.

The parent, this process, runs a chapter's tests on the reference and notes what they want (`recording`). A child runs
the same tests on the learner's file (`sandbox`, `child`, `guard`) and sends the values that come out (`values`). The
parent compares the values with what it has noted (`verdict`), and gives the points (`assessment`, `grade`)."""

from tt_tito.judge.assessment import Assessment, Mark, assess
from tt_tito.judge.sandbox import Limits

__all__ = ["Assessment", "Limits", "Mark", "assess"]
