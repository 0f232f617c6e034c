"""Which of a business's events are what the preset journey knows, and which does the business make itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cvj_ml.sources.profile import words

# Canonical event of the preset to words of a business's own; a name has to hold all words of one entry.
_MEANING: Mapping[str, tuple[str, ...]] = {
    "referral_converted": ("referral converted", "referred friend joined", "referral signup", "referral purchase"),
    "referral_shared": ("referral shared", "refer", "referral", "invite", "invited friend", "share"),
    "trial_started": ("trial",),
    "purchase": (
        "purchase", "purchased", "order", "ordered", "transaction", "sale", "checkout completed", "payment", "paid",
        "invoice", "basket", "bought", "buy", "donation", "donated", "gift", "deal won",
    ),
    "booking": ("booking", "booked", "reservation"),
    "demo": ("demo",),
    "onboarding_done": ("onboarding", "onboarded", "activation", "activated"),
    "upgrade": ("upgrade", "upgraded", "upsell"),
    "testimonial": ("testimonial", "case study"),
    "review": ("review", "reviewed"),
    "satisfaction": ("satisfaction", "nps", "csat", "survey"),
    "account_created": ("account created", "create account"),
    "signup": ("signup", "sign up", "signed up", "register", "registered", "registration", "subscribe", "subscribed"),
    "lead": ("lead", "form submitted", "form submit", "contact request"),
    "email_click": ("email click", "email clicked", "newsletter click", "click", "clicked"),
    "event_attended": ("webinar", "attended", "event attended"),
    "product_view": (
        "product view", "product viewed", "view item", "view product", "add to cart", "addtocart", "cart", "wishlist",
    ),
    "search": ("search", "searched"),
    "content_view": ("content view", "article", "blog", "download", "video", "pdf"),
    "visit": ("visit", "page view", "pageview", "session", "view", "viewed", "screen"),
    "product_used": ("product used", "login", "log in", "logged in", "app open", "feature used", "usage"),
}  # fmt: skip

_UNDONE = {
    "cancel",
    "cancelled",
    "canceled",
    "refund",
    "refunded",
    "return",
    "returned",
    "failed",
    "abandoned",
    "declined",
    "remove",
    "removed",
}
_SENT = {"sent", "send", "delivered", "impression", "impressions", "received", "mailing", "dispatched"}
_SENDINGS = {
    "email",
    "mail",
    "sms",
    "push",
    "ad",
    "ads",
    "campaign",
    "offer",
    "message",
    "newsletter",
    "mailing",
    "letter",
}


def sent_by_business(events: Iterable[str]) -> list[str]:
    """Return the events that the business makes: something sent or shown to the customer."""
    return [name for name in events if set(words(name)) & _SENT and set(words(name)) & _SENDINGS]


def meanings(events: Iterable[str]) -> dict[str, list[str]]:
    """Return the preset's event names with the given events that seem to mean the same; in the order of the preset."""
    found: dict[str, list[str]] = {}
    for name in events:
        parts = set(words(name))
        parts |= {word.removesuffix("s") for word in parts}
        if parts & _UNDONE:
            continue
        for canonical, entries in _MEANING.items():
            if name == canonical or any(set(entry.split()) <= parts for entry in entries):
                found.setdefault(canonical, []).append(name)
                break
    return {name: found[name] for name in _MEANING if name in found}
