"""Exports: the night's lists as the files that other tools import, and the audience that ads must leave alone."""

EXPORTS, MEMBERS, COUNTS = "exports", "members", "summary"
"""A night's folder of exports, and its tables of who is in which one, and of how many."""

LEFT_OUT = {
    "control": "in the control group",
    "other_channel": "to be contacted through a channel that this export does not serve",
    "suppressed": "named in the suppression file",
    "no_consent": "not named in the consent file",
    "other_list": "in this export already, from an earlier list",
    "no_address": "without the address that it needs",
    "bad_email": "with an e-mail address that is none",
    "bad_phone": "with a phone number that is none",
    "no_country_code": "with a phone number without a country code, and there is no default_country",
    "held_back_address": "with an address that belongs to somebody in control or suppressed, too",
    "closed_address": "whose address belongs to channels that are closed to them",
    "shared_address": "with an address that is in this export already",
}
"""Why somebody is not in an export, in the order in which it is asked; the first that holds counts."""
