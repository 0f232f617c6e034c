"""The commands of ``cvj-ml models``: the registered versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvj_ml.cli.arguments import BundleFolder, ConfigFile, Json, Version, read
from cvj_ml.cli.output import out, print_json, show, with_interval

if TYPE_CHECKING:
    from cvj_ml.tracking import ModelVersion

models = typer.Typer(no_args_is_help=True, help="The registered models.")


@models.command("list")
def models_list(config_file: ConfigFile, as_json: Json = False) -> None:
    """List the registered versions, the newest first."""
    from dataclasses import asdict

    from cvj_ml import tracking

    versions = [asdict(one) for one in tracking.list_versions(read(config_file)[0])]
    if as_json:
        print_json({"versions": versions})
        return
    import pandas as pd

    rows = [
        {
            **version,
            "digest": version["digest"][:12],
            "aliases": " ".join(version["aliases"]),
            **{name: version[name][:16].replace("T", " ") for name in ("cut", "created")},
        }
        for version in versions
    ]
    show(pd.DataFrame(rows, columns=["version", "aliases", "cut", "created", "digest"]), "Registered versions")


@models.command("promote")
def models_promote(
    config_file: ConfigFile,
    version: Version,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="MODEL", help="Copy it to this registered model, that of another environment."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a version the champion, here or in the registered model of another environment."""
    from cvj_ml import tracking

    config = read(config_file)[0]
    promoted = tracking.promote(config, version) if to is None else tracking.promote_to(config, version, to)
    _tell_version(promoted, f"{promoted.name} version {promoted.version} is the champion.", as_json)


@models.command("compare")
def models_compare(
    config_file: ConfigFile,
    first: Version,
    second: Version,
    as_json: Json = False,
) -> None:
    """Show two versions side by side: their figures with intervals, verdicts, data, and settings that differ."""
    from dataclasses import asdict

    import pandas as pd

    from cvj_ml.commands.compare import compare_versions

    found = compare_versions(read(config_file)[0], first, second)
    if as_json:
        tables = {name: getattr(found, name).to_dict("records") for name in ("figures", "settings", "data")}
        sides = {"versions": [asdict(one) for one in found.versions], "warnings": list(found.warnings)}
        print_json({**sides, **tables})
        return
    names = [f"version {one.version}" for one in found.versions]
    for name, one in zip(names, found.versions, strict=True):
        out.print(f"{name}, trained at {one.cut[:10]}: {one.verdict or 'nothing was compared.'}", soft_wrap=True)
    for warning in found.warnings:
        out.print(f"warning: {warning}", soft_wrap=True)
    out.print()
    rows = [
        {"figure": row["figure"], **{name: with_interval(row, side) for name, side in zip(names, "ab", strict=True)}}
        for row in found.figures.to_dict("records")
    ]
    show(pd.DataFrame(rows), "Figures of the fold that each was judged at, with 95 % intervals over customers")
    for what, table in (("Settings that differ", found.settings), ("Data", found.data)):
        if len(table):
            show(table.rename(columns=dict(zip("ab", names, strict=True))), what)


@models.command("rollback")
def models_rollback(config_file: ConfigFile, as_json: Json = False) -> None:
    """Make the champion before this one the champion again."""
    from cvj_ml import tracking

    restored = tracking.rollback(read(config_file)[0])
    _tell_version(restored, f"{restored.name} version {restored.version} is the champion again.", as_json)


@models.command("export")
def models_export(config_file: ConfigFile, version: Version, folder: BundleFolder, as_json: Json = False) -> None:
    """Write the bundle of a version into a new folder."""
    from cvj_ml import tracking
    from cvj_ml.models.bundle.verification import verify_bundle

    verify_bundle(tracking.export(read(config_file)[0], version, folder))
    if as_json:
        print_json({"version": version, "folder": str(folder)})
        return
    out.print(f"Version {version}: {folder}", soft_wrap=True)


@models.command("import")
def models_import(config_file: ConfigFile, folder: BundleFolder, as_json: Json = False) -> None:
    """Verify an exported bundle and register it as a new version."""
    from cvj_ml import tracking
    from cvj_ml.scoring.opening import open_bundle
    from cvj_ml.scoring.serving import interface_of

    config = read(config_file)[0]
    bundle = open_bundle(folder, functions=config.features.functions)
    imported = tracking.import_bundle(config, folder, bundle.digest, interface_of(bundle))
    _tell_version(imported, f"Registered {imported.name} version {imported.version}.", as_json)


@models.command("verify")
def models_verify(
    config_file: ConfigFile,
    version: Annotated[
        int | None, typer.Argument(min=1, help="The number of a registered version. Default: the champion.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check every digest of a registered version and score its canary, as a night does before it uses one."""
    from cvj_ml.night.champion import verify_version

    found, bundle = verify_version(read(config_file)[0], version)
    _tell_whole(
        {"model": found.name, "version": found.version, "digest": bundle.digest},
        f"{found.name} version {found.version}",
        as_json,
    )


@models.command("verify-folder")
def models_verify_folder(folder: BundleFolder, as_json: Json = False) -> None:
    """Check an exported bundle in the same way, where no registry is needed."""
    from cvj_ml.scoring.opening import open_bundle

    _tell_whole({"folder": str(folder), "digest": open_bundle(folder).digest}, str(folder), as_json)


def _tell_whole(found: dict[str, Any], named: str, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        out.print(f"{named}: whole, digest {found['digest']}", soft_wrap=True)


def _tell_version(version: ModelVersion, words: str, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        print_json(asdict(version))
    else:
        out.print(words)
