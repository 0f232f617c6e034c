"""Rules in words, for people who read a model card and not a YAML file."""

from __future__ import annotations

from cvj_ml.config import DAY, Rule, format_duration
from cvj_ml.config.plays import Tests
from cvj_ml.journey.leaves import ANY_EVENT

_SIGNS = {"eq": "=", "ne": "≠", "gt": ">", "gte": "≥", "lt": "<", "lte": "≤", "in": "one of"}


def rule_in_words(rule: Rule) -> str:
    """Return what a rule asks for, such as ``3rd purchase; or purchase worth 500 in total within 90 days``."""
    if rule.event:
        text = _leaf(rule)
    elif rule.attribute is not None:
        text = " and ".join(_tests(rule.attribute))
    elif rule.silent_for is not None:
        text = f"no touchpoint of their own for {duration_in_words(rule.silent_for)}"
    else:
        children = rule.any or rule.all or ()
        word = "; or " if rule.any else "; and "
        parts = [rule_in_words(child) for child in children]
        plain = [not (child.any or child.all) for child in children]
        text = word.join(part if alone else f"({part})" for part, alone in zip(parts, plain, strict=True))
        if rule.after and len(children) > 1:
            text = f"({text})"
    return f"{text}, after {rule.after}" if rule.after else text


def duration_in_words(microseconds: int) -> str:
    """Return a duration, whole days spelled out: ``90 days``, ``12h``."""
    days, rest = divmod(microseconds, DAY)
    if rest:
        return format_duration(microseconds)
    return "1 day" if days == 1 else f"{days} days"


def _leaf(rule: Rule) -> str:
    names = ["any touchpoint" if name == ANY_EVENT else name for name in rule.event or ()]
    text = " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    if rule.count > 1:
        text = f"{_ordinal(rule.count)} {text}" if rule.distinct is None else text
    if tests := _tests(rule.where):
        text += f" with {' and '.join(tests)}"
    if rule.distinct is not None:
        text += f", {rule.count} different values of {rule.distinct}"
    if rule.value_at_least is not None:
        text += f" worth {rule.value_at_least:g} in total"
    if rule.within is not None:
        text += f" within {duration_in_words(rule.within)}"
    if rule.growth is not None:
        window = duration_in_words(rule.growth.window)
        text += f" worth {rule.growth.ratio:g} times as much in {window} as in the {window} before"
    return text


def _tests(asked: Tests) -> list[str]:
    return [
        f"{name} {_SIGNS[operator]} {_operand(operand)}"
        for name, several in asked.items()
        for operator, operand in several.items()
    ]


def _operand(operand: object) -> str:
    return ", ".join(map(str, operand)) if isinstance(operand, list) else str(operand)


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in (11, 12, 13) else "th"
    return f"{number}{ending}"
