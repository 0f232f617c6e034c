"""Which of a business's events are what the preset journey knows, and which does the business make itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cvj_ml.setup.columns import words

# Canonical event of the preset to names that mean it; a name has to consist of all words of one entry and no other.
_MEANING: Mapping[str, tuple[str, ...]] = {
    "referral_converted": (
        "referral converted", "referred friend joined", "referral signup", "referral purchase", "referral completed",
    ),
    "referral_shared": (
        "referral shared", "refer", "referral", "referral sent", "invited friend", "friend invited", "share", "shared",
        "referral link shared", "refer a friend",
    ),
    "trial_started": ("trial", "trial started", "trial start", "started trial", "start trial", "free trial started"),
    "purchase": (
        "purchase", "purchased", "purchase completed", "purchase complete", "purchase made", "made purchase",
        "order", "ordered", "order completed", "order complete", "completed order", "order paid", "paid order",
        "order confirmed", "transaction", "transaction completed", "sale", "sale completed", "payment",
        "payment completed", "payment succeeded", "payment received", "payment successful", "payment intent succeeded",
        "charge succeeded", "invoice paid", "invoice payment succeeded", "paid", "checkout completed",
        "checkout complete", "checkout session completed", "bought", "buy", "donation", "donated", "donation made",
        "donation received", "donation completed", "made donation", "gift", "gift received", "deal won", "won deal",
        "closed won", "deal closed won", "customer", "became customer", "ecommerce purchase", "in app purchase",
        "kauf", "bestellung", "gekauft",
        "bestellung bezahlt", "bestellung abgeschlossen", "kauf abgeschlossen", "spende", "achat", "commande",
        "commande payee", "don", "compra", "pedido", "pedido pagado", "compra realizada", "acquisto", "ordine",
        "aankoop", "bestelling", "zakup", "kop", "venda", "venta",
    ),
    "booking": ("booking", "booked", "booking confirmed", "booking completed", "reservation", "reservation made",
                "buchung", "reserva", "reservering"),
    "demo": ("demo", "demo requested", "demo booked", "demo scheduled", "demo attended", "demo completed", "demo held",
             "request demo", "requested demo", "book demo", "booked demo"),
    "onboarding_done": (
        "onboarding", "onboarded", "onboarding done", "onboarding completed", "onboarding complete",
        "completed onboarding", "activation", "activated", "account activated",
    ),
    "upgrade": ("upgrade", "upgraded", "plan upgraded", "upgraded plan", "subscription upgraded", "upsell",
                "account upgraded"),
    "testimonial": ("testimonial", "testimonial given", "testimonial submitted", "case study", "case study published"),
    "review": ("review", "reviewed", "review submitted", "review written", "review posted", "submitted review",
               "product reviewed", "product review", "bewertung", "avis", "resena", "recensione"),
    "satisfaction": ("satisfaction", "nps", "csat", "survey", "survey completed", "survey answered", "nps submitted",
                     "completed survey", "survey response", "nps response", "satisfaction survey"),
    "account_created": ("account created", "create account", "created account", "customer created",
                        "user created", "konto erstellt", "compte cree"),
    "signup": (
        "signup", "sign up", "signed up", "register", "registered", "registration", "registration completed",
        "complete registration", "completed registration", "subscribe", "subscribed", "newsletter signup",
        "newsletter sign up", "newsletter subscribed", "newsletter subscribe", "subscribed list",
        "signup completed", "sign up completed", "anmeldung", "registrierung", "inscription", "registro",
        "inscripcion", "aanmelding", "iscrizione",
    ),
    "lead": ("lead", "generate lead", "lead created", "form submitted", "form submit", "submitted form",
             "contact request", "contact form submitted", "lead generated", "became lead"),
    "email_click": ("email click", "email clicked", "clicked email", "newsletter click", "click", "clicked",
                    "email link clicked"),
    "event_attended": ("webinar", "webinar attended", "attended webinar", "attended", "event attended",
                       "attended event"),
    "product_view": (
        "product view", "product viewed", "viewed product", "view item", "view product", "item viewed", "view content",
        "add to cart", "addtocart", "added to cart", "product added", "cart", "wishlist", "add to wishlist",
        "product page viewed", "product detail viewed", "detail view", "produktansicht",
    ),
    "search": ("search", "searched", "products searched", "product search", "view search results", "site search",
               "suche", "recherche", "busqueda"),
    "content_view": ("content view", "content viewed", "article", "article viewed", "article read", "blog",
                     "blog viewed", "blog post viewed", "download", "downloaded", "video", "video viewed",
                     "video played",
                     "pdf", "video watched", "pdf downloaded", "file downloaded", "file download", "content download"),
    "visit": ("visit", "visited", "page view", "page viewed", "pageview", "viewed page", "session", "session start",
              "session started", "view", "viewed", "screen", "screen view", "screen viewed", "website visit",
              "active on site", "page", "first visit", "visite", "besuch", "visita", "seitenaufruf"),
    "refund": ("refund", "refunded", "order refunded", "payment refunded", "charge refunded", "refund issued",
               "return", "returned", "order returned", "erstattung", "retoure", "remboursement", "reembolso"),
    "cancellation": ("cancellation", "cancelled", "canceled", "cancel", "subscription cancelled",
                     "subscription canceled", "subscription cancellation", "membership cancelled",
                     "membership canceled", "contract cancelled", "plan cancelled", "kundigung", "gekundigt"),
    "order_cancelled": ("order cancelled", "order canceled", "cancelled order", "canceled order",
                        "bestellung storniert"),
    "chargeback": ("chargeback", "dispute", "charge dispute created", "dispute opened"),
    "unsubscribe": ("unsubscribe", "unsubscribed", "email unsubscribed", "unsubscribed from email", "unsubscribed list",
                    "unsubscribed email", "newsletter unsubscribed", "opt out", "opted out", "optout", "email opt out",
                    "spam complaint", "spam report", "marked as spam", "marked email as spam", "spamreport",
                    "abgemeldet", "abmeldung", "newsletter abmeldung", "desinscription", "desabonnement", "baja",
                    "disiscrizione", "uitgeschreven", "afmelding"),
    "support_ticket": ("support ticket", "ticket created", "ticket opened", "support request", "complaint",
                       "complaint received", "case opened", "beschwerde", "reklamation"),
    "product_used": ("product used", "login", "log in", "logged in", "app open", "app opened", "feature used",
                     "usage", "application opened", "opened app", "user login", "signed in", "sign in"),
}  # fmt: skip

_FILLERS = frozenset(words("event the a an to of has was is been successfully"))
"""Words that change no meaning, so that they may be there or not."""

_ENTRIES: Mapping[frozenset[str], str] = {
    frozenset(words(entry)) - _FILLERS or frozenset(words(entry)): canonical
    for canonical, entries in reversed(list(_MEANING.items()))
    for entry in (*entries, canonical.replace("_", " "))
}

COMMITTED = ("purchase", "booking", "demo", "trial_started")
"""What makes a customer of a stranger: whether a name means one of these changes what counts as a purchase."""

_NEAR: Mapping[str, frozenset[str]] = {
    "purchase": frozenset(
        words(
            "purchase purchased order ordered transaction sale sold payment paid checkout invoice basket bought buy"
            " donation donated gift charge won kauf gekauft bestellung bezahlt spende achat commande compra pedido"
            " venda"
            " venta acquisto ordine aankoop bestelling converted conversion"
        )
    ),
    "booking": frozenset(words("booking booked reservation reserved buchung reserva")),
    "demo": frozenset(["demo"]),
    "trial_started": frozenset(["trial"]),
}

_ELSE = frozenset(
    words(
        "cancel cancelled canceled cancellation refund refunded return returned failed failure fail abandoned"
        " abandon declined"
        " remove removed delete deleted started start begin began initiated updated update changed edited sent send"
        " info"
        " information entered reminder reminded shipped shipping fulfilled fulfillment delivered delivery expired"
        " expiring"
        " expires view viewed add added click clicked opened open pending request requested dispute disputed chargeback"
        " unpaid overdue due draft quote error method form page no not show lost disqualified paused resumed"
        " unsubscribed"
        " hold note status search searched list detail details history tracking rate rated review reviewed email"
        " step option"
        " intent cart coupon exit invalid retry attempt attempted verify verified ended end ending void voided rejected"
        " downgrade downgraded created draft scheduled planned upcoming renewal reversed storniert abgebrochen annule"
        " cancelado devolucion rembourse retoure erstattung mahnung fehlgeschlagen"
    )
)
"""Words that make of a known word something else: a payment that failed is none."""

_UNDONE = frozenset(
    words(
        "failed failure fail declined cancelled canceled cancellation void voided expired abandoned rejected error"
        " blocked"
        " erreur fehler refuse refusee rechazado fallido fallito rifiutato"
        " invalid incomplete reversed storniert abgebrochen fehlgeschlagen annule cancelado annullato geannuleerd draft"
        " uncaptured denied trash unpaid lost refund refunds storno return returns retoure erstattung gutschrift"
        " chargeback reversal withdrawal payout dispute disputed returned bounced nsf rucklastschrift ruckbuchung"
        " stornierung abgelehnt zuruckgewiesen remboursement annulee refusee devuelto devolucion"
        " reembolso rechazada rimborso terugbetaald mislukt quote quotation estimate proforma sample angebot devis"
        " presupuesto preventivo offerte ko nok"
    )
)
_SOFT_CREDIT = frozenset(words("soft credit credits"))
"""A gift that is credited to somebody who has not given it."""
_DONE = frozenset(
    words(
        "paid complete completed done fulfilled shipped delivered refunded captured succeeded settled won closed active"
        " posted booked gebucht bezahlt abgeschlossen erledigt versendet versandt geliefert ausgeliefert eingegangen"
        " paye payee termine terminee livre livree expedie expediee pagado pagada completado completada entregado"
        " enviado pagato pagata completato consegnato spedito betaald voltooid verzonden"
    )
)

_SENDING_STATES = frozenset(words("soft hard by to"))
_SENT = frozenset(
    words(
        "sent send delivered delivery impression impressions received mailing dispatched bounced bounce processed"
        " deferred dropped"
    )
)
_SENDINGS = frozenset(
    words(
        "email mail sms push ad ads campaign offer message newsletter mailing letter survey invoice reminder"
        " notification"
        " whatsapp pushnotification inappmessage contentcard"
    )
)
_NAMESPACES = frozenset(words("user users app behavior behaviors behaviour behaviours message messages"))
"""What stands before a dot and says only where an event comes from, as in ``users.behaviors.Purchase``."""


def sent_by_business(events: Iterable[str]) -> list[str]:
    """Return the events that the business makes: something sent or shown to the customer.

    A name of nothing but such words says so alone, as those of mail tools do: ``delivered``, ``processed``.
    """
    return [
        name
        for name in events
        if (said := set(words(name))) & _SENT and (said & _SENDINGS or said <= _SENT | _SENDING_STATES)
    ]


def meaning(name: str) -> str | None:
    """Return the preset's name for an event; None unless all words of the event are those of one entry.

    Words before a dot that say only where it comes from may be there or not.
    """
    for parts in (frozenset(words(name)), frozenset(words(_within_namespaces(name)))):
        for one in (parts, parts - _FILLERS, frozenset(part.removesuffix("s") for part in parts - _FILLERS)):
            if one in _ENTRIES:
                return _ENTRIES[one]
    return None


def _within_namespaces(name: str) -> str:
    first, dot, rest = name.partition(".")
    return _within_namespaces(rest) if dot and words(first) and {*words(first)} <= _NAMESPACES else name


def meanings(events: Iterable[str]) -> dict[str, list[str]]:
    """Return the preset's event names with the given events that mean the same; in the order of the preset."""
    found: dict[str, list[str]] = {}
    for name in events:
        if canonical := meaning(name):
            found.setdefault(canonical, []).append(name)
    return {name: found[name] for name in _MEANING if name in found}


def unsure(name: str) -> str | None:
    """Return the event that makes a customer which a name without a meaning may be, for all that its words say."""
    parts = set(words(name))
    if meaning(name) or parts & _ELSE:
        return None
    return next((canonical for canonical, near in _NEAR.items() if parts & near), None)


def alike(name: str) -> bool:
    """Return whether a name holds a word that elsewhere makes a customer, beside one that says something else."""
    parts = set(words(name))
    return meaning(name) is None and bool(parts & _ELSE) and any(parts & near for near in _NEAR.values())


def is_done(state: str) -> bool:
    """Return whether the state of an order or a payment says that it was made, whatever came after."""
    return meaning(state) in COMMITTED or bool(set(words(state)) & _DONE)


def is_undone(state: str) -> bool:
    """Return whether the state of an order or a payment says that it came to nothing."""
    parts = set(words(state))
    return bool(parts & _UNDONE) or ("soft" in parts and parts <= _SOFT_CREDIT)
