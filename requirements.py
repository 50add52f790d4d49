"""Print what the project and its development need, from pyproject.toml: `--without-dependencies` what is installed
without its own needs, `--key` a digest of all that and of the lock.

Runs before anything is installed, so it uses the standard library alone.
"""

import hashlib
import platform
import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - this file runs before anything could have checked
    sys.exit("ReelSense needs Python 3.11 or newer; try: make PYTHON=python3.12 setup")

import tomllib

HERE = Path(__file__).parent


CONTENT = tomllib.loads((HERE / "pyproject.toml").read_text())


def requirements() -> list[str]:
    """Requirement lines: the dependencies, the `dev` extra, and what builds the project."""
    project = CONTENT["project"]
    return sorted(
        project["dependencies"] + project["optional-dependencies"]["dev"] + CONTENT["build-system"]["requires"]
    )


def without_dependencies() -> list[str]:
    """Requirement lines for `pip install --no-deps`."""
    return sorted(CONTENT["tool"]["reelsense"]["without-dependencies"])


def key() -> str:
    """Names an environment: same key, same packages."""
    machine = (*sys.version_info[:2], platform.system(), platform.machine())
    parts = [(HERE / "constraints.txt").read_text(), *requirements(), *without_dependencies(), repr(machine)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


if __name__ == "__main__":
    if "--key" in sys.argv[1:]:
        sys.stdout.write(key())
    else:
        lines = without_dependencies() if "--without-dependencies" in sys.argv[1:] else requirements()
        sys.stdout.write("\n".join(lines) + "\n")
