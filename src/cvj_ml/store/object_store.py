"""Objects of S3, Google Cloud Storage and Azure, read into files that are sources like any other.

Credentials and endpoints come from the environment alone. What a store says itself is never passed on: it can hold
parts of a key or of a signature.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from glob import has_magic
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import pyarrow as pa

from cvj_ml.config import TableSpec
from cvj_ml.config.base import is_object
from cvj_ml.errors import CvjError, DataError, nearest

Spec = TypeVar("Spec", bound=TableSpec)

CONNECT_SECONDS = 10
"""How long a store may take to let in, at each of three attempts."""
ANSWER_SECONDS = 20
"""How long a store may send nothing, at each of three attempts; what Google's client takes in all is six times this."""

_ATTEMPTS = 3
_AT_ONCE = 8
_CHUNK = 1 << 22
_MARKS = ("etag", "generation", "last-modified", "updated", "versionid", "content-length", "size")
_NAME_BYTES = 255

_REFUSED = "these credentials may not read it; grant them listing the bucket and reading its objects"
_UNKNOWN = (
    "the credentials of the environment are not accepted, have run out or are none; docs/object-stores.md names the"
    " variables"
)
_SLOW = "the store does not answer in time; run again, or look at the network and its proxy"
# What to look for in a client's message, in this order: its codes, not its sentences.
_BY_PHRASE: tuple[tuple[str, type[CvjError], str], ...] = (
    (r"NO_SUCH_BUCKET|NoSuchBucket|ContainerNotFound|Bucket '.*' not found", DataError, "there is no such bucket"),
    (r"REQUEST_TIME_TOO_SKEWED", CvjError, "the clocks of this machine and of the store differ too much"),
    (
        r"INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN|EXPIRED|UNRECOGNIZED_CLIENT"
        r"|MISSING_AUTHENTICATION|AuthenticationFailed|UNAUTHENTICATED|CredentialException|GetToken|HTTP status 401",
        CvjError,
        _UNKNOWN,
    ),
    (r"ACCESS_DENIED|PERMISSION_DENIED|Authorization\w+Mismatch|AuthorizationFailure|\b403\b", DataError, _REFUSED),
    (r"HTTP status 301|PermanentRedirect", CvjError, "the bucket lies in another region; set AWS_REGION"),
    (r"SLOW_DOWN|ServerBusy|RESOURCE_EXHAUSTED", CvjError, "the store asks for fewer requests; run again later"),
    (r"curlCode: 28|[Tt]imed? ?out|\[28\]", CvjError, _SLOW),
    (r"curlCode: 6\b|resolve host|\[6\]", CvjError, "the host's name is unknown; look at the endpoint and the network"),
    (r"curlCode: 7\b|[Cc]onnect|\[7\]", CvjError, "no server listens there; look at the endpoint and the network"),
    (r"curlCode: 60|SSL|certificate", CvjError, "its certificate is not known here; AWS_CA_BUNDLE names more of them"),
    (r"curlCode: \d+|NETWORK_CONNECTION|UNAVAILABLE", CvjError, "the connection was lost; run again when it is back"),
)


def fetched(label: str, spec: Spec, folder: Path) -> Spec:
    """Return a spec whose objects are files in ``folder``, which is made; one without objects as it is.

    Raises DataError for what there is not, may not be read or changes meanwhile, CvjError for the store.
    """
    if not _patterns(spec):
        return spec
    folder.mkdir(parents=True, mode=0o700)
    faults: list[str] = []

    def local(place: str, patterns: Iterable[str]) -> tuple[str, ...]:
        found: dict[str, str] = {}
        for pattern in patterns:
            if not is_object(pattern):
                found[pattern] = pattern
                continue
            for address in _named(place, pattern, faults):
                found.setdefault(address, str(_place(folder, place, address, faults)))
        wanted = {address: Path(path) for address, path in found.items() if is_object(address) and path not in placed}
        placed.update(found.values())
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            told = pool.map(lambda one: _fetch(place, *one), wanted.items())
            faults.extend(fault for fault in told if fault)
        return tuple(found.values())

    placed: set[str] = set()
    path = local(label, spec.path) if spec.path else spec.path
    files = {name: local(f"{label}.files.{name}", patterns) for name, patterns in spec.files.items()}
    if faults:
        raise DataError("\n  - ".join(faults))
    return spec.model_copy(update={"path": path, "files": files})


def marks(label: str, spec: TableSpec) -> dict[str, dict[str, str]]:
    """Return every object that a spec names, with what changes whenever the object does."""
    faults: list[str] = []
    addresses = [one for place, pattern in _patterns(spec) for one in _named(f"{label}{place}", pattern, faults)]
    found = {one: _mark(label, one) for one in dict.fromkeys(addresses)}
    if faults:
        raise DataError("\n  - ".join(faults))
    return found


def _patterns(spec: TableSpec) -> list[tuple[str, str]]:
    named = {"": spec.path or (), **{f".files.{name}": patterns for name, patterns in spec.files.items()}}
    return [(place, pattern) for place, patterns in named.items() for pattern in patterns if is_object(pattern)]


@dataclass(frozen=True, slots=True)
class _Store:
    """A bucket's file system: ``root`` is what stands before a path in it in an address, ``bucket`` what does here."""

    files: Any
    root: str
    bucket: str

    def path(self, address: str) -> str:
        """Return an address as a path of the file system."""
        return f"{self.bucket}/{address.removeprefix(self.root)}"

    def stream(self, address: str) -> Any:
        """Open an object as it is: pyarrow would unpack one whose name ends in .gz."""
        return self.files.open_input_stream(self.path(address), compression=None)


def _store(place: str, address: str) -> _Store:
    scheme, _, rest = address.partition("://")
    host = rest.partition("/")[0]
    return _asked(place, address, lambda: _opened(scheme, host, tuple(sorted(os.environ.items()))))


@lru_cache(maxsize=16)
def _opened(scheme: str, host: str, environment: tuple[tuple[str, str], ...]) -> _Store:
    """Return the store of a bucket; the environment is asked once and the client kept while it is the same."""
    from pyarrow import fs

    told = dict(environment)
    root = f"{scheme}://{host}/"
    if scheme == "s3":
        endpoint = told.get("AWS_ENDPOINT_URL_S3") or told.get("AWS_ENDPOINT_URL")
        region = told.get("AWS_REGION") or told.get("AWS_DEFAULT_REGION")
        # Without a region the client asks the machine that it would be at Amazon, which takes long elsewhere.
        region = region or ("us-east-1" if endpoint else fs.resolve_s3_region(host))
        return _Store(
            fs.S3FileSystem(
                endpoint_override=endpoint,
                region=region,
                anonymous=_unsigned(told.get("AWS_NO_SIGN_REQUEST")),
                tls_ca_file_path=told.get("AWS_CA_BUNDLE"),
                connect_timeout=CONNECT_SECONDS,
                request_timeout=ANSWER_SECONDS,
                retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
            ),
            root,
            host,
        )
    if scheme == "gs":
        emulator = told.get("STORAGE_EMULATOR_HOST", "")
        protocol, _, there = emulator.rpartition("://")
        return _Store(
            fs.GcsFileSystem(
                anonymous=bool(emulator) or _unsigned(told.get("GS_NO_SIGN_REQUEST")),
                endpoint_override=there.rstrip("/") or None,
                scheme=(protocol or "http") if emulator else None,
                retry_time_limit=timedelta(seconds=2 * _ATTEMPTS * ANSWER_SECONDS),
            ),
            root,
            host,
        )
    container, _, host = host.partition("@")
    account, _, domain = host.partition(".dfs.")
    return _Store(
        fs.AzureFileSystem(
            account,
            account_key=told.get("AZURE_STORAGE_KEY"),
            sas_token=told.get("AZURE_STORAGE_SAS_TOKEN"),
            blob_storage_authority=f".blob.{domain}",
            dfs_storage_authority=f".dfs.{domain}",
        ),
        root,
        container,
    )


def _unsigned(told: str | None) -> bool:
    return (told or "").lower() in ("yes", "true", "on", "1")


Answer = TypeVar("Answer")


def _asked(place: str, address: str, ask: Callable[[], Answer]) -> Answer:
    """Return what a store answers; its refusals in words that hold no secret."""
    where = f"{place}: {address}"
    try:
        return ask()
    except ImportError:
        scheme = address.partition("://")[0]
        raise CvjError(
            f"{where}: this build of pyarrow cannot read {scheme}://; the wheel of PyPI can: pip install"
            " --force-reinstall --only-binary pyarrow pyarrow."
        ) from None
    except FileNotFoundError:
        raise DataError(f"{where}: there is no such object any more; run again when the export is complete.") from None
    except (OSError, pa.ArrowException, ValueError) as error:
        text = str(error)
        for phrase, kind, words in _BY_PHRASE:
            if re.search(phrase, text):
                raise kind(f"{where}: {words}.") from None
        code = re.search(r"AWS Error (\w+(?: \(HTTP status \d{3}\))?)|Status\((\w+)", text)
        told = f" ({next(filter(None, code.groups()))})" if code else ""
        raise CvjError(f"{where}: the store fails{told}; run again, or look there.") from None


def _named(place: str, pattern: str, faults: list[str]) -> list[str]:
    """Return the addresses of the objects that an address or a pattern names, sorted; or add what is wrong."""
    from pyarrow.fs import FileSelector, FileType

    try:
        store = _store(place, pattern)
        info = _asked(place, pattern, lambda: store.files.get_file_info(store.path(pattern)))
        if info.type == FileType.File:
            return [pattern]
        parts = pattern.removeprefix(store.root).split("/")
        plain = next((i for i, part in enumerate(parts) if has_magic(part)), None)
        # Beside an object that is missing there may be one whose name is like it.
        base, deep = (parts[:-1], False) if plain is None else (parts[:plain], plain < len(parts) - 1)
        folder = "/".join([store.bucket, *base])
        listed = _asked(place, pattern, lambda: _listed(store.files, FileSelector(folder, recursive=deep)))
    except DataError as error:
        faults.append(str(error))
        return []
    inside = [path.removeprefix(f"{store.bucket}/") for path in listed]
    if plain is None:
        what = "a folder is there; name its objects, as in *.parquet" if info.type == FileType.Directory else (
            "there is no such object"
        )  # fmt: skip
        faults.append(f"{place}: {pattern}: {what}.{nearest(parts[-1], [one.rpartition('/')[2] for one in inside])}")
        return []
    found = sorted(store.root + one for one in inside if _matches(one.split("/"), parts))
    if not found:
        faults.append(f"{place}: no object matches {pattern}; check the folder and the pattern.")
    return found


def _listed(files: Any, selector: Any) -> list[str]:
    """Return the objects in a folder; none where there is no such folder, but an error where there is no bucket."""
    try:
        return [one.path for one in files.get_file_info(selector) if one.is_file]
    except FileNotFoundError:
        return []


def _matches(parts: list[str], pattern: list[str]) -> bool:
    """Return whether a path is what a pattern means, part by part as for files; ``**`` is any number of folders."""
    if not pattern or not parts:
        return not pattern and not parts
    hidden = parts[0].startswith(".") and not pattern[0].startswith(".")
    if pattern[0] == "**" and len(pattern) > 1:
        return _matches(parts, pattern[1:]) or (not hidden and _matches(parts[1:], pattern))
    if pattern[0] == "**":
        return not any(part.startswith(".") for part in parts)
    return not hidden and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _place(folder: Path, place: str, address: str, faults: list[str]) -> Path:
    """Return the file of an object: by its own name, in a folder that tells where it lies, so that none is another."""
    above, _, name = address.rpartition("/")
    if len(name.encode()) > _NAME_BYTES:
        faults.append(f"{place}: {address}: its name is too long for a file here; copy it under another one.")
        name = hashlib.sha256(name.encode()).hexdigest()
    beside = quote(above, safe=":@").replace("%2F", "|")
    if len(beside) > _NAME_BYTES:
        beside = hashlib.sha256(beside.encode()).hexdigest()
    return folder / beside / name


def _fetch(place: str, address: str, target: Path) -> str | None:
    """Write an object to a file; return what is wrong with the object, if anything is."""
    target.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        store = _store(place, address)
        with _asked(place, address, lambda: store.stream(address)) as stream, target.open("xb") as file:
            before = _told(stream)
            while chunk := _asked(place, address, lambda: stream.read(_CHUNK)):
                file.write(chunk)
            size = str(file.tell())
        if before != _mark(place, address) or before.get("size", before.get("content-length", size)) != size:
            return f"{place}: {address}: the object changed while it was read; run again when it is complete."
    except DataError as error:
        return str(error)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CvjError(f"{place}: there is no space left on the disk to read {address}. Free some space.") from None
        raise
    return None


def _mark(place: str, address: str) -> dict[str, str]:
    store = _store(place, address)
    with _asked(place, address, lambda: store.stream(address)) as stream:
        return _asked(place, address, lambda: _told(stream))


def _told(stream: Any) -> dict[str, str]:
    """Return what an open object is: its size, time of change, tag and generation, as far as the store tells them."""
    told = {str(name).lower(): value for name, value in (stream.metadata() or {}).items()}
    return {name: told[name].decode() for name in _MARKS if name in told}
