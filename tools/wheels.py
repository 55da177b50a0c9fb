"""Build a wheel of every package into build/dist."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    target = ROOT / "build" / "dist"
    for old in target.glob("*.whl"):
        old.unlink()
    for project in sorted((ROOT / "packages").glob("*/pyproject.toml")):
        build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(target)]
        subprocess.run(build, cwd=project.parent, check=True)


if __name__ == "__main__":
    main()
