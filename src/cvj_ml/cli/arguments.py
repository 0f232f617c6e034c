"""Arguments that several commands take, and how a configuration is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from cvj_ml.config import Config

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML file of this use.")]
AsOf = Annotated[
    str, typer.Option("--as-of", help="The instant asked about: a date (its local midnight) or an instant.")
]
Until = Annotated[str, typer.Option("--until", help="Where observation ends: a date or an instant.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Accept = Annotated[
    list[str] | None,
    typer.Option("--accept", metavar="GATE", help="Let this gate only warn, this once. May be repeated."),
]
Version = Annotated[int, typer.Argument(min=1, help="The number of a registered version.")]
AdoptOut = Annotated[
    bool, typer.Option("--adopt-out", help="Take over an output folder that an earlier version made, once.")
]
Promotion = Annotated[
    Literal["auto", "always", "never"],
    typer.Option("--promote", help="Make it the champion: auto, if it is surely better; always; or never."),
]
BundleFolder = Annotated[Path, typer.Argument(help="The folder of an exported model bundle.")]


def read(config_file: Path, instant: str | None = None, *, adopt_out: bool = False) -> tuple[Config, int]:
    """Return the configuration and the instant (0 where a command has none)."""
    from cvj_ml.config import load_config
    from cvj_ml.ownership import claim
    from cvj_ml.windows import parse_as_of

    config = load_config(config_file)
    at = 0 if instant is None else parse_as_of(instant, config.zone)
    if adopt_out:
        claim(Path(config.out), adopt=True)
    return config, at


def read_columns(told: list[str]) -> dict[tuple[str | None, str], str]:
    """Return columns by (file, role) from texts such as ``customer_id=cust`` and ``orders.csv:value=total``.

    Several may stand in one text, parted by blanks. ConfigError for any other form or role.
    """
    from cvj_ml.errors import ConfigError, nearest, raise_all
    from cvj_ml.schemas import TOUCHPOINT_ROLES

    found: dict[tuple[str | None, str], str] = {}
    faults, known = [], (*TOUCHPOINT_ROLES, "rating")
    several = re.compile(rf"\s+(?=(?:\S+:)?(?:{'|'.join(known)})=)")
    for text in (part for one in told for part in several.split(one.strip())):
        left, _, name = text.partition("=")
        file, _, role = left.rpartition(":")
        if role not in known or not name:
            faults.append(
                f"{text!r}: write ROLE=COLUMN or FILE:ROLE=COLUMN with one of {', '.join(known)}.{nearest(role, known)}"
            )
        found[(file or None, role)] = name
    raise_all(ConfigError, "--column names what a column is:", faults)
    return found


def read_time_formats(told: list[str]) -> dict[tuple[str | None, str], str]:
    """Return formats of times by (file, ``time_format``) from texts such as ``%d.%m.%Y`` and ``orders.csv:epoch s``."""
    from cvj_ml.config.time_formats import whole_format
    from cvj_ml.errors import ConfigError, raise_all
    from cvj_ml.setup.told import TIME_FORMAT

    found: dict[tuple[str | None, str], str] = {}
    faults: list[str] = []
    for text in told:
        # A clock has colons, too, and a file's name ends with its kind.
        file, written = match.groups() if (match := re.fullmatch(r"(.+\.\w+):(.+)", text)) else (None, text)
        try:
            found[(file, TIME_FORMAT)] = whole_format(written)
        except ValueError as error:
            faults.append(f"{written!r}: {error}")
    raise_all(ConfigError, "--time-format says how times are written:", faults)
    return found
