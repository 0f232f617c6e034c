"""Faults of ``exports`` and of a web address that is told: each says where it is and what to write instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cvj_ml.config import Config, load_config
from cvj_ml.errors import ConfigError

SHOP: dict[str, Any] = {
    "name": "shop",
    "time_zone": "UTC",
    "history_from": "2024-01-01",
    "sources": {"log": {"path": "log.parquet"}},
    "contact": {"path": "people.parquet", "columns": ["mail", "tel", "Play"]},
    "journey": "cvj8",
}
EXPORTS: dict[str, Any] = {"email": "mail", "phone": "tel", "files": {"email": "all"}}


def loaded(folder: Path, exports: dict[str, Any], **more: Any) -> Config:
    (folder / "shop.yaml").write_text(yaml.safe_dump({**SHOP, "exports": exports, **more}))
    return load_config(folder / "shop.yaml")


def test_one_channel_is_a_list_of_one(tmp_path: Path) -> None:
    spec = loaded(tmp_path, {**EXPORTS, "files": {"email": "email", "channels": "all"}}).exports
    assert spec is not None and spec.files == {"email": ("email",), "channels": "all"}


@pytest.mark.parametrize(
    ("exports", "told"),
    [
        ({"email": "mial"}, "exports.email: 'mial' is not among contact.columns. Did you mean 'mail'?"),
        ({"merge": ["town"]}, "exports.merge: 'town' is not among contact.columns."),
        ({"merge": ["Play"]}, "exports.merge: 'Play' would be a second column of that name"),
        ({"merge": ["mail", "mail"]}, "exports.merge: mail is given twice"),
        ({"phone": None, "files": {"calls": "all"}}, "exports.files.calls: it needs exports.phone"),
        (
            {"email": None, "phone": None, "files": {"klaviyo": "all"}},
            "exports.files.klaviyo: it needs exports.email or exports.phone",
        ),
        ({"files": {"email": ["emial"]}}, "exports.files.email: no play of the journey goes through 'emial'."),
        ({"files": {"mailchip": "all"}}, "exports.files.mailchip"),
        ({"files": {}}, "exports.files: name at least one"),
        ({"files": {"email": []}}, "exports.files.email"),
        ({"default_country": "UK"}, "exports.default_country: 'UK' is no country with phone numbers"),
    ],
)
def test_faults_say_where_and_what(tmp_path: Path, exports: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, {**EXPORTS, **exports})
    assert told in str(caught.value)


def test_exports_need_a_table_of_contacts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no contact table to take addresses from"):
        loaded(tmp_path, EXPORTS, contact=None)


@pytest.mark.parametrize(
    "url", ["ftp://shop.example/hook", "file:///etc/passwd", "shop.example/secret", "http://", "http://secret:port/"]
)
def test_a_web_address_is_one(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match=r"deliver\.webhook") as caught:
        loaded(tmp_path, EXPORTS, deliver={"webhook": url})
    assert "secret" not in str(caught.value)


def test_a_delivery_goes_somewhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name postgres, webhook or both"):
        loaded(tmp_path, EXPORTS, deliver={})


def test_where_a_summary_goes_is_in_no_text_of_the_configuration(tmp_path: Path) -> None:
    config = loaded(tmp_path, EXPORTS, deliver={"webhook": "https://shop.example/hook?token=secret"})
    assert "secret" not in repr(config) and "secret" not in config.model_dump_json()
