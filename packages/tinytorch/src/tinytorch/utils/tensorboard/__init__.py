"""torch.utils.tensorboard: SummaryWriter of the package tensorboardX where it is installed; else one for scalars."""

import importlib.util as _util
import json as _json
import time as _time
from pathlib import Path as _Path
from typing import Any as _Any


class _Scalars:
    """Writes scalars as lines of JSON, with tag, step, value and time, to `log_dir/scalars.jsonl`."""

    def __init__(self, log_dir=None, comment="", **ignored):
        self.log_dir = str(log_dir or _Path("runs") / (_time.strftime("%b%d_%H-%M-%S") + comment))
        _Path(self.log_dir).mkdir(parents=True, exist_ok=True)
        self.file = open(_Path(self.log_dir) / "scalars.jsonl", "a", encoding="utf-8")

    def add_scalar(self, tag, scalar_value, global_step=None, walltime=None, **ignored):
        """Write one number."""
        row = {"tag": tag, "step": global_step, "value": float(scalar_value), "time": walltime or _time.time()}
        self.file.write(_json.dumps(row) + "\n")

    def add_scalars(self, main_tag, tag_scalar_dict, global_step=None, walltime=None):
        """Write several numbers."""
        for tag, value in tag_scalar_dict.items():
            self.add_scalar(f"{main_tag}/{tag}", value, global_step, walltime)

    def flush(self):
        """Write to the disk what is still in memory."""
        self.file.flush()

    def close(self):
        """Close the file."""
        self.file.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __getattr__(self, name):
        if not name.startswith("add_"):
            raise AttributeError(f"SummaryWriter has no attribute {name!r}")
        raise RuntimeError(f"SummaryWriter.{name} needs the package tensorboardX: pip install tinytorch[tensorboard]")


def _writer() -> _Any:
    if _util.find_spec("tensorboardX") is None:
        return _Scalars
    from tensorboardX import SummaryWriter

    return SummaryWriter


SummaryWriter = _writer()
