"""What contacts change, in the card: list by list the effect, whether it ranks the list, and where it is known."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cvj_ml.model_card.facts import Training
from cvj_ml.model_card.markdown import bullets, escape, table
from cvj_ml.models.uplift.list_effect import ListEffect


def what_contacts_change(training: Training) -> str:
    """Return the section on contacts; empty where no night was published yet."""
    effects = training.predictor.effects
    if not training.contact_notes:
        return ""
    parts = ["## What contacts change", bullets(escape(one) for one in training.contact_notes)]
    if effects:
        columns = [
            "list",
            "contacts and control",
            "effect of a contact",
            "gain of choosing by it",
            "ranks",
            "known from",
        ]
        rows = [
            (
                escape(one.name),
                f"{one.model.rows:,} of {one.model.customers:,} customers",
                _points(one.average),
                _points(one.gain),
                "yes" if one.ranks else "no",
                f"{one.support:.1%}",
            )
            for one in effects
        ]
        parts += [
            table(columns, rows, numbers=2),
            "In percentage points, with 95 % intervals over customers, from control groups and experiments:"
            " models that told a customer's effect had seen nothing of that customer. Of customers with a probability"
            " below the last column nothing is known.",
        ]
        groups = [
            (escape(one.name), f"{k + 1} of {len(one.groups.estimate)}", _points(tuple(map(float, found))))
            for one in effects
            for k, found in enumerate(zip(one.groups.estimate, one.groups.low, one.groups.high, strict=True))
        ]
        parts += ["By predicted effect, the least first:", table(["list", "group", "effect of a contact"], groups)]
    return "\n\n".join(parts)


def effects_table(effects: tuple[ListEffect, ...]) -> pd.DataFrame:
    """Return what is known of the contacts of each list, a row each."""
    return pd.DataFrame(
        [
            {
                "list": one.name,
                "rows": one.model.rows,
                "customers": one.model.customers,
                **dict(zip(("effect", "effect_low", "effect_high"), one.average, strict=True)),
                **dict(zip(("gain", "gain_low", "gain_high"), one.gain, strict=True)),
                "ranks": one.ranks,
                "support": one.support,
                "contacts_needed": one.contacts_needed,
            }
            for one in effects
        ]
    )


def _points(found: tuple[float, ...]) -> str:
    if np.isnan(found[0]):
        return "not known yet"
    estimate, low, high = (f"{100 * one:+.1f}" for one in found)
    return f"{estimate} ({low} to {high})"
