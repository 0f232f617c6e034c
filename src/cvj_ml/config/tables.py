"""Where tables come from, how they are written, what their columns mean, and where nights are delivered to."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, field_validator, model_validator

from cvj_ml.config.base import Duration, ResolvedPath, ResolvedPattern, Section, _as_list, zone_names
from cvj_ml.config.plays import Names
from cvj_ml.config.time_formats import whole_format
from cvj_ml.errors import nearest

Paths = Annotated[tuple[ResolvedPattern, ...], BeforeValidator(_as_list), Field(min_length=1)]

Encoding = Literal["utf-8", "windows-1252", "latin-1", "utf-16"]
DecimalMark = Literal[".", ","]
Match = Literal["exact", "trimmed", "folded"]


class TableSpec(Section):
    """Where a table comes from: files (``path``), one SELECT (``query``) over named ``files``, or a server."""

    path: Paths | None = None
    query: str | None = None
    postgres: PostgresSource | None = None
    files: dict[str, Paths] = {}
    row_times: dict[str, str] = Field(default={}, description="file of a query to the column that dates its rows")
    sheet: str | None = Field(default=None, description="of a workbook; without it the first that is shown")
    member: str | None = Field(default=None, description="pattern of the files of a ZIP archive that are this table")
    encoding: Encoding = Field(default="utf-8", description="of CSV files")
    times: str = Field(default="local", description="zone of naive times: local, utc or a zone name")
    time_format: Annotated[str, AfterValidator(whole_format)] | None = Field(
        default=None,
        description="of times that are text or numbers: %d.%m.%Y %H:%M, epoch ms, days since 1899-12-30 and the like",
    )
    decimal_mark: DecimalMark | None = Field(
        default=None, description="of numbers in text that have thousands separators or a currency sign, too"
    )
    null_values: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = Field(
        default=(), description="texts that mean an empty cell, such as null or N/A, in every column"
    )

    @field_validator("times")
    @classmethod
    def _known_zone(cls, times: str) -> str:
        if times not in ("local", "utc") and times not in zone_names():
            raise ValueError(f"times is local, utc or a time zone; found {times!r}.{nearest(times, zone_names())}")
        return times

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if sum(one is not None for one in (self.path, self.query, self.postgres)) != 1:
            raise ValueError("give exactly one of path, query and postgres")
        if self.query is not None and not self.files:
            raise ValueError("query needs files: {name: path}; the query selects from those names")
        if self.query is None and self.files:
            raise ValueError(f"files belong to a query; found them beside {'path' if self.path else 'postgres'}")
        for name in self.row_times:
            if name not in self.files:
                raise ValueError(f"row_times: {name!r} is not among the files of the query.{nearest(name, self.files)}")
        return self


class IdsSpec(Section):
    """How customer ids are compared, in all tables alike; the word ``text`` alone is ``{text: true}``."""

    text: bool = Field(default=False, description="ids may be numbers in one table and text in another")
    match: Match = Field(default="exact", description="which writings are one id")

    @model_validator(mode="before")
    @classmethod
    def _from_one_word(cls, data: Any) -> Any:
        if data == "text" or data is None:
            return {"text": data == "text"}
        if not isinstance(data, dict | IdsSpec):
            raise ValueError("write text, or a mapping such as {text: true, match: trimmed}")
        return data


def _as_texts(wanted: Any) -> Any:
    """Return what a column must say as texts, as the column has them; ``filled`` stays a word."""
    listed = wanted if isinstance(wanted, list | tuple) else [wanted]
    if wanted == "filled" or not all(isinstance(one, str | bool | int | float) for one in listed):
        return wanted
    return tuple(str(one).lower() if isinstance(one, bool) else str(one) for one in listed)


Wanted = Annotated[Literal["filled"] | tuple[str, ...], BeforeValidator(_as_texts)]
"""What a column must say: any of some texts, or anything at all."""

_OF_MELT = ("event", "occurred_at", "value", "touchpoint_id")
"""Roles that a melted table has no column for: the first two come from its dates, the others would repeat for each."""


class CurrencySpec(Section):
    """The column that says in which currency a value is, the one that all are made, and rates of the day."""

    column: str
    to: str = Field(pattern="^[A-Z]{3}$")
    rates: ResolvedPath | None = Field(default=None, description="table with date, currency and rate")


class SourceSpec(TableSpec):
    """A source of touchpoints: the canonical column to the source's own (``event: type``).

    ``where`` names the rows that are touchpoints; ``melt`` makes one of each date that is filled, event to column.
    """

    columns: dict[str, str | tuple[str, ...]] = {}
    constants: dict[str, str] = Field(default={}, description="text put into a canonical column of every row")
    resolution: Literal["day"] | None = Field(
        default=None,
        description="day where the hours of occurred_at mean nothing; dates without hours are seen as such",
    )
    where: dict[str, Wanted] = Field(default={}, description="column to what it must say for a row to be a touchpoint")
    melt: dict[str, str] = Field(default={}, description="event to the column with its date, of a row with several")
    currency: CurrencySpec | None = None
    minor_units: bool = Field(default=False, description="values are in cents, or what the currency has instead")
    known_after: Duration | None = None
    arrival_delay: Duration | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """The columns of ``customer_id``, of which the first that is filled counts."""
        own = self.columns.get("customer_id", ())
        return (own,) if isinstance(own, str) else own

    @property
    def single(self) -> dict[str, str]:
        """The columns of everything else, and of ``customer_id`` where it is one."""
        return {name: own for name, own in self.columns.items() if isinstance(own, str)}

    @field_validator("columns")
    @classmethod
    def _one_column_each(cls, columns: dict[str, str | tuple[str, ...]]) -> dict[str, str | tuple[str, ...]]:
        for name, own in columns.items():
            if not isinstance(own, str) and (name != "customer_id" or len(set(own)) != len(own) or not own):
                raise ValueError(
                    f"columns.{name}: name one column; customer_id alone can have a list, each column once"
                )
        return columns

    @model_validator(mode="after")
    def _dates_apart(self) -> Self:
        wrong = [one for one in _OF_MELT if self.melt and (one in self.columns or one in self.constants)]
        if wrong:
            raise ValueError(
                f"{' and '.join(wrong)} beside melt: event and occurred_at come from melt, and a value or an id of the"
                " row would repeat for each of its dates; leave it out"
            )
        return self


STAGE_HISTORY = "stage_history"
"""Where the configuration names a CRM's stage history, and what it is called among the sources."""

_AS_TOUCHPOINTS = {"stage": "event", "entered_at": "occurred_at"}


class StageHistorySpec(SourceSpec):
    """When a CRM's stage field was set to what: customer_id, stage, entered_at, known_at; the rest are properties.

    Its rows are touchpoints that no customer made: evidence for rules (``stage_field``), neither their own nor sent.
    """

    field: str | None = Field(default=None, description="attribute that holds the field as it is: to be compared")

    @model_validator(mode="after")
    def _nothing_of_a_touchpoint(self) -> Self:
        wrong = sorted({"event", "occurred_at", "channel", "value"} & {*self.columns, *self.constants})
        if wrong:
            raise ValueError(
                f"{' and '.join(wrong)}: a change of stage has customer_id, stage, entered_at and known_at; other"
                " columns are properties under names of their own"
            )
        return self

    def as_source(self) -> SourceSpec:
        """Return the source of touchpoints that reads the same rows."""

        def renamed(given: Mapping[str, Any]) -> dict[str, Any]:
            return {_AS_TOUCHPOINTS.get(name, name): own for name, own in given.items()}

        told = {name: getattr(self, name) for name in SourceSpec.model_fields if name in self.model_fields_set}
        own = {role: name for name, role in _AS_TOUCHPOINTS.items() if name not in self.constants}
        columns = {**own, **renamed(self.columns)}
        return SourceSpec.model_construct(**{**told, "columns": columns, "constants": renamed(self.constants)})


def history_faults(
    history: StageHistorySpec | None, sources: Collection[str], attributes: Collection[str]
) -> Iterator[str]:
    """Yield what is wrong with the tables of touchpoints together; sources and attributes are names."""
    if not sources and history is None:
        yield "sources: name at least one"
    if history is not None and STAGE_HISTORY in sources:
        yield f"sources: {STAGE_HISTORY!r} is the name of the CRM's stage history; call the source otherwise"
    if history is not None and history.field is not None and history.field not in attributes:
        yield (
            f"stage_history.field: there is no attribute {history.field!r}.{nearest(history.field, attributes)} It is"
            f" one of those that attributes.columns maps: {', '.join(sorted(attributes)) or 'none yet'}"
        )


class AttributesSpec(TableSpec):
    """Customer attributes, known from ``known_at`` on, or declared ``static: true``."""

    columns: dict[str, str] = {}
    static: bool = False
    dates: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = Field(
        default=(), description="attributes that are dates, such as that of a renewal"
    )

    @model_validator(mode="after")
    def _dates_are_attributes(self) -> Self:
        own = self.columns.keys() - {"customer_id", "known_at"}
        if wrong := [name for name in self.dates if name not in own]:
            raise ValueError(f"dates: columns maps no attribute {wrong[0]!r}.{nearest(wrong[0], own)}")
        return self


class StageLabelsSpec(TableSpec):
    """The true stage of some customers, from a CRM or a survey: customer_id, as_of, stage, known_at."""

    columns: dict[str, str] = {}


class IdentitiesSpec(TableSpec):
    """Which ids are one person: ``alias`` is ``customer``, known at ``known_at``, of touchpoints before ``until``."""

    columns: dict[str, str] = {}
    most_ids: int = Field(default=50, ge=2, le=1000, description="ids that one person may have; more are not joined")


class MembersSpec(TableSpec):
    """Which people are of which account: ``contact``, ``account``, ``known_at``, and maybe ``role`` and ``until``."""

    columns: dict[str, str] = {}


class CompleteSpec(Section):
    """Whose tracking is complete: those whose attribute has this value."""

    attribute: str
    eq: bool | int | float | str


class PeopleSpec(TableSpec):
    """A table with a row a customer, as it is tonight: no time or number is read from it."""

    @model_validator(mode="after")
    def _nothing_to_parse(self) -> Self:
        if ignored := sorted(
            {"times", "time_format", "decimal_mark", "null_values", "row_times"} & self.model_fields_set
        ):
            raise ValueError(f"{' and '.join(ignored)}: no times or numbers are read from this table; leave it out")
        return self


class ContactSpec(PeopleSpec):
    """How to reach a customer; shown in lists, never a feature."""

    columns: Names
    customer_id: str = "customer_id"
    contact: str | None = Field(default=None, description="column of the person's id, where a customer is an account")


class PermissionSpec(PeopleSpec):
    """Customers who must not (suppression), or alone may (consent), be contacted; through one channel or any."""

    customer_id: str = "customer_id"
    contact: str | None = Field(default=None, description="column of the person's id, for permissions of people")
    channel: str | None = None


NAME_BYTES = 63
"""PostgreSQL cuts longer names without an error."""


def _is_uri(uri: SecretStr) -> SecretStr:
    # The text itself is never shown: it holds a password.
    if not uri.get_secret_value().startswith(("postgresql://", "postgres://")):
        raise ValueError("write postgresql://user:password@host:port/database, best by ${NAME} from the environment")
    return uri


Uri = Annotated[SecretStr, AfterValidator(_is_uri)]


class PostgresSource(Section):
    """One ``table`` (``schema.table``, or ``table`` on the search path), or one SELECT (``query``) of a server."""

    uri: Uri
    table: str | None = Field(default=None, pattern=r"^[^.]+(\.[^.]+)?$")
    query: str | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.table is None) == (self.query is None):
            raise ValueError("give exactly one of table and query")
        return self


class PostgresDelivery(Section):
    """The schema that holds the current night: ``scores``, ``targets`` and ``nights``."""

    uri: Uri
    schema_name: str = Field(default="cvj", alias="schema", min_length=1)


def _is_web_address(url: SecretStr) -> SecretStr:
    # Nor is this one shown: whoever knows it can post there.
    try:
        parts = urlsplit(url.get_secret_value())
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        right = False
    if not right:
        raise ValueError("write https://host/path, best by ${NAME} from the environment")
    return url


class DeliverSpec(Section):
    """Where a published night goes besides its folder: to a server, its summary to a web address, or both."""

    postgres: PostgresDelivery | None = None
    webhook: Annotated[SecretStr, AfterValidator(_is_web_address)] | None = Field(
        default=None, description="web address that the summary of a night is posted to when it becomes current"
    )

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.postgres is None and self.webhook is None:
            raise ValueError("name postgres, webhook or both, or leave deliver out")
        return self


def account_faults(
    unit: str,
    sources: Mapping[str, SourceSpec],
    members: MembersSpec | None,
    identities: IdentitiesSpec | None,
    people: Mapping[str, ContactSpec | PermissionSpec | None],
    elsewhere: Mapping[str, object],
) -> Iterator[str]:
    """Yield what cannot stand beside the ``unit``; ``elsewhere`` are settings that send nights to other programs."""
    if unit == "person":
        if members is not None:
            yield "members: they are the people of accounts; say unit: account, or leave them out"
        for name, table in people.items():
            if table is not None and table.contact is not None:
                yield f"{name}.contact: it names people of accounts; say unit: account, or name customer_id instead"
        return
    if identities is not None:
        yield "identities: ids of one person are not joined where a customer is an account; leave them out"
    for name, source in sources.items():
        if len(source.ids) > 1:
            yield (
                f"sources.{name}.columns.customer_id: ids of one person are not joined where a customer is an account;"
                " name the column of the account, and that of the person as contact"
            )
    for name, table in people.items():
        if isinstance(table, ContactSpec) and table.contact is None:
            yield f"{name}: where a customer is an account it is of people; name the column of their ids as contact"
        if isinstance(table, PermissionSpec) and table.contact and table.channel:
            yield f"{name}.channel: permissions of people are for every channel; leave it out, or name the account"
    for name, setting in elsewhere.items():
        if setting is not None:
            yield f"{name}: where a customer is an account nights do not go there yet; leave it out"
