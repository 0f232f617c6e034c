"""Exports: byte for byte what the tools' pages ask for, and nobody in them who must not be."""

from __future__ import annotations

import csv
import hashlib
import re
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.exports.business import (
    CHANNELS,
    CONTACTS,
    CONTROL,
    EPOCH,
    FIRST,
    SECOND,
    SPEC,
    contact,
    lists_of,
    permissions,
)

from cvj_ml.config import ExportsSpec
from cvj_ml.config.exports import NEEDED_ADDRESSES
from cvj_ml.exports import LEFT_OUT
from cvj_ml.exports.addresses import e164, google_email, is_email, meta_email, meta_phone, read_phone, sha256
from cvj_ml.exports.export_files import EarlierExports, Exported, make_exports, write_exports
from cvj_ml.exports.tools import TOOLS

FIXTURES = Path(__file__).parent / "fixtures"
MAILCHIMP_ALONE = ExportsSpec.model_validate({"email": "mail", "files": {"mailchimp": "all"}})


def export(
    folder: Path, rows: Any = FIRST, base: EarlierExports | None = None, spec: ExportsSpec = SPEC, **other: Any
) -> Any:
    """Write the exports of the fixtures' business, or of one that differs in something."""
    given: dict[str, Any] = {
        "contact": contact(),
        "permissions": permissions(),
        "control": pa.array(CONTROL, pa.string()),
        "epoch": EPOCH,
        "channels": CHANNELS,
    }
    made = make_exports(spec, lists_of(rows), base=base, **{**given, **other})
    folder.mkdir(parents=True)
    written = write_exports(folder / "exports", made, spec.merge, folder.name)
    return made, written


def cells(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened, strict=True))


def counts(made: tuple[Exported, ...], name: str) -> dict[str, Any]:
    (one,) = [one.counts for one in made if one.audience.name == name]
    return one


# Addresses: the examples of the tools' own pages.


@pytest.mark.parametrize(
    ("text", "google", "meta"),
    [
        ("cloudy.sanfrancisco+shopping@gmail.com", "cloudysanfrancisco@gmail.com", None),
        ("user.name+NYC@Example.com", "user.name+nyc@example.com", None),
        (" John_Smith@gmail.com ", "john_smith@gmail.com", "john_smith@gmail.com"),
        ("a.b@googlemail.com", "ab@googlemail.com", "a.b@googlemail.com"),
        ("two words@example.com", "twowords@example.com", "two words@example.com"),
        ("a.b@gmail.com.example.com", "a.b@gmail.com.example.com", None),
    ],
)
def test_addresses_are_normalised_as_the_pages_say(text: str, google: str, meta: str | None) -> None:
    assert google_email(text) == google
    assert meta_email(text) == (meta or text.lower())


def test_hashes_are_those_of_the_pages() -> None:
    assert sha256(meta_email("John_Smith@gmail.com ")).startswith(
        "62a14e44f765419d10fea99367361a727c12365e2520f32218d5"
    )
    (number, _) = read_phone("+1 (650) 555-1212", None)
    assert number is not None
    assert sha256(meta_phone(e164(number))) == "e323ec626319ca94ee8bff2e4c87cf613be6ea19919ed1364124e16807ab3176"


@pytest.mark.parametrize(
    "text",
    ["", "nobody", "a@b", "a b@example.com", "a@@example.com", "a@example.com; b@example.com", "<a@example.com>",
     "a\u200b@example.com", "@example.com", "a@example.com\n"],
)  # fmt: skip
def test_what_is_no_address_is_none(text: str) -> None:
    assert not is_email(text)


@pytest.mark.parametrize(
    ("text", "country", "found"),
    [
        ("(800)555-0100", "US", "+18005550100"),  # Google's example
        ("+49 (0)30 23125 012", None, "+493023125012"),
        ("030 23125 012", "DE", "+493023125012"),
        ("0049 30 23125 012", "DE", "+493023125012"),
        ("06 698 12345", "IT", "+390669812345"),  # in Italy the zero stays
        ("8 (495) 123-45-67", "RU", "+74951234567"),
        ("＋44 20 7946 0018", None, "+442079460018"),
        ("+1 202-555-0143 ext. 7", None, "+12025550143"),
        ("030 23125 012", None, "no_country_code"),
        ("0049 30 23125 012", None, "no_country_code"),
        ("555-0143", "US", "bad_phone"),  # no area code: not to be dialled from elsewhere
        ("+999 1234567", None, "bad_phone"),
        ("+49 30 1", None, "bad_phone"),
        ("call me", "DE", "bad_phone"),
        ("  ", "DE", None),
    ],
)
def test_numbers_are_read_by_the_plan_of_their_country(text: str, country: str | None, found: str | None) -> None:
    number, fault = read_phone(text, country)
    assert (fault if number is None else e164(number)) == found


# Files.


def test_files_are_what_the_tools_import(tmp_path: Path) -> None:
    first, second = "2025-06-24", "2025-06-25"
    export(tmp_path / first)
    export(tmp_path / second, SECOND, EarlierExports.of(tmp_path / first))
    for night in (first, second):
        wanted = {file.name: file.read_bytes() for file in (FIXTURES / night).iterdir()}
        found = {file.name: file.read_bytes() for file in (tmp_path / night / "exports").glob("*.[ch]*")}
        assert found.keys() == wanted.keys()
        for name, content in wanted.items():
            assert found[name].decode() == content.decode(), f"{night}/{name}"


def test_rows_are_those_of_the_files_and_of_the_summary(tmp_path: Path) -> None:
    made, rows = export(tmp_path / "first")
    folder = tmp_path / "first" / "exports"
    assert rows.keys() == {file.name for file in folder.iterdir()}
    for name, number in rows.items():
        if name.endswith(".csv"):
            assert len(cells(folder / name)) == number, name
        elif name.endswith(".parquet"):
            assert pq.read_metadata(folder / name).num_rows == number
    assert pq.read_table(folder / "summary.parquet", partitioning=None).to_pylist() == [one.counts for one in made]


def test_no_text_gets_an_apostrophe(tmp_path: Path) -> None:
    export(tmp_path / "night")
    (row,) = cells(tmp_path / "night" / "exports" / "channel_phone.csv")[:1]
    assert (row["phone"], row["first_name"]) == ("+493023125012", "=Customer 5")


def test_a_bad_number_is_counted_where_the_address_is_written(tmp_path: Path) -> None:
    rows = [("c08", "eight@example.com", "030 23125 012", None, None)]
    spec = SPEC.model_copy(update={"default_country": None, "files": {"klaviyo": "all", "calls": "all"}})
    lists = [("a__b__30d", 1, "c08", "phone", "target")]
    made, _ = export(tmp_path / "night", lists, spec=spec, contact=contact(rows))
    of = counts(made, "klaviyo")
    assert (of["written"], of["no_country_code"], of["without_no_country_code"]) == (1, 0, 1)
    assert (counts(made, "calls")["written"], counts(made, "calls")["no_country_code"]) == (0, 1)


# Who is in them.


def test_whoever_shares_an_address_with_control_is_not_written_to(tmp_path: Path) -> None:
    """The mailbox of somebody in control is one, however the address is written and whosever else it is."""
    rows = [
        ("c01", "cloudy.one@gmail.com", None, None, None),
        ("c02", "CloudyOne+shop@gmail.com", None, None, None),
        ("c03", "free@example.com", None, None, None),
    ]
    lists = [("a__b__30d", 1, "c01", "email", "target"), ("a__b__30d", 2, "c03", "email", "target")]
    made, _ = export(
        tmp_path / "night", lists, spec=MAILCHIMP_ALONE, contact=contact(rows), control=pa.array(["c02"], pa.string())
    )
    assert (counts(made, "mailchimp")["written"], counts(made, "mailchimp")["held_back_address"]) == (1, 1)


def test_somebody_suppressed_who_is_not_in_the_log_shields_the_address_too(tmp_path: Path) -> None:
    rows = [("c01", "same@example.com", None, None, None), ("gone", "Same@example.com", None, None, None)]
    lists = [("a__b__30d", 1, "c01", "email", "target")]
    made, _ = export(
        tmp_path / "night",
        lists,
        spec=MAILCHIMP_ALONE,
        contact=contact(rows),
        permissions=permissions([("gone", None)]),
    )
    assert counts(made, "mailchimp")["held_back_address"] == 1


def test_the_exclusion_is_everybody_in_control_who_may_be_uploaded(tmp_path: Path) -> None:
    made, _ = export(tmp_path / "night", SECOND, permissions=permissions(consent=[("c11", "ads"), ("c03", "email")]))
    of = counts(made, "google_customer_match_exclusion")
    # c11 is on no list, c12 is suppressed, c03 agreed to e-mail alone.
    assert (of["looked_at"], of["written"], of["suppressed"], of["no_consent"]) == (3, 1, 1, 1)
    (row,) = cells(tmp_path / "night" / "exports" / "google_customer_match_exclusion.csv")
    assert row["Email"] == hashlib.sha256(b"john_smith@gmail.com").hexdigest()


def test_an_ad_platform_gets_nobody_who_is_suppressed_for_one_of_its_channels(tmp_path: Path) -> None:
    lists = [("a__b__30d", 1, "c07", "social", "target")]
    made, _ = export(tmp_path / "night", lists, permissions=permissions([("c07", "ads")]))
    assert counts(made, "google_customer_match")["suppressed"] == 1
    assert counts(made, "klaviyo")["written"] == 1


def test_another_epoch_replaces_the_exclusion_whole(tmp_path: Path) -> None:
    export(tmp_path / "first")
    base = EarlierExports.of(tmp_path / "first")
    made, rows = export(tmp_path / "later", base=base, epoch="2025-quarter-3", control=pa.array(["c07"], pa.string()))
    of = counts(made, "google_customer_match_exclusion")
    assert (of["epoch"], of["written"], of["added"], of["removed"]) == ("2025-quarter-3", 1, None, None)
    assert "google_customer_match_exclusion_adds.csv" not in rows
    assert counts(made, "google_customer_match")["removed"] == 1


def test_another_address_is_taken_out_and_put_in(tmp_path: Path) -> None:
    export(tmp_path / "first")
    moved = [row if row[0] != "c09" else ("c09", "moved@example.com", *row[2:]) for row in CONTACTS]
    export(tmp_path / "second", SECOND, EarlierExports.of(tmp_path / "first"), contact=contact(moved))
    folder = tmp_path / "second" / "exports"
    assert "moved@example.com" in {row["email"] for row in cells(folder / "email_adds.csv")}
    assert "nine@example.com" in {row["email"] for row in cells(folder / "email_removes.csv")}


def test_adds_and_removes_lead_from_one_night_to_the_next(tmp_path: Path) -> None:
    export(tmp_path / "first")
    made, _ = export(tmp_path / "second", SECOND, EarlierExports.of(tmp_path / "first"))
    before, after = EarlierExports.of(tmp_path / "first"), EarlierExports.of(tmp_path / "second")
    assert before is not None and after is not None
    for one in made:
        name = one.audience.name
        added, gone = {member.key for member in one.added or ()}, set(one.gone or ())
        assert after.members[name] == (before.members[name] | added) - gone
        assert not gone & after.members[name] and not added & before.members[name]


def test_an_address_that_is_still_in_the_file_is_not_taken_out(tmp_path: Path) -> None:
    """One customer follows another with the same mailbox; one has another number and the mailbox of before."""
    spec = ExportsSpec.model_validate(
        {**SPEC.model_dump(), "merge": [], "files": {"google_customer_match": "ads", "hubspot": "all"}}
    )
    first = [("c1", "Same@example.com", None, None, None), ("c3", "three@example.com", "+1 202-555-0143", None, None)]
    second = [("c2", "same@example.com", None, None, None), ("c3", "three@example.com", "+1 202-555-0146", None, None)]
    nobody: dict[str, Any] = {"spec": spec, "permissions": permissions(None), "control": pa.array([], pa.string())}
    for night, rows, base in (("first", first, None), ("second", second, tmp_path / "first")):
        lists = [("a__b__30d", rank, row[0], "ads", "target") for rank, row in enumerate(rows, 1)]
        made, _ = export(
            tmp_path / night, lists, base and EarlierExports.of(base), contact=contact(list(rows)), **nobody
        )
    folder = tmp_path / "second" / "exports"
    number = hashlib.sha256(b"+12025550143").hexdigest()
    assert cells(folder / "google_customer_match_removes.csv") == [{"Email": "", "Phone": number}]
    assert len(cells(folder / "google_customer_match_adds.csv")) == 2
    # HubSpot finds contacts by address alone: a number without one takes out nobody.
    assert cells(folder / "hubspot_removes.csv") == []
    found = {name: (counts(made, name)["removed"], counts(made, name)["still_in"]) for name in spec.files}
    assert found == {"google_customer_match": (1, 1), "hubspot": (0, 2)}


def test_an_address_is_written_only_where_one_of_its_channels_is_open(tmp_path: Path) -> None:
    channels = ("email", "SMS reminder", "phone", "in app")
    files = {"hubspot": ["email", "phone"], "klaviyo": ["email", "SMS reminder"], "channels": "all", "mailchimp": "all",
             "email": ["in app"], "calls": ["email", "phone"]}  # fmt: skip
    spec = ExportsSpec.model_validate({**SPEC.model_dump(), "merge": [], "files": files})
    rows = [(name, f"{name}@example.com", f"+1 202-555-014{name[1]}", None, None) for name in ("c1", "c2", "c3")]
    lists = [("a__b__30d", 1, "c1", "email", "target"), ("a__b__30d", 2, "c2", "email", "target"),
             ("a__b__30d", 3, "c3", "in app", "target")]  # fmt: skip
    closed = [("c1", "phone"), ("c1", "SMS reminder"), ("c2", "phone"), ("c3", "email")]
    made, _ = export(
        tmp_path / "night", lists, spec=spec, contact=contact(rows), permissions=permissions(closed),
        channels=channels, control=pa.array([], pa.string()),
    )  # fmt: skip
    found = {one.audience.name: {key[0]: key[1:] for key in (m.key for m in one.audience.members)} for one in made}
    assert found["hubspot"] == {"c1": ("c1@example.com", ""), "c2": ("c2@example.com", "")}
    assert found["klaviyo"] == {"c1": ("c1@example.com", ""), "c2": ("c2@example.com", "+12025550142")}
    assert found["channels"] == {**found["klaviyo"], "c3": ("", "+12025550143")}
    assert counts(made, "hubspot")["without_closed_phone"] == 2
    assert counts(made, "channels")["without_closed_email"] == 1
    # Whoever said no to e-mail gets none through a file that is for e-mail, whatever the channel is called.
    for name, left in (("mailchimp", 1), ("email", 1), ("calls", 2)):
        assert counts(made, name)["closed_address"] == left, name


def test_the_call_sheet_gives_all_reasons_as_one_sentence() -> None:
    said = (
        "Speaks for: asked for a price & a date; typical of Engage customers: once",
        "Speaks against: last seen 40 days ago; typical of Engage customers: 9 days ago",
        "Note: wrote twice; most Engage customers: never",
    )
    lists = lists_of([("a__b__30d", 1, "c05", "phone", "target")])
    (rows,) = lists.values()
    for number, text in enumerate(said, 1):
        rows = rows.set_column(rows.schema.get_field_index(f"reason_{number}"), f"reason_{number}", pa.array([text]))
    spec = SPEC.model_copy(update={"files": {"calls": ("phone",)}})
    made = make_exports(
        spec, {"a__b__30d": rows}, contact(), permissions(), pa.array(CONTROL, pa.string()), EPOCH, CHANNELS
    )
    with tempfile.TemporaryDirectory() as folder:
        write_exports(Path(folder, "exports"), made, spec.merge, "2025-06-24")
        page = Path(folder, "exports", "calls.html").read_text()
    assert "<td>Asked for a price &amp; a date; wrote twice; but last seen 40 days ago.</td>" in page


# Any business: nobody in control, and nobody suppressed, is in an inclusion file; no address whose channels are closed.

_THROUGH = (*CHANNELS, "sms")
_BY = {"email": ("email",), "phone": ("phone", "sms")}
_MAILS = ["a.b@gmail.com", "AB+x@gmail.com", "c@example.com", "C@Example.com ", "d.e@example.com", "bad", None]
_PHONES = ["+1 202-555-0143", "(202) 555-0143", "+49 30 23125 012", "030", None]
_NAMES = [f"c{i}" for i in range(6)]


@dataclass(frozen=True)
class Random:
    """A business of chance."""

    spec: ExportsSpec
    lists: list[tuple[str, int, str, str | None, str]]
    contacts: list[tuple[str | None, ...]]
    control: list[str]
    suppressed: list[tuple[str, str | None]] | None
    consent: list[tuple[str, str | None]] | None


@st.composite
def businesses(draw: st.DrawFn) -> Random:
    channel = st.sampled_from([*_THROUGH, None])
    named = st.lists(st.tuples(st.sampled_from(_NAMES), channel), max_size=4)
    some = st.lists(st.sampled_from(_THROUGH), min_size=1, max_size=3, unique=True)
    files = draw(st.dictionaries(st.sampled_from(list(SPEC.files)), st.one_of(st.just("all"), some), min_size=1))
    control = draw(st.lists(st.sampled_from(_NAMES), max_size=2, unique=True))
    lists = []
    for name in draw(st.sampled_from([["a__b__30d"], ["a__b__30d", "b__c__7d"]])):
        for rank, customer in enumerate(draw(st.lists(st.sampled_from(_NAMES), max_size=5, unique=True)), 1):
            lists.append((name, rank, customer, draw(channel), "control" if customer in control else "target"))
    contacts = [
        (name, draw(st.sampled_from(_MAILS)), draw(st.sampled_from(_PHONES)), None, None)
        for name in draw(st.lists(st.sampled_from(_NAMES), unique=True))
    ]
    country = draw(st.sampled_from(["US", None]))
    spec = ExportsSpec.model_validate({**SPEC.model_dump(), "files": files, "default_country": country, "merge": []})
    return Random(spec, lists, contacts, control, draw(st.none() | named), draw(st.none() | named))


def forms(of: Random, customers: set[str], addresses: Collection[str] = ("email", "phone")) -> set[str]:
    """Return every text by which an export could name these customers' addresses."""
    found = set()
    for name, mail, phone, *_ in of.contacts:
        if name in customers and mail and "email" in addresses:
            plain = mail.strip().lower()
            local, _, domain = plain.partition("@")
            bare = f"{re.sub(r'[.]|[+].*', '', local)}@{domain}" if domain == "gmail.com" else plain
            found |= {bare, plain, mail.strip(), *(hashlib.sha256(one.encode()).hexdigest() for one in (bare, plain))}
        # A number that nobody can read is written nowhere, and is nobody else's.
        readable = phone and len(phone) > 3 and (phone.startswith("+") or of.spec.default_country)
        if name in customers and phone and readable and "phone" in addresses:
            digits = re.sub(r"\D", "", phone)
            digits = f"1{digits}" if phone.startswith("(") else digits
            found |= {f"+{digits}", *(hashlib.sha256(one.encode()).hexdigest() for one in (digits, f"+{digits}"))}
    return found - {"bad", hashlib.sha256(b"bad").hexdigest()}


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(of=businesses())
def test_control_and_suppressed_are_in_no_inclusion_file(of: Random) -> None:
    made = make_exports(
        of.spec, lists_of(of.lists), contact(of.contacts), permissions(of.suppressed, of.consent),
        pa.array(of.control, pa.string()), EPOCH, _THROUGH,
    )  # fmt: skip
    everywhere = {customer for customer, channel in of.suppressed or () if channel is None}
    kept_apart = {*of.control, *everywhere}
    forbidden = forms(of, kept_apart)
    with tempfile.TemporaryDirectory() as folder:
        rows = write_exports(Path(folder, "exports"), made, (), "2025-06-24")
        files = {name: Path(folder, "exports", name).read_text() for name in rows if name.endswith((".csv", ".html"))}
        members = pq.read_table(Path(folder, "exports", "members.parquet"), partitioning=None).to_pylist()
    for name, content in files.items():
        if name != "summary.csv" and "exclusion" not in name:
            table = list(csv.reader(content.splitlines(), strict=True)) if name.endswith(".csv") else [[content]]
            assert not {cell for line in table for cell in line} & {*forbidden, *kept_apart}, name
            assert name.endswith(".csv") or not any(one in content for one in (*forbidden, *kept_apart))
    for one in made:
        if not TOOLS[one.audience.export].exclusion:
            written = {address for key in (member.key for member in one.audience.members) for address in key[1:]}
            assert not written & closed_forms(of, one.audience.export), one.audience.name
    for one in made:
        audience, of_it = one.audience, [row for row in members if row["export"] == one.audience.name]
        assert set(audience.left_out) <= set(LEFT_OUT)
        looked_at = len(of.control) if audience.kind == "exclusion" else len(of.lists)
        assert audience.looked_at == looked_at == len(of_it) + sum(audience.left_out.values())
        assert max(Counter(row["customer_id"] for row in of_it).values(), default=1) == 1
        for row in of_it:
            assert allowed(of, row["customer_id"], audience.export, audience.kind)
            if audience.kind == "exclusion":
                assert row["customer_id"] in of.control
            elif not TOOLS[audience.export].exclusion:
                for address, through in _BY.items():
                    using = [channel for channel in served(of, audience.export) if channel in through]
                    assert not row[address] or not using or any(open_to(of, row["customer_id"], c) for c in using)


def closed_forms(of: Random, name: str) -> set[str]:
    """Return the addresses of those suppressed for all channels that use them, or, where none is served, for any."""
    found, suppressed = set[str](), set(of.suppressed or ())
    for address, through in _BY.items():
        using = [channel for channel in through if channel in served(of, name)]
        asked = all if using else any
        who = {one for one in _NAMES if asked((one, channel) in suppressed for channel in using or through)}
        found |= forms(of, who, {address})
    return found


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(first=businesses(), second=businesses())
def test_nobody_who_is_wanted_is_among_the_removes(first: Random, second: Random) -> None:
    """Removes first, then adds: that leads from the earlier file to this one, address by address."""
    made: list[tuple[Exported, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        base = None
        for number, of in enumerate((first, second)):
            spec = of.spec.model_copy(update={"files": first.spec.files})
            made.append(
                make_exports(
                    spec, lists_of(of.lists), contact(of.contacts), permissions(of.suppressed, of.consent),
                    pa.array(of.control, pa.string()), EPOCH, _THROUGH, base,
                )
            )  # fmt: skip
            night = Path(folder, str(number))
            night.mkdir()
            write_exports(night / "exports", made[-1], (), "2025-06-24")
            base = EarlierExports.of(night)
        members = pq.read_table(night / "exports" / "members.parquet", partitioning=None).to_pylist()
    for before, one in zip(*made, strict=True):
        if not (needed := NEEDED_ADDRESSES[one.audience.export]):
            continue  # rows of `channels` are customers
        places = [1 + ("email", "phone").index(name) for name in needed]

        def addresses(keys: Iterable[tuple[str, ...]], places: list[int] = places) -> set[str]:
            return {key[place].lower() for key in keys for place in places} - {""}

        def all_addresses(keys: Iterable[tuple[str, ...]]) -> set[str]:
            return {address.lower() for key in keys for address in key[1:]} - {""}

        keys = [member.key for member in one.audience.members]
        removed = one.removed
        assert removed is not None and one.added is not None
        assert not all_addresses(removed) & all_addresses(keys)
        then = addresses(member.key for member in before.audience.members)
        assert (then - addresses(removed)) | addresses(member.key for member in one.added) == addresses(keys)
        assert all(addresses([key]) for key in removed)
        assert one.counts["removed"] + one.counts["still_in"] == len(one.gone or ())
        told = {tuple(row.values())[1:4] for row in members if row["export"] == one.audience.name
                and row["change"] == "removed"}  # fmt: skip
        assert told == set(removed)


def served(of: Random, name: str) -> Collection[str | None]:
    channels = of.spec.files[name]  # type: ignore[index]
    return (*_THROUGH, None) if channels == "all" else channels


def open_to(of: Random, customer: str, channel: str | None) -> bool:
    stopped = any(who == customer and of_it in (None, channel) for who, of_it in of.suppressed or ())
    agreed = of.consent is None or any(
        who == customer and (of_it in (None, channel) or channel is None) for who, of_it in of.consent
    )
    return agreed and not stopped


def allowed(of: Random, customer: str, name: str, kind: str) -> bool:
    """Return whether a customer may be in an export, by loops over the permission tables."""
    through = served(of, name)
    if kind == "exclusion":
        return any(open_to(of, customer, channel) for channel in through)
    return any(
        who == customer and channel in through and open_to(of, who, channel) for _, _, who, channel, _ in of.lists
    )


@given(st.data())
def test_segments_at_the_door(data: st.DataObject) -> None:
    """Silent error 159: nobody in control, suppressed or without consent is in a segment's file; all are counted."""
    names = [f"c{i:02d}" for i in range(1, 13)]
    of = {name: data.draw(st.sampled_from(["at_risk", "new", "dormant"])) for name in names}
    control = data.draw(st.lists(st.sampled_from(names), unique=True))
    channel = st.sampled_from([None, *CHANNELS])
    tables = [
        data.draw(st.none() | st.lists(st.tuples(st.sampled_from(names), channel), max_size=10)) for _ in range(2)
    ]
    served = data.draw(st.sampled_from(["all", ["email"], ["email", "phone"]]))
    spec = ExportsSpec.model_validate({"email": "mail", "files": {"segments": served}})
    segments = {
        name: pa.table(
            {
                "customer_id": pa.array([one for one in names if of[one] == name], pa.string()),
                "stage": pa.array(["Convert" for one in names if of[one] == name], pa.string()),
            }
        )
        for name in ("at_risk", "new", "dormant")
    }
    addresses: list[tuple[str | None, ...]] = [(one, f"{one}@example.com", None, None, None) for one in names]
    (made,) = make_exports(
        spec,
        {},
        contact(addresses),
        permissions(*tables),
        pa.array(control, pa.string()),
        "e",
        CHANNELS,
        None,
        segments,
    )
    suppressed, consent = tables
    channels = [*CHANNELS, None] if served == "all" else served

    def reachable(name: str) -> bool:
        closed = {through for one, through in suppressed or () if one == name}
        given = {through for one, through in consent or () if one == name}
        for through in channels:
            agreed = consent is None or None in given or (bool(given) if through is None else through in given)
            if agreed and not closed & {None, through}:
                return True
        return False

    wanted = [one for name in segments for one in names if of[one] == name and one not in control and reachable(one)]
    assert [one.customer_id for one in made.audience.members] == wanted
    assert all(one.row["segment"] == of[one.customer_id] for one in made.audience.members)
    assert made.audience.looked_at == 12 == len(wanted) + sum(made.audience.left_out.values())
    with tempfile.TemporaryDirectory() as folder:
        rows = write_exports(Path(folder, "exports"), (made,), (), "2025-06-24")
        files = {name: count for name, count in rows.items() if name.startswith("segment_")}
        assert files == {f"segment_{name}.csv": count for name, count in Counter(of[one] for one in wanted).items()}
        for file in files:
            with Path(folder, "exports", file).open(encoding="utf-8") as opened:
                assert {row["segment"] for row in csv.DictReader(opened)} == {file[8:-4]}
