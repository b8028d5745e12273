"""Print what a node needs besides our own code: a layer of the image that code does not change."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
print(*project["dependencies"], sep="\n")
