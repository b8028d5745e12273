"""License, citation and creators of an export: checked as given, and as other tools spell them."""

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

_MOST_CHARACTERS = 10_000
_ORGANIZATION = "org:"
# Licenses that the hub knows, by huggingface.co/docs/hub/repositories-licenses. Most of its names
# are SPDX identifiers in lower case.
_HUB = """
afl-3.0 apache-2.0 artistic-2.0 bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 cc-by-2.0
cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0
cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0
cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1
eupl-1.2 isc lppl-1.3c mit mpl-2.0 ms-pl ncsa ofl-1.1 osl-3.0 postgresql unlicense wtfpl zlib
"""
_HUB_OTHERWISE = {"C-UDA-1.0": "c-uda", "ODC-By-1.0": "odc-by", "ODbL-1.0": "odbl"} | {
    "PDDL-1.0": "pddl",
    **{
        f"{name}-{suffix}": name.lower()
        for name in ("AGPL-3.0", "GPL-2.0", "GPL-3.0", "LGPL-2.1", "LGPL-3.0")
        for suffix in ("only", "or-later")
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class License:
    """A license.

    `name` is an SPDX expression in its exact spelling, or free text. `hub` is the hub's name of the
    license, "other" if it has none. `url` is None if the license is free text that is no URL.
    """

    name: str
    hub: str
    url: str | None

    @classmethod
    def of(cls, text: str) -> "License":
        """Return the license that a text names.

        Example:
            >>> License.of("cc-by-4.0")
            License(name='CC-BY-4.0', hub='cc-by-4.0', url='https://spdx.org/licenses/CC-BY-4.0.html')
        """
        try:
            name = str(canonicalize_license_expression(text))
        except InvalidLicenseExpression:
            return cls(name=text, hub="other", url=text if is_web_address(text) else None)
        if " " in name or name.startswith("LicenseRef-"):
            return cls(name=name, hub="other", url=None)
        hub = name.lower() if name.lower() in _HUB.split() else _HUB_OTHERWISE.get(name, "other")
        return cls(name=name, hub=hub, url=f"https://spdx.org/licenses/{name}.html")


@dataclass(frozen=True, slots=True, kw_only=True)
class Creator:
    """A person, or an organization, which `--creator org:NAME` names."""

    name: str
    is_organization: bool

    @classmethod
    def of(cls, text: str) -> "Creator":
        is_organization = text.startswith(_ORGANIZATION)
        return cls(name=text.removeprefix(_ORGANIZATION).strip(), is_organization=is_organization)


def checked_credit(text: str, *, may_have_lines: bool = False) -> str:
    """Return a text without surrounding spaces. Raises ValueError if it cannot be shown."""
    found = text.strip()
    if not found.removeprefix(_ORGANIZATION).strip():
        raise ValueError("it is empty; give a text, or leave the option out")
    if len(found) > _MOST_CHARACTERS:
        raise ValueError(f"it has {len(found)} characters; give at most {_MOST_CHARACTERS}")
    # Cc: control, Cf: also invisible marks that reverse the direction, Cs: half a character.
    allowed = "\n\r\t" if may_have_lines else ""
    for character in found:
        if character not in allowed and unicodedata.category(character) in ("Cc", "Cf", "Cs"):
            raise ValueError(
                f"it has the character U+{ord(character):04X}, which cannot be shown; remove it"
            )
    return found.replace("\r\n", "\n").replace("\r", "\n")


def is_web_address(text: str) -> bool:
    return re.fullmatch(r"https?://[^\s<>\"'`]+", text) is not None


def as_markdown(text: str) -> str:
    """Return one line of text so that Markdown shows it as it is: no markup, no HTML."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)


def as_code_block(text: str) -> str:
    """Return text as a block of code, whatever it holds."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def coco_credits(license_text: str | None, creators: tuple[str, ...]) -> dict[str, Any]:
    """Return COCO's `licenses`, and the contributor as in its `info`, where they are given."""
    licenses = []
    if license_text is not None:
        given = License.of(license_text)
        licenses = [{"id": 1, "name": given.name, "url": given.url or ""}]
    names = ", ".join(Creator.of(each).name for each in creators)
    return {"licenses": licenses, "info": {"contributor": names} if names else {}}
