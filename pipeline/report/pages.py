"""HTML pages from templates: one file that loads nothing and runs only the script of this package.

Data are escaped by the template or carried as JSON. The page's content security policy allows only
the style and the script of this package, by their hashes, and no request. So markup in data stays
text.
"""

import base64
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_PACKAGE = "pipeline.report"


def page(name: str, *, styles: tuple[str, ...], script: str = "", **data: Any) -> Iterator[str]:
    """Yield pieces of the page on request: iterators in `data` are never whole in memory.

    `styles` and `script` name files of this package.
    """
    template = _environment().get_template(name)
    style = "".join(map(_source, styles))
    code = _source(script) if script else ""
    return template.generate(policy=_policy(style, code), style=style, script=code, **data)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader(_PACKAGE, "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _source(name: str) -> str:
    """Return a file of this package.

    Templates insert it unescaped, so it must not end its element.
    """
    text = files(_PACKAGE).joinpath("assets", name).read_text(encoding="utf-8")
    assert "</" not in text
    return text


def _policy(style: str, code: str) -> str:
    scripts = f"; script-src {_hash(code)}" if code else ""
    return f"default-src 'none'; img-src data:; style-src {_hash(style)}{scripts}"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
