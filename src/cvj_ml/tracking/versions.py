"""The versions of a registered model, as the registry tells them: found, and the champions that were."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cvj_ml.errors import ModelError
from cvj_ml.tracking.runs import ModelVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
CHALLENGER = "challenger"

FORMAT_TAG = "bundle_format"

_PAST_CHAMPIONS = "past_champions"
_PAST_CHAMPIONS_KEPT = 50


def versions_of(client: MlflowClient, name: str) -> list[ModelVersion]:
    """Return the versions of a registered model, the newest first; none where there is no such model."""
    registered = _registered_model(client, name)
    if registered is None:
        return []
    aliases: dict[int, list[str]] = {}
    for alias, version in registered.aliases.items():
        aliases.setdefault(int(version), []).append(alias)
    found: list[Any] = []
    token: str | None = None
    while token is None or token:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        found += page
        if page.token and page.token == token:
            raise LookupError("the same page again")
        token = page.token or ""
    versions = [
        ModelVersion(
            name=name,
            version=int(one.version),
            digest=one.tags.get("digest", ""),
            run_id=one.run_id or "",
            aliases=tuple(sorted(aliases.get(int(one.version), []))),
            cut=one.tags.get("cut", ""),
            created=datetime.fromtimestamp(one.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
            bundle_format=int(one.tags.get(FORMAT_TAG, 1)),
            verdict=one.tags.get("verdict", ""),
        )
        for one in found
    ]
    return sorted(versions, key=lambda one: one.version, reverse=True)


def _registered_model(client: MlflowClient, name: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    if found.name != name:
        raise LookupError("an empty answer, or one to another question")
    return found


def champion_of(versions: list[ModelVersion]) -> ModelVersion | None:
    """Return the champion among versions, None where there is none."""
    return next((one for one in versions if CHAMPION in one.aliases), None)


def with_digest(version: ModelVersion) -> ModelVersion:
    """Return a version that is one of ours; ModelError for what something else has registered."""
    if not re.fullmatch(r"[0-9a-f]{64}", version.digest):
        raise ModelError(
            f"Version {version.version} of {version.name} carries no digest of a bundle, so `cvj-ml train` did not"
            " register it. Promote one that it did."
        )
    return version


def find(versions: list[ModelVersion], version: int, name: str) -> ModelVersion:
    """Return the version of this number; ModelError that names those that there are."""
    for one in versions:
        if one.version == version:
            return one
    known = ", ".join(str(one.version) for one in reversed(versions)) or "none; run `cvj-ml train` first"
    raise ModelError(f"{name} has no version {version}. Versions: {known}.")


def version_of(client: MlflowClient, name: str, version: int) -> ModelVersion:
    """Return the version of this number as the registry has it now; ModelError that names those that there are."""
    return find(versions_of(client, name), version, name)


def past_champions(client: MlflowClient, name: str) -> list[int]:
    """Return the numbers of the champions before the present one, the latest last."""
    text = client.get_registered_model(name).tags.get(_PAST_CHAMPIONS, "")
    return [int(version) for version in re.findall(r"\d+", text)]


def write_past_champions(client: MlflowClient, name: str, versions: list[int]) -> None:
    """Keep the numbers of earlier champions, as many as anybody rolls back to."""
    text = ",".join(map(str, versions[-_PAST_CHAMPIONS_KEPT:]))
    client.set_registered_model_tag(name, _PAST_CHAMPIONS, text)
