"""Libraries that read our files, each in an environment of its own: too large for ours."""

import json
import os
import re
import shutil
import subprocess
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.patience import patient

NOT_TO_BE_HAD = r"No matching distribution|Connection(Error| refused)|Temporary failure|Max retries"


@contextmanager
def environment(folder: Path) -> Iterator[Path]:
    """An empty environment's Python; at the end the folder is removed."""
    venv.create(folder, with_pip=True)
    try:
        yield folder / "bin" / "python"
    finally:
        shutil.rmtree(folder)


def install(python: Path, *what: str) -> None:
    """Skips the test, with the reason, where they cannot be had."""
    pip = [str(python), "-m", "pip", "install", "--quiet", *what]
    done = subprocess.run(pip, check=False, capture_output=True, text=True, timeout=patient(600))
    if done.returncode and re.search(NOT_TO_BE_HAD, done.stderr):
        pytest.skip(f"{what[-1]} cannot be had: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


def run(
    python: Path,
    code: str,
    home: Path,
    *,
    names: Mapping[str, Any],
    settings: Mapping[str, str] | None = None,
) -> Any:
    """What `code` leaves in `answer`, through JSON.

    It knows `names`, has nothing but `settings` in its environment and the folder `home`, which
    must not be there yet, as its home.
    """
    home.mkdir()
    path = home / "answer.json"
    given = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    kept = f"\nimport json, pathlib\npathlib.Path({str(path)!r}).write_text(json.dumps(answer))\n"
    done = subprocess.run(
        [str(python), "-c", given + code + kept],
        check=False,
        cwd=home,
        env={"PATH": os.environ["PATH"], "HOME": str(home), **(settings or {})},
        capture_output=True,
        text=True,
        timeout=patient(240),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text())
