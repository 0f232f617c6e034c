"""The configuration: one YAML file, read strictly into one frozen object."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cvj_ml.config import (
    DAY,
    SECOND,
    CalendarSpec,
    Config,
    format_duration,
    load_config,
    parse_duration,
    validated,
)
from cvj_ml.errors import ConfigError

WHOLE = """\
name: shop
time_zone: Europe/London
history_from: 2024-01-01
burn_in: 90d
sources:
  orders:
    path: data/orders/*.parquet
    times: local
    columns: {customer_id: cust, occurred_at: ts, known_at: loaded_at, touchpoint_id: id,
              event: type, channel: src, value: amount, rating: stars}
    arrival_delay: 2d
  web:
    query: SELECT id, at, no FROM visits
    files: {visits: [data/a.csv, data/b.csv]}
    times: utc
    columns: {customer_id: id, occurred_at: at}
    constants: {event: visit}
outbound: [email_sent, ad_impression]
drop_duplicates: no
refused_share: 0.02
attributes: {path: data/customers.csv, columns: {customer_id: id, known_at: updated_at, country: country}}
contact: {path: data/crm.csv, columns: [name, email]}
journey: cvj8
events: {purchase: [order_paid, 'no'], signup: account_made}
unobserved: [Aware]
horizons: [30d, 7d, 30d]
targets: {next: 2}
snapshots: {every: 7d, back: 365d}
features: {windows: [90d, 7d], top_events: 5}
model: {max_rows: 100000, seed: 3}
lists:
  - {from: Convert, to: Ascend, horizon: 30d, capacity: 1000}
stage_value: {Ascend: 120}
control: {share: 0.1, salt: "${CVJ_ML_TEST_SALT}", epoch: quarter}
mlflow: {tracking_uri: "sqlite:///mlflow.db", experiment: shop}
engine: {threads: 2, buckets: 8, memory_limit: 1GB}
out: out/
"""


@pytest.fixture
def write(tmp_path: Path):
    """Return a function that writes YAML into a file and returns the file."""

    def write(text: str) -> Path:
        file = tmp_path / "shop.yaml"
        file.write_text(text)
        return file

    return write


@pytest.fixture
def whole(write, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("CVJ_ML_TEST_SALT", "a: 'b'")
    return load_config(write(WHOLE))


def test_a_whole_configuration_is_read(whole: Config) -> None:
    assert whole.horizons == (7 * DAY, 30 * DAY)
    assert whole.features.windows == (7 * DAY, 90 * DAY)
    assert whole.burn_in == 90 * DAY
    assert (whole.lists or ())[0].from_stage == "Convert"
    assert whole.targets != "all" and whole.targets.next == 2
    assert whole.preset == "cvj8"
    assert not whole.drop_duplicates
    assert whole.sources["web"].constants == {"event": "visit"}


def test_paths_are_relative_to_the_file_and_so_is_the_registry(whole: Config, tmp_path: Path) -> None:
    assert whole.sources["orders"].path == (f"{tmp_path}/data/orders/*.parquet",)
    assert whole.sources["web"].files == {"visits": (f"{tmp_path}/data/a.csv", f"{tmp_path}/data/b.csv")}
    assert whole.out == f"{tmp_path}/out"
    assert whole.mlflow.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.parametrize("uri", ["http://127.0.0.1:5000", "sqlite:////var/registry.db"])
def test_other_registries_stay_as_they_are(write, uri: str) -> None:
    text = "name: a\ntime_zone: UTC\nhistory_from: 2024-01-01\nsources: {a: {path: a.csv}}\njourney: cvj8\n"
    assert load_config(write(f"{text}mlflow: {{tracking_uri: '{uri}'}}\n")).mlflow.tracking_uri == uri


def test_a_secret_comes_from_the_environment_as_text(whole: Config) -> None:
    """What stands in the variable is never read as YAML."""
    assert whole.control.salt == "a: 'b'"


def test_your_event_names_stand_in_the_rules_of_the_preset(whole: Config) -> None:
    rules = {stage.name: [leaf.event for leaf in stage.enter.leaves()] for stage in whole.journey.stages}
    assert rules["Subscribe"] == [("account_made", "lead", "account_created")]
    assert ("order_paid", "no", "booking", "demo", "trial_started") in rules["Convert"]


def test_bare_yes_no_and_on_are_text_where_text_is_meant(write) -> None:
    text = """\
name: a
time_zone: UTC
history_from: 2024-01-01
sources: {a: {path: a.csv, columns: {customer_id: no, event: on}}}
journey: {name: j, stages: [{name: Yes, enter: {event: [on, off], where: {country: NO}}}]}
"""
    config = load_config(write(text))
    (leaf,) = config.journey.stages[0].enter.leaves()
    assert config.sources["a"].columns == {"customer_id": "no", "event": "on"}
    assert (config.journey.names, leaf.event, leaf.where) == (("Yes",), ("on", "off"), {"country": {"eq": "NO"}})


def test_a_configuration_is_frozen(whole: Config) -> None:
    with pytest.raises(ValidationError):
        whole.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("name: shop", "name: my shop", "name: use letters, digits, _ and - only"),
        ("every: 7d", "every: 36h", "snapshots.every: snapshots stand at local midnights"),
        ("[30d, 7d, 30d]", "[12h, 30d]", "horizons: horizons are whole days, such as 30d"),
        ("[30d, 7d, 30d]", "[0d]", "horizons[0]: '0d' is not a duration"),
        ("[30d, 7d, 30d]", "[]", "horizons: name at least one"),
        ("share: 0.1", "share: 1", "control.share: it should be less than 1"),
        ("share: 0.1", "share: .nan", "control.share: it should be"),
        ("Ascend: 120", "Ascend: .inf", "stage_value.Ascend: it should be a finite number"),
        ("Ascend: 120", "Ascnd: 120", "stage_value: unknown stage 'Ascnd'. Did you mean 'Ascend'?"),
        ("purchase: [", "purchas: [", "events: no rule of the journey uses 'purchas'. Did you mean 'purchase'?"),
        ("times: utc", "times: Europe/Pariss", "times is local, utc or a time zone; found 'Europe/Pariss'."),
        ("    times: utc\n", "    path: a.csv\n", "sources.web: give exactly one of path, query and postgres"),
        ("to: Ascend, h", "to: Aware, h", "lists[0] (Convert to Aware): Aware does not come after Convert"),
        ("from: Convert", "from: Aware", "lists[0] (Aware to Ascend): Aware is unobserved, so there is no such list"),
        ("30d, capacity", "14d, capacity", "horizon 14d is not among the horizons 7d, 30d"),
        ("targets: {next: 2}", "targets: {nxt: 2}", "targets: it should be 'all'; or unknown key 'nxt'. Did you mean"),
        ("targets: {next: 2}", "targets: some", "targets: it should be 'all'; or write a mapping"),
        ("max_rows: 100000", "max_rows: many", "model.max_rows: it should be a valid integer"),
        ("outbound: [email_sent, ad_impression]", "outbound: email_sent", "outbound: write a list, such as [a, b]"),
        ("seed: 3", "seed: 3, seed: 4", "the key 'seed' is given twice; keep one of them."),
    ],
)
def test_faults_say_where_and_what(write, monkeypatch: pytest.MonkeyPatch, old: str, new: str, told: str) -> None:
    monkeypatch.setenv("CVJ_ML_TEST_SALT", "salt")
    assert WHOLE.count(old) == 1
    with pytest.raises(ConfigError) as caught:
        load_config(write(WHOLE.replace(old, new)))
    assert told in str(caught.value)
    for name_of_pydantic in ("literal[", "NextStages", "function-", "tuple["):
        assert name_of_pydantic not in str(caught.value)


def journey_with(rule: str) -> str:
    return (
        "name: a\ntime_zone: UTC\nhistory_from: 2024-01-01\nsources: {a: {path: a.csv}}\n"
        f"journey: {{name: j, stages: [{{name: One, enter: {{event: visit}}}}, {{name: Two, enter: {rule}}}]}}\n"
    )


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (
            "{event: a, any: [{event: b}]}",
            "stages[1].enter: a rule has exactly one of event, attribute, silent_for, any, all; found",
        ),
        (
            "{count: 3}",
            "stages[1].enter: a rule has exactly one of event, attribute, silent_for, any, all; found none of them",
        ),
        ("{any: [{event: b}], count: 2}", "count belong to a rule with event, not beside any"),
        ("{event: a, within: 7d}", "within needs a count above 1 or value_at_least"),
        ("{event: a, where: {x: {in: 3}}}", "where x: in takes a list"),
        ("{event: a, where: {x: {gte: [3]}}}", "where x: gte takes one value"),
        ("{event: a, count: 0}", "journey.stages[1].enter.count: it should be greater than or equal to 1"),
        ("{event: a, after: Onne}", "after names the unknown stage 'Onne'. Did you mean 'One'?"),
        ("{event: []}", "journey.stages[1].enter.event: name at least one"),
        ("{event: 404}", "journey.stages[1].enter.event: write text; put quotes around a number that is meant as text"),
        ("visit", "journey.stages[1].enter: write a mapping, such as {key: value}"),
    ],
)
def test_faults_of_a_rule_say_which(write, rule: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(journey_with(rule)))
    assert told in str(caught.value)


def test_stages_that_would_share_a_column_are_refused(write) -> None:
    text = journey_with("{event: a}").replace("Two", "ONE!")
    with pytest.raises(ConfigError, match="stage 'ONE!' shares its column name 'one' with another stage"):
        load_config(write(text))


def test_every_fault_has_a_line(write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVJ_ML_TEST_SALT", "salt")
    text = WHOLE.replace("unobserved: [Aware]", "unobserved: [Awareness, Promte]").replace("Ascend: 120", "Ascnd: 1")
    with pytest.raises(ConfigError) as caught:
        load_config(write(text))
    first, *faults = str(caught.value).splitlines()
    assert first.endswith("the configuration has 3 faults:")
    assert faults == [
        "  - unobserved: unknown stage 'Awareness'. Did you mean 'Aware'?",
        "  - unobserved: unknown stage 'Promte'. Did you mean 'Promote'?",
        "  - stage_value: unknown stage 'Ascnd'. Did you mean 'Ascend'?",
    ]


def test_lists_that_are_not_configured_keep_to_the_epoch_too(write) -> None:
    """Silent error 22: an epoch shorter than the horizon would let people change arm within it."""
    text = journey_with("{event: a}") + "control: {epoch: month}\n"
    with pytest.raises(ConfigError, match="the epoch 'month' can be shorter than the longest list horizon 30d"):
        load_config(write(text))
    assert load_config(write(text + "horizons: [7d, 14d]\n")).default_list_horizon == 14 * DAY


@given(st.integers(1, 5_214), st.sampled_from(["w", "d", "h", "min", "s"]))
def test_durations_are_read_and_written_alike(number: int, unit: str) -> None:
    read = parse_duration(f"{number}{unit}")
    assert read % SECOND == 0
    assert parse_duration(format_duration(read)) == read


@pytest.mark.parametrize("text", ["5215w", "36501d", "876001h"])
def test_no_duration_is_longer_than_any_history(text: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}' is longer than any history; write at most 36500d"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["30", "30 days", "-1d", "0d", "1.5d", "", "d", 30, None, True])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is not a duration; write a positive whole number and a unit"):
        parse_duration(text)


COVERED = (
    "attributes: {path: data/customers.csv, columns: {customer_id: id, known_at: updated_at, consent: tracking}}\n"
    "coverage: {Two: 0.6}\ncomplete_when: {attribute: consent, eq: full}\n"
    "stage_labels: {path: crm.csv, columns: {customer_id: id}}\n"
)


def test_incomplete_tracking_is_declared(write) -> None:
    config = load_config(write(journey_with("{event: a}") + COVERED))
    assert config.coverage == {"Two": 0.6}
    assert config.complete_when is not None and config.complete_when.eq == "full"
    assert config.stage_labels is not None and config.stage_labels.path[0].endswith("crm.csv")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("{Two: 0.6}", "{Too: 0.6}", "coverage: unknown stage 'Too'. Did you mean 'Two'?"),
        ("{Two: 0.6}", "{Two: 0}", "coverage.Two: it should be greater than 0"),
        ("{Two: 0.6}", "{Two: 60}", "coverage.Two: it should be less than or equal to 1"),
        ("{Two: 0.6}", "{Two: much}", "coverage.Two: it should be a valid number"),
        ("{Two: 0.6}", "{Two: 0.6}\nunobserved: [Two]", "coverage: Two is unobserved: nobody's evidence of it is"),
        ("coverage: {Two: 0.6}\n", "", "complete_when: coverage is missing; name the stages whose evidence may be"),
        ("coverage: {Two: 0.6}\n", "", "stage_labels: coverage is missing; name the stages whose evidence may be"),
        ("attribute: consent", "attribute: consnt", "there is no attribute 'consnt'. Did you mean 'consent'?"),
        ("attribute: consent", "attribute: known_at", "It is one of those that attributes.columns maps: consent"),
        ("{attribute: consent, eq: full}", "{attribute: consent}", "complete_when.eq: it is missing; add it"),
        (
            "stage_labels: {path: crm.csv,",
            "stage_labels: {",
            "stage_labels: give exactly one of path, query and postgres",
        ),
    ],
)
def test_faults_of_the_coverage_say_what_to_do(write, old: str, new: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(journey_with("{event: a}") + COVERED.replace(old, new)))
    assert told in str(caught.value)


def test_a_stage_that_takes_any_event_cannot_be_hidden_alone(write) -> None:
    with pytest.raises(ConfigError, match=r"coverage: Two takes any event \('\*'\), so its evidence cannot be hidden"):
        load_config(write(journey_with("{event: '*'}") + COVERED))


@pytest.mark.parametrize("table", ["contact", "suppression", "consent"])
def test_how_times_and_numbers_are_written_means_nothing_where_none_are_read(
    write, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CVJ_ML_TEST_SALT", "s")
    columns = ", columns: [name]" if table == "contact" else ""
    line = f"{table}: {{path: people.csv{columns}, time_format: '%d.%m.%Y', decimal_mark: ','}}\n"
    whole = WHOLE.replace("contact: {path: data/crm.csv, columns: [name, email]}\n", "")
    with pytest.raises(ConfigError, match=rf"{table}: decimal_mark and time_format: no times or numbers are read"):
        load_config(write(whole + line))


def test_faults_of_a_calendar_are_told_together(tmp_path: Path) -> None:
    """A kind without its day, dates the wrong way round, an audience that no attribute tells: nothing is guessed."""
    listed = [
        {"kind": "sale", "start": "2024-05-01", "end": "2024-05-03"},
        {"kind": "sale", "start": "2024-05-03", "end": "2024-05-01", "known_at": "2024-04-01"},
        {"kind": "sale", "start": "2024-02-30", "end": "2024-05-01", "known_at": "2024-04-01"},
    ]
    with pytest.raises(ConfigError) as told:
        validated(CalendarSpec, {"periods": listed}, None)
    text = str(told.value)
    assert "periods[0].known_at: it is missing; add it" in text
    assert "periods[1]: sale: it ends on 2024-05-01, before it starts on 2024-05-03; mend the dates" in text
    assert "periods[2].start" in text
    with pytest.raises(ConfigError, match="name holidays, periods, or both"):
        validated(CalendarSpec, {}, None)
    (tmp_path / "sales.yaml").write_text(yaml.safe_dump(listed[:1]), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"sales.yaml: .*\n.*periods\[0\].known_at: it is missing"):
        validated(CalendarSpec, {"periods": "sales.yaml"}, tmp_path / "shop.yaml")
