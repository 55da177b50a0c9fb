"""Run the tests of one phase (`phase.py 2`) or of all up to it (`phase.py up-to 2`); further arguments go to pytest.

What belongs to a phase stands in curriculum.toml. A phase whose packages are not all written runs those that are,
says which are missing, and fails.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "packages" / "tt-tito" / "src"))  # some environments hold no tt-tito

from tt_tito import curriculum  # noqa: E402


def main(arguments: list[str]) -> int:
    up_to = arguments[0] == "up-to"
    phase, *rest = arguments[1:] if up_to else arguments
    numbers = range(1, int(phase) + 1) if up_to else [int(phase)]
    names = [package.name for number in numbers for package in curriculum.packages_of_phase(number)]
    folders = [f"packages/{name}" for name in names if (ROOT / "packages" / name / "pyproject.toml").exists()]
    missing = [name for name in names if f"packages/{name}" not in folders]

    status = 0
    if folders:
        paths = [path for folder in folders for path in (f"{folder}/src", f"{folder}/tests")]
        status = subprocess.run([sys.executable, "-m", "pytest", *paths, *rest], cwd=ROOT, check=False).returncode
    if missing and not up_to:
        print(f"phase {phase} is not complete: {', '.join(missing)} not written yet", file=sys.stderr)
        return status or 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
