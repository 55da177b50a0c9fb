"""Puts the example programs into the wheel; an editable install finds them in the clone."""

from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Examples(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def initialize(self, version, build_data):
        examples = Path(self.root).parents[1] / "examples"
        if version == "standard":
            build_data["force_include"][str(examples)] = "tt_tito/examples"
