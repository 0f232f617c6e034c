"""What is published: a wheel, a source distribution, a list of parts and checksums, the same bytes each time.

``make release`` writes them into ``dist/`` from what is committed. Wheel and source distribution are built twice, in
two folders, and compared. Every time in them is that of the commit, so the same commit gives the same bytes elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def release(target: Path) -> list[Path]:
    """Write what is published of the last commit into a folder and return the files; SystemExit where builds differ."""
    moment = int(_git("log", "-1", "--format=%ct"))
    with tempfile.TemporaryDirectory() as scratch:
        first, second = (_built(Path(scratch, name), moment) for name in ("first", "second"))
        if different := [name for name in first.keys() | second.keys() if first.get(name) != second.get(name)]:
            sys.exit(f"Built twice, these differ: {', '.join(sorted(different))}. Nothing was written.")
        source = Path(scratch, "first", "source")
        project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        lock = (source / "locks" / "runtime.txt").read_text(encoding="utf-8")
    stem = f"{project['name'].replace('-', '_')}-{project['version']}"
    files = {**first, f"{stem}.cdx.json": parts_list(project, lock, moment).encode()}
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items()))
    files["SHA256SUMS"] = sums.encode()
    target.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (target / name).write_bytes(content)
    return [target / name for name in sorted(files)]


def parts_list(project: dict[str, Any], lock: str, moment: int) -> str:
    """Return the CycloneDX document (1.6, JSON) of a lock: each project with its version, markers and hashes."""
    name, version = str(project["name"]), str(project["version"])
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{name} {version}\n{lock}"))
    bom.metadata.timestamp = datetime.fromtimestamp(moment, UTC)
    whole = PackageURL("pypi", None, name, version)
    bom.metadata.component = Component(
        name=name, version=version, type=ComponentType.APPLICATION, purl=whole, bom_ref=str(whole)
    )
    parts = {part.bom_ref.value: part for part in _parts(lock)}
    bom.components.update(parts.values())
    asked = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    bom.register_dependency(bom.metadata.component, [one for one in parts.values() if one.name in asked])
    return str(JsonV1Dot6(bom).output_as_string(indent=1)) + "\n"


def _parts(lock: str) -> Iterator[Component]:
    for entry in re.split(r"\n(?=\S)", lock.strip()):
        requirement = Requirement(entry.partition("\\")[0].strip())
        (pin,) = requirement.specifier
        name = canonicalize_name(requirement.name)
        address = PackageURL("pypi", None, name, pin.version)
        hashes = [HashType(alg=HashAlgorithm.SHA_256, content=one) for one in re.findall(r"sha256:(\w+)", entry)]
        marker = [Property(name="cvj-ml:marker", value=str(requirement.marker))] if requirement.marker else []
        yield Component(
            name=name,
            version=pin.version,
            type=ComponentType.LIBRARY,
            purl=address,
            bom_ref=str(address),
            properties=marker,
            # Any of its files may be installed, so none is *the* component.
            external_references=[
                ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(str(address)), hashes=hashes)
            ],
        )


def _built(folder: Path, moment: int) -> dict[str, bytes]:
    """Build both distributions from what is committed, and return them by name."""
    archive = subprocess.run(["git", "archive", "--format=tar", "HEAD"], cwd=ROOT, check=True, capture_output=True)
    (folder / "source").mkdir(parents=True)
    subprocess.run(["tar", "-x"], cwd=folder / "source", input=archive.stdout, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--directory", str(folder / "built")],
        cwd=folder / "source",
        env={**os.environ, "SOURCE_DATE_EPOCH": str(moment)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return {path.name: path.read_bytes() for path in (folder / "built").iterdir()}


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    for written in release(Path(sys.argv[1])):
        print(written)
