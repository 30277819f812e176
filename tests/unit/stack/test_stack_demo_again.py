"""A second demo begins like the first: versions at 1, no mail of the earlier one; nothing of that is lost."""

from __future__ import annotations

from pathlib import Path

from mlflow import MlflowClient

from evergreen.registry.aliases import aliases, move_alias
from evergreen.stack import demo


def version_of_a_new_model(tmp_path: Path) -> str:
    client = MlflowClient()
    if not client.search_registered_models(f"name = '{demo.MODEL}'"):
        client.create_registered_model(demo.MODEL)
    return str(client.create_model_version(demo.MODEL, (tmp_path / "model").as_uri()).version)


def test_versions_begin_at_1_again_and_the_earlier_ones_are_kept(mlflow_url: str, tmp_path: Path) -> None:
    assert demo.models_aside("until_1") == []
    assert [version_of_a_new_model(tmp_path) for _ in range(2)] == ["1", "2"]
    move_alias(demo.MODEL, "champion", "2")
    kept = f"{demo.MODEL}_until_1"
    assert demo.models_aside("until_1") == [kept]
    assert aliases(kept) == {"champion": "2"}
    assert version_of_a_new_model(tmp_path) == "1"
    assert aliases(demo.MODEL) == {}


def test_a_folder_is_kept_under_another_name_and_an_empty_one_is_left(tmp_path: Path) -> None:
    mail = tmp_path / "mail"
    assert demo.folder_aside(mail, "until_1") is None
    mail.mkdir()
    assert demo.folder_aside(mail, "until_1") is None
    (mail / "a.eml").write_text("Subject: x")
    assert demo.folder_aside(mail, "until_1") == tmp_path / "mail_until_1"
    assert (tmp_path / "mail_until_1" / "a.eml").read_text() == "Subject: x"
    assert not mail.exists()
