"""Which column is the customer, the time, the event, the value: what they hold decides, names break ties."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cvj_ml.setup.columns import ColumnProfile, words
from cvj_ml.setup.events import meaning
from cvj_ml.setup.profile import Table

PERSON_WORDS = frozenset(
    words(
        "customer cust client user member subscriber donor contact person patient guest visitor buyer shopper player"
        " student"
        " profile supporter constituent consumer payer household attendee participant kunde kunden kundin"
        " kundennummer kundennr"
        " cliente clientes klant klient kund usuario usuarios utente utilisateur acheteur donateur nutzer benutzer"
        " mitglied"
        " spender kaufer comprador socio miembro membre lid gebruiker asiakas distinct clientid customerid custid"
        " userid"
        " memberid visitorid contactid donorid "
    )
)
COOKIE_WORDS = frozenset(words("anonymous pseudo cookie device fullvisitorid idfa fingerprint browser"))
VISITOR_WORDS = COOKIE_WORDS | frozenset(words("visitor visitorid guest domain"))
GROUP_WORDS = frozenset(
    words("account accountid company organisation organization konto firma empresa cuenta compte family")
)
ENTITY_WORDS = frozenset(words("case mql lead deal opportunity prospect applicant record subject entity uid msisdn"))
ID_WORDS = frozenset(
    words("id ids no nr number num key uuid guid code hash unique ref reference external crm internal")
)
NOT_WORDS = frozenset(
    words(
        "owner rep agent seller vendor merchant supplier created modified updated assigned manager employee staff"
        " operator handler product item sku article variant order invoice transaction basket cart session event"
        " message campaign page url store shop branch warehouse country city region zip postal postcode state row"
        " index line lineitem status type category source medium channel currency price amount ticket shipment payment"
        " coupon discount tag list segment parent resource activity referrer count phone address street birth gender"
        " age since total spent language consent title company accepts marketing group agentid verantwortlich besitzer"
        " propietario proprietaire eigenaar bearbeiter vendeur vendedor verkaufer unnamed field landing lifetime first"
        " last middle time days nights"
    )
)
STAFF_WORDS = frozenset(
    words("owner rep agent seller vendor merchant supplier created modified assigned manager employee staff")
)
PEOPLE_WORDS = frozenset(
    words(
        "customers users clients members accounts people persons contacts subscribers households donors leads visitors"
        " kunden usuarios clientes membres utilisateurs"
    )
)

_OCCURRED = (
    "occurred at", "event time", "event timestamp", "timestamp", "occurred", "order date", "purchase date",
    "transaction"
    " date", "invoice date", "gift date", "donation date", "payment date", "created at", "created", "creation date",
    "order purchase timestamp", "ts", "datetime", "event date", "date time", "date", "datum", "zeit", "zeitpunkt",
    "bestelldatum", "fecha", "data", "time",
)  # fmt: skip
_KNOWN = frozenset(words("known loaded ingested received inserted synced exported recorded arrived processed etl"))
_BEGAN = frozenset(words("created creation registered registration joined signup since member first"))
_MODIFIED = frozenset(words("modified updated update changed last sync edited geandert modifie")) | _KNOWN
_OTHER_TIME = frozenset(
    words(
        "birth birthday dob expiry expires expiration due estimated expected delivery delivered end until valid next"
        " scheduled renewal sent original arrival departure"
    )
)
_EVENT = (
    "event name", "event type", "event", "action", "activity", "touchpoint", "interaction", "verb", "ereignis",
    "aktion", "evento", "evenement", "accion", "gebeurtenis", "event action", "interaction type", "activity type",
    "concept name",
)  # fmt: skip
_EVENT_WEAK = ("metric", "type", "kind", "name", "category", "operation", "what", "art", "tipo")
_PLANNED = frozenset(
    words("expiry expires expire expiration due until next scheduled renewal renews estimated expected planned")
)
_NEARLY_ALL = 0.95
_STATE = frozenset(words("status state stage zustand estado statut etat fulfillment"))
_ADDRESS = frozenset(
    words("ship shipping bill billing address mailing home us province county customer delivery store")
)
_OLD, _NEW = (
    frozenset(words("old previous from before prior alt ancien anterior")),
    frozenset(words("new current to after next neu nouveau nuevo")),
)
_MONEY = (
    ("purchase revenue", "value", "amount", "revenue", "total", "betrag", "umsatz", "montant", "importe", "bedrag",
     "belopp", "valor", "gesamt", "gesamtbetrag", "summe", "gmv", "grand total", "monto", "importo"),
    ("gross", "sales", "spend", "spent", "paid", "subtotal", "net", "preis", "prix", "precio", "prezzo", "prijs",
     "price", "sum", "donation", "turnover", "charge"),
)  # fmt: skip
_NO_MONEY = frozenset(
    words(
        "refund refunded refunds tax taxes vat shipping discount discounts fee fees tip tips balance outstanding"
        " quantity qty"
        " count cost weight lifetime exchange rate margin profit duties installment fulfillment percent number id"
        " max min"
        " average mwst rabatt iva tva versand remise descuento freight orders items visits age year num secs seconds"
        " sec minutes mins hours duration bytes kb mb gb pages clicks views plays sessions steps distance km miles"
        " points point pts coins credits tokens punkte puntos"
    )
)
_CHANNEL = ("channel", "utm source", "medium", "utm medium", "source", "platform", "device", "kanal", "canal")
_TOUCHPOINT = (
    "touchpoint id", "event id", "message id", "transaction id", "order id", "gift id", "donation id", "payment id",
    "invoice id", "row id", "uuid", "order number", "order no", "order name", "bestellnummer", "id",
)  # fmt: skip
_ORDER = frozenset(
    words(
        "order invoice basket transaction receipt purchase bestellung bestellnummer bestellnr rechnung pedido"
        " commande booking"
        " name payment charge donation gift checkout increment sale"
    )
)
_WHOLE = frozenset(words("total subtotal sum gesamt grand order paid"))
"""Words of amounts that are not the price of one piece."""
_ITEM = frozenset(
    words("item product article sku variant asin ean isbn style artikel produkt produit producto articulo")
)
_QUANTITY = ("quantity", "qty", "units", "count", "menge", "anzahl", "stuck", "cantidad", "quantite", "aantal")
_RATING = ("rating", "stars", "score", "nps", "bewertung")

_ONE_AMOUNT = 20
"""In a file of more rows than this, a column of one amount is no value if there is another."""

CURRENCIES = frozenset(
    words(
        "AED ARS AUD BDT BGN BRL CAD CHF CLP CNY COP CZK DKK EGP EUR GBP GEL GHS HKD HRK HUF IDR ILS INR ISK JPY KES"
        " KRW KWD"
        " LKR MAD MXN MYR NGN NOK NZD PEN PHP PKR PLN QAR RON RSD RUB SAR SEK SGD THB TND TRY TWD TZS UAH UGX USD"
        " UYU VND XAF"
        " XOF ZAR BTC ETH USDT"
    )
)
"""Codes of currencies; a column that holds nothing else is one of currencies."""

EVERYBODY = 0.95
"""In so many rows, or for so many ids, a column is taken to be filled everywhere."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A column that could have a role: how much its name speaks for it, and what it holds."""

    column: ColumnProfile
    tier: int
    plausible: bool = True

    def __str__(self) -> str:
        return f"{self.column.name} ({self.column.distinct:,} different in {self.column.filled:,} rows)"


@dataclass(frozen=True, slots=True)
class Roles:
    """The columns of one table: role to column, the roles a person told, and the rivals that were left."""

    columns: Mapping[str, str]
    told: frozenset[str]
    rivals: Mapping[str, Sequence[Candidate]] = field(default_factory=dict)
    certain: bool = True
    """Whether the customer's column says by its name that it is one."""
    also: tuple[str, ...] = ()
    """Weaker ids of the customer, for rows without the first; a row with several says that they are one person."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Return which of customer and time could not be found."""
        return tuple(role for role in ("customer_id", "occurred_at") if role not in self.columns)

    def get(self, role: str) -> str:
        """Return the column of a role that there is."""
        return self.columns[role]


def find_times(table: Table, taken: Iterable[str]) -> list[Candidate]:
    """Return the columns that could say when a row happened, the best first."""
    rows, free = table.file.rows, [one for one in table.file.columns if one.name not in set(taken)]
    times = [Candidate(one, _place(one.name, _OCCURRED)) for one in free if one.kind == "time" and one.first]
    return sorted(
        times,
        key=lambda one: (
            bool(set(words(one.column.name)) & (_MODIFIED | _OTHER_TIME)),
            _is_of_a_person(one.column.name),
            one.column.filled < EVERYBODY * rows,
            one.column.ahead + one.column.ancient > 0,
            one.column.days_only,
            -one.tier,
            one.column.first,  # what comes after it, such as a stay after its booking, was only planned then
            len(words(one.column.name)),
        ),
    )


def _is_of_a_person(name: str) -> bool:
    """Return whether a time is of somebody and not of what they did, as when a customer was created."""
    said = set(words(name))
    return bool(said & PERSON_WORDS) and bool(said & _BEGAN)


def is_modification(name: str) -> bool:
    """Return whether a column's name says when a row was last changed or stored, not when something happened."""
    return bool(set(words(name)) & _MODIFIED)


def says_known(name: str) -> bool:
    """Return whether a column's name says when a row was received."""
    return bool(set(words(name)) & _KNOWN)


def is_state(name: str) -> bool:
    """Return whether a column's name says that it holds the state of something, and not where somebody lives."""
    parts = set(words(name))
    return bool(parts & _STATE) and not (parts & _STATE == {"state"} and parts & _ADDRESS)


def find_events(table: Table, taken: Iterable[str]) -> list[Candidate]:
    """Return the columns that could name the event of a row, the best first; only those with tier above 0 say so."""
    rows, found = table.file.rows, []
    for one in table.file.columns:
        if one.name in set(taken) or one.kind != "text" or one.filled < EVERYBODY * rows or one.emails > rows / 2:
            continue
        if (
            is_state(one.name)
            or is_currency(one)
            or not one.distinct > 0
            or set(words(one.name)) & (NOT_WORDS - {"event", "activity", "type", "category"})
        ):
            continue
        strong = _place(one.name, _EVENT)
        known = _known_share(one)
        if strong or known > 0.5 or (_place(one.name, _EVENT_WEAK) and 1 < one.distinct <= max(30, rows / 10)):
            found.append(Candidate(one, 2 if strong else 1 if known > 0.5 else 0))
    return sorted(
        found,
        key=lambda one: (
            -one.tier,
            -_known_share(one.column),
            -_place(one.column.name, _EVENT),
            len(words(one.column.name)),
        ),
    )


def names_events(name: str) -> bool:
    """Return whether a name says that what it holds is an event."""
    return _place(name, _EVENT) > 0


def find_change(table: Table, taken: Iterable[str]) -> tuple[str, str] | None:
    """Return the columns (old, new) of a log of changes: two texts of which one's values become the other's."""
    texts = [one for one in table.file.columns if one.kind in ("text", "number") and one.name not in set(taken)]
    for new in texts:
        for old in texts:
            named = set(words(old.name)) & _OLD and set(words(new.name)) & _NEW
            if named and new.name != old.name and set(words(old.name)) - _OLD == set(words(new.name)) - _NEW:
                return old.name, new.name
    return None


def _known_share(column: ColumnProfile) -> float:
    """Return the share of rows whose value means something to the preset."""
    if not column.names:
        return 0.0
    return sum(rows for name, rows in column.names.items() if meaning(name)) / max(1, column.filled)


def find_values(table: Table, taken: Iterable[str]) -> list[Candidate]:
    """Return the columns that could be the amount of a row, the best first."""
    found = []
    for one in table.file.columns:
        parts = set(words(one.name))
        if one.name in set(taken) or one.kind != "number" or not one.filled or parts & _NO_MONEY:
            continue
        for tier, names in zip((2, 1), _MONEY, strict=True):
            # Amounts stand together in a structure: totals.grand is the grand total.
            if place := _place(one.name, names) or _place(one.name.replace("totals", "total"), names):
                found.append((Candidate(one, tier), place))
                break
    found.sort(key=lambda item: (-item[0].tier, len(words(item[0].column.name)), -item[1], item[0].column.name))
    # What is the same in every row, as where nothing is due any more, is an amount only if there is no other.
    return sorted((one for one, _ in found), key=lambda one: table.file.rows > _ONE_AMOUNT and one.column.distinct <= 1)


def find_numbers(table: Table, taken: Iterable[str]) -> list[ColumnProfile]:
    """Return the columns of numbers that could be amounts, though no name says so."""
    held, no_money = set(taken), _NO_MONEY | ID_WORDS | _STATE
    return [
        one
        for one in table.file.columns
        if one.kind == "number" and one.distinct > 2 and one.name not in held and not set(words(one.name)) & no_money
        if not one.whole or says_money(one.name)
    ]


def says_money(name: str) -> bool:
    """Return whether a column's name says an amount of money."""
    return any(_place(name, names) for names in _MONEY) and not set(words(name)) & _NO_MONEY


def is_currency(column: ColumnProfile) -> bool:
    """Return whether a column holds codes of currencies and nothing else."""
    return bool(column.names) and all(name.strip().lower() in CURRENCIES for name in column.names or ())


def is_price(name: str) -> bool:
    """Return whether an amount is that of one piece, to be multiplied by how many there are."""
    parts = set(words(name))
    return bool(parts & {"price", "preis", "prix", "precio", "prijs", "prezzo"}) and not parts & _WHOLE


def find_keys(table: Table, taken: Iterable[str]) -> list[ColumnProfile]:
    """Return the columns that look like the number of an order or a row, those whose name says so first."""
    free = [one for one in table.file.columns if one.name not in set(taken) and one.filled > one.nobody]
    keys = [
        one
        for one in free
        if one.kind == "text" or (one.kind == "number" and (one.whole or one.pointed))
        if set(words(one.name)) & (_ORDER | ID_WORDS) or re.search("id$|nr$|number$", one.name.lower())
        if "unnamed" not in words(one.name) and words(one.name) and not is_state(one.name)
        if one.distinct > 2
        and 2 * one.emails < one.filled
        and not set(words(one.name)) & (PERSON_WORDS | GROUP_WORDS | COOKIE_WORDS)
    ]
    return sorted(
        keys, key=lambda one: (-_place(one.name, _TOUCHPOINT), not set(words(one.name)) & _ORDER, -one.distinct)
    )


def names_orders(name: str) -> bool:
    """Return whether a name is that of an order's number."""
    return bool(set(words(name)) & (_ORDER - {"name"}))


def is_item(name: str) -> bool:
    """Return whether a name is that of what was bought or looked at, which no order has to itself."""
    return bool(set(words(name)) & _ITEM) and not set(words(name)) & _ORDER


def order_of_each_row(table: Table, taken: Iterable[str]) -> str | None:
    """Return the column that by its name is the number of an order, where each row has one of its own."""
    return next(
        (
            one.name
            for one in find_keys(table, taken)
            if names_orders(one.name) and one.distinct == one.filled == table.file.rows
        ),
        None,
    )


def find_named(
    table: Table, taken: Iterable[str], names: Sequence[str], kinds: tuple[str, ...]
) -> ColumnProfile | None:
    """Return the column of these kinds whose name holds the words of the earliest entry."""
    free = [one for one in table.file.columns if one.name not in set(taken) and one.filled and one.kind in kinds]
    best = max(free, key=lambda one: (_place(one.name, names), -len(words(one.name))), default=None)
    return best if best is not None and _place(best.name, names) else None


def is_planned(column: ColumnProfile, rows: int) -> bool:
    """Return whether a date is set beforehand, as the end of a trial is; where a contract ended, most have no date."""
    parts = set(words(column.name))
    ends = bool(parts & {"end", "ends"}) and ("trial" in parts or column.filled >= _NEARLY_ALL * rows)
    return ends or bool(parts & _PLANNED)


def find_others(table: Table, taken: Iterable[str]) -> dict[str, str]:
    """Return channel and rating, which are used where there are any."""
    taken, found = set(taken), {}
    channel = find_named(table, taken, _CHANNEL, ("text",))
    if channel is not None and channel.names is not None:
        found["channel"] = channel.name
    rating = find_named(table, taken, _RATING, ("number",))
    if rating is not None and rating.distinct <= 20:
        found["rating"] = rating.name
    return found


def find_quantity(table: Table, taken: Iterable[str]) -> str | None:
    """Return the column that says how many pieces a line of an order has."""
    found = find_named(table, taken, _QUANTITY, ("number",))
    return found.name if found else None


def _place(name: str, entries: Sequence[str]) -> int:
    """Return how early an entry stands whose words a name holds, larger for earlier ones; 0 for none."""
    parts = set(words(name))
    return next((len(entries) - i for i, entry in enumerate(entries) if set(entry.split()) <= parts), 0)
