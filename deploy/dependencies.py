"""Prints what an extra of the project depends on, without the project itself, for the Dockerfile.

python deploy/dependencies.py server
"""

import re
import sys
import tomllib
from pathlib import Path

SELF = re.compile(r"anytime-dense\[(.+)\]")


def dependencies(project, extra):
    """Requirements of the project and of one of its extras, those of extras within it included."""
    found = list(project["dependencies"])
    for requirement in project["optional-dependencies"][extra]:
        if within := SELF.fullmatch(requirement):
            for name in within[1].split(","):
                found += dependencies(project, name)
        else:
            found.append(requirement)
    return sorted(set(found))


if __name__ == "__main__":
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    project = tomllib.loads(pyproject.read_text())["project"]
    sys.stdout.write("\n".join(dependencies(project, sys.argv[1])) + "\n")
