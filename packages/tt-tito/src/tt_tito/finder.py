"""The start of every interpreter: if there is a `tt.toml` or TT_SWAP, prepare to swap. See `swap.py`.

`tt_swap.pth` calls `activate`. Without either of the two, this is a look into a few folders. With one of them, the work
waits for the first import of a package of the course, so that an error in `tt.toml` appears there."""

import os
import sys

__all__ = ["Finder", "activate", "search"]


class Finder:
    """Looks for modules of the course in the table of stand-ins, before Python looks for them elsewhere."""

    def __init__(self, setting, table=None):
        self.setting, self.table = setting, table

    def find_spec(self, name, path=None, target=None):
        if not name.startswith("tt_") or name.startswith("tt_tito"):
            return None
        from tt_tito import swap

        if self.table is None:
            self.table = swap.read(self.setting)
        return swap.find(self.table, name)


def search(folder):
    """The nearest `tt.toml` in a folder or those above it, or None."""
    while True:
        file = os.path.join(folder, "tt.toml")
        if os.path.lexists(file):
            return file
        above = os.path.dirname(folder)
        if above == folder:
            return None
        folder = above


def activate():
    """Put a finder in front of Python's own if a setting asks for a swap."""
    try:
        here = os.getcwd()
    except OSError:  # the folder has been deleted
        return
    setting = os.environ.get("TT_SWAP") or search(here)
    if setting and setting != "0" and not any(type(finder) is Finder for finder in sys.meta_path):
        if setting.endswith(".toml") and os.path.exists(os.path.join(here, setting)):
            setting = os.path.join(here, setting)
        sys.meta_path.insert(0, Finder(setting))
