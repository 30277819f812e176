"""What would fail later is a mistake of its spec: each with field, value and what to do, in the words of who writes it."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from evergreen.spec import load_dataset, load_specs
from evergreen.spec.metrics import Metric

MODEL = {
    "label is a text": ("label:\n  column: rush\n  delay: 1h", "label: late", "label: is a section of its own, with the fields column, delay, min, max; write them below its name (value: 'late')"),
    "features is a list": ("features:\n  numeric: [hour, weekday, temperature, humidity, windspeed, price]\n  categorical: [weather, day_kind]", "features: [hour]", "features: is a section of its own, with the fields numeric, categorical"),
    "params is a list": ("params: {max_depth: 5, learning_rate: 0.1}", "params: [max_depth]", "training.params: is a section of its own; write NAME: VALUE lines"),
    "no entity to keep the newest of": ("schedule:", "serving: {features: latest}\nschedule:", "serving.features: latest keeps the newest row of each entity, and the key is ts alone"),
    "list is a text": ("key: [ts]", "key: ts", "key: must be a list, such as [a, b] (value: 'ts')"),
    "task of another tool": ("task: binary", "task: classification", "task: must be one of regression, binary; did you mean binary?"),
    "misspelt task of another tool": ("task: binary", "task: clasification", "did you mean binary?"),
    "misspelt task": ("task: binary", "task: regresion", "task: must be one of regression, binary; did you mean regression?"),
    "misspelt metric": ("metric: log_loss", "metric: log_los", f"gate.metric: must be one of {', '.join(get_args(Metric))}; did you mean log_loss?"),
    "metric of another tool": ("metric: roc_auc", "metric: auc", "did you mean roc_auc?"),
    "duration or all": ("window: 210d", "window: al", "training.window: 'al' is not a duration"),
    "huge duration": ("window: 210d", "window: 99999999999999d", "training.window: '99999999999999d' is longer than a century (36525d)"),
    "endless duration": ("window: 210d", f"window: {'9' * 400}d", "is longer than a century"),
    "no window": ("window: 7d", "window: 0d", "monitoring.window: '0d' is too short; write at least 1m"),
    "no holdout": ("holdout: 7d", "holdout: 0h", "training.holdout: '0h' is too short"),
    "duration of base 60": ("delay: 1h", "delay: 1:30", "label.delay: 90 is not a duration; write a number and a unit"),
    "name of a row's key": ("numeric: [hour,", "numeric: [_key, hour,", "features.numeric.0: '_key' is Evergreen's own name; give the column another one in the SQL (AS)"),
    "name of the label": ("column: rush", "column: _label", "label.column: '_label' is Evergreen's own name"),
    "name of the time": ("event_time: ts", "event_time: _time", "event_time: '_time' is Evergreen's own name"),
    "name of the hash": ("key: [ts]", "key: [_hash]", "key.0: '_hash' is Evergreen's own name"),
    "name of an entity": ("categorical: [weather,", "categorical: [_entity, weather,", "'_entity' is Evergreen's own name"),
    "name of predictions": ("numeric: [hour,", "numeric: [_prediction, hour,", "'_prediction' is Evergreen's own name"),
    "long name": ("numeric: [hour,", f"numeric: [{'x' * 64}, hour,", "is no usable name of a column; PostgreSQL takes 1 to 63 bytes"),
    "empty name": ("numeric: [hour,", "numeric: ['', hour,", "is no usable name of a column"),
    "name with a line break": ("numeric: [hour,", 'numeric: ["a\\nb", hour,', "is no usable name of a column"),
    "boolean as a name": ("numeric: [hour,", "numeric: [on, hour,", "features.numeric.0: must be a text, and YAML reads on as a boolean (true, false): put it in quotes, 'on' (value: True)"),
    "number as a name": ("categorical: [weather,", "categorical: [2024, weather,", "features.categorical.0: must be a text, and YAML reads 2024 as a number: put it in quotes, '2024'"),
    "dataset twice": ("datasets: [bike_hourly]", "datasets: [bike_hourly, bike_hourly]", "datasets: bike_hourly is named twice; remove one"),
    "label limits": ("delay: 1h", "delay: 1h\n  min: 5\n  max: 1", "label: min 5.0 is larger than max 1.0; swap them"),
    "volume limits": ("window: 7d", "window: 7d\n  volume: {min: 4}", "monitoring.volume: min 4.0 is not below max 3.0"),
    "negative seed": ("max_rounds: 300", "max_rounds: 300\n  seed: -1", "training.seed: input should be greater than or equal to 0 (value: -1)"),
    "huge seed": ("max_rounds: 300", "max_rounds: 300\n  seed: 99999999999", "training.seed: input should be less than 2147483648"),
    "huge count": ("window: 7d", "window: 7d\n  min_rows: 999999999999999999", "monitoring.min_rows: input should be less than or equal to 1000000000000"),
    "owner of two lines": ("owner: bike-team", 'owner: "a\\nb"', "owner: must be one line of plain text"),
    "no owner": ("owner: bike-team", 'owner: ""', "owner: string should have at least 1 character"),
    "date as a text": ("owner: bike-team", "owner: 2024-01-01", "owner: must be a text, and YAML reads 2024-01-01 as a date: put it in quotes, '2024-01-01'"),
    "unprintable description": ("owner: bike-team", 'owner: a\ndescription: "\\x07"', "'description' is written twice"),
    "preset without quotes": ('schedule: "15 2 * * *"', "schedule: @daily", "a text that begins with @, %, ! or ` must be in quotes"),
    "colon in a text": ("owner: bike-team", "owner: team: bikes", "a text that holds a colon and a space must be in quotes"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "said"), MODEL.values(), ids=MODEL.keys())
def test_of_a_model(folder: Path, old: str, new: str, said: str) -> None:
    path = folder / "models" / "bike_rush.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    specs = load_specs(folder)
    assert any(said in str(p) for p in specs.problems), [str(p) for p in specs.problems]
    assert {p.file for p in specs.problems} == {"models/bike_rush.yaml"}
    assert set(specs.models) == {"bike_demand"}


def source(text: str) -> tuple[str, str]:
    return 'source:\n  pattern: "*.csv"', f"source:\n  {text}"


DATASET = {
    "type of another tool": ("price:        {type: float", "price:        {type: double", "columns.price.type: must be one of float, integer, boolean, text, category, timestamp, date; did you mean float?"),
    "type with a length": ("price:        {type: float", 'price:        {type: "numeric(10,2)"', "did you mean float?"),
    "type with its bits": ("demand:       {type: integer", "demand:       {type: int64", "did you mean integer?"),
    "type with a unit": ("price:        {type: float", 'price:        {type: "datetime64[ns]"', "did you mean timestamp?"),
    "type of several words": ("price:        {type: float", "price:        {type: double precision", "did you mean float?"),
    "misspelt type": ("demand:       {type: integer", "demand:       {type: interger", "did you mean integer?"),
    "country": ("values: [clear, mist,", "values: [NO, SE, mist,", "columns.weather.values.0: must be a text, and YAML reads NO as a boolean (true, false): put it in quotes, 'NO' (value: False)"),
    "codes": ("values: [clear, mist,", "values: [1, mist,", "columns.weather.values.0: must be a text, and YAML reads 1 as a number: put it in quotes, '1'"),
    "key twice": ("key: [ts]", "key: [ts, ts]", "key: a column stands there twice; remove one"),
    "column with a line break": ("  price:", '  "price\\n":', "not a usable column name"),
    "delimiter is a line break": (*source('delimiter: "\\n"'), "source.delimiter: '\\n' cannot stand between two values"),
    "delimiter is a quote": (*source("delimiter: '\"'"), "cannot stand between two values"),
    "delimiter of two": (*source("delimiter: '||'"), "source.delimiter: '||' is not one character"),
    "tab without quotes": (*source("delimiter: \\t"), 'a tab as "\\t" in double quotes'),
    "delimiter is a letter": (*source("delimiter: x"), "cannot stand between two values"),
    "delimiter is a digit": (*source("delimiter: '0'"), "cannot stand between two values"),
    "delimiter beyond ASCII": (*source("delimiter: §"), "cannot stand between two values"),
    "delimiter is a point": (*source("delimiter: ."), "cannot stand between two values"),
    "unknown encoding": (*source("encoding: utf-9"), "source.encoding: 'utf-9' is no encoding of text files; write utf-8, latin-1, cp1252 or utf-16"),
    "rot13": (*source("encoding: rot13"), "is no encoding of text files"),
    "base64": (*source("encoding: base64"), "is no encoding of text files"),
    "punycode": (*source("encoding: punycode"), "is no encoding of text files"),
    "escapes": (*source("encoding: unicode_escape"), "is no encoding of text files"),
    "empty encoding": (*source('encoding: ""'), "is no encoding of text files"),
    "huge tolerance": ("quarantine: batch", "quarantine: batch\nfuture_tolerance: 999999999999d", "future_tolerance: '999999999999d' is longer than a century"),
    "share that is no number": ("null_share_max: 0.1", "null_share_max: .nan", "nan is no usable number"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "said"), DATASET.values(), ids=DATASET.keys())
def test_of_a_dataset(folder: Path, old: str, new: str, said: str) -> None:
    path = folder / "datasets" / "bike_hourly.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    found = [p for p in load_specs(folder).problems if not p.because]
    assert any(said in str(p) for p in found), [str(p) for p in found]
    assert {p.file for p in found} == {"datasets/bike_hourly.yaml"}


@pytest.mark.parametrize("good", ['delimiter: ";"', 'delimiter: "\\t"', 'delimiter: "|"', 'delimiter: " "', "encoding: latin-1", "encoding: cp1252", "encoding: utf-16", "encoding: shift_jis", "encoding: utf-8-sig"])  # fmt: skip
def test_what_files_have_is_taken(folder: Path, good: str) -> None:
    path = folder / "datasets" / "bike_hourly.yaml"
    path.write_text(path.read_text().replace(*source(good), 1))
    assert load_specs(folder).problems == ()


@pytest.mark.parametrize("suffix", ["__history", "_pkey", "_event_time"])
def test_a_dataset_cannot_have_the_name_of_another_ones_table_or_index(folder: Path, suffix: str) -> None:
    before = load_specs(folder)
    text = (folder / "datasets" / "bike_hourly.yaml").read_text()
    name = f"bike_hourly{suffix}"
    path = folder / "datasets" / f"{name}.yaml"
    path.write_text(text.replace("name: bike_hourly", f"name: {name}", 1))
    for found in (load_specs(folder), load_dataset(folder, name)):
        assert [str(p) for p in found.problems] == [
            f"datasets/{name}.yaml: name: is what Evergreen calls a table or an index of the dataset bike_hourly; rename this "
            f"one (value: {name})"
        ]
        assert name not in found.datasets
    assert load_specs(folder).models == before.models
    other = folder / "datasets" / f"no_such{suffix}.yaml"
    path.unlink()
    other.write_text(text.replace("name: bike_hourly", f"name: no_such{suffix}", 1))
    assert load_specs(folder).problems == (), "nothing of that name is there to collide with"


def test_booleans_of_yaml_are_booleans_where_one_is_asked_for(folder: Path) -> None:
    path = folder / "datasets" / "bike_hourly.yaml"
    before = load_specs(folder)
    path.write_text(path.read_text().replace("required: false", "required: no"))
    assert load_specs(folder) == before
