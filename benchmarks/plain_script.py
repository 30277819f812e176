"""What a user would write instead: one script, each library as its own documentation shows it.

It reads a table of the benchmarks' rows, validates it, fits on all but the newest tenth, registers the model, and
asks for the drift of the newest tenth against the rest. Prints the seconds of each part and the peak memory as JSON.

    python benchmarks/plain_script.py postgresql+psycopg2://... bench http://mlflow:5000 out.html
"""

import json
import resource
import sys
import time

started = time.monotonic()
parts: dict[str, float] = {}


def done(part: str) -> None:
    parts[part] = time.monotonic() - started - sum(parts.values())


import great_expectations as gx  # noqa: E402
import great_expectations.expectations as gxe  # noqa: E402
import mlflow  # noqa: E402
import mlflow.xgboost  # noqa: E402
import pandas as pd  # noqa: E402
import sqlalchemy as sa  # noqa: E402
from evidently import Report  # noqa: E402
from evidently.presets import DataDriftPreset  # noqa: E402
from mlflow.models import infer_signature  # noqa: E402
from sklearn.metrics import root_mean_squared_error  # noqa: E402
from xgboost import XGBRegressor  # noqa: E402

url, table, tracking, html = sys.argv[1:5]
NUMERIC = [f"n{i:02d}" for i in range(14)]
CATEGORICAL = {"region": 24, "channel": 8, "plan": 3}
FEATURES = NUMERIC + list(CATEGORICAL)
done("import")

engine = sa.create_engine(url)
with engine.connect() as connection:
    frame = pd.read_sql(f"SELECT id, ts, {', '.join(FEATURES)}, y FROM data.{table} ORDER BY ts", connection)
done("read")

context = gx.get_context(mode="ephemeral")
batch = (
    context.data_sources.add_pandas("frame")
    .add_dataframe_asset(name=table)
    .add_batch_definition_whole_dataframe("all")
    .get_batch(batch_parameters={"dataframe": frame})
)
expectations = [
    gxe.ExpectTableRowCountToBeBetween(min_value=1),
    gxe.ExpectColumnValuesToBeUnique(column="id"),
]
expectations += [gxe.ExpectColumnValuesToNotBeNull(column=name) for name in ("id", "ts", *CATEGORICAL)]
expectations += [gxe.ExpectColumnMaxToBeBetween(column="ts", max_value=pd.Timestamp("2030-01-01", tz="UTC"))]
expectations += [
    gxe.ExpectColumnValuesToBeBetween(column=name, min_value=-100, max_value=1000) for name in NUMERIC
]
expectations += [
    gxe.ExpectColumnValuesToBeInSet(column=name, value_set=[f"{name}_{i:02d}" for i in range(count)])
    for name, count in CATEGORICAL.items()
]
result = batch.validate(gx.ExpectationSuite(name="rows", expectations=expectations))
assert result.success
done("validate")

for name in CATEGORICAL:
    frame[name] = frame[name].astype("category")
older, newest = frame.iloc[: len(frame) * 9 // 10], frame.iloc[len(frame) * 9 // 10 :]
model = XGBRegressor(
    n_estimators=100, max_depth=6, learning_rate=0.1, tree_method="hist", enable_categorical=True, n_jobs=2
)
model.fit(older[FEATURES], older["y"])
done("fit")
rmse = root_mean_squared_error(newest["y"], model.predict(newest[FEATURES]))
done("evaluate")

mlflow.set_tracking_uri(tracking)
mlflow.set_experiment("plain")
with mlflow.start_run():
    mlflow.log_params(model.get_params())
    mlflow.log_metric("rmse", rmse)
    signature = infer_signature(newest[FEATURES].head(1000), model.predict(newest[FEATURES].head(1000)))
    mlflow.xgboost.log_model(model, name="model", signature=signature, registered_model_name="plain")
done("register")

report = Report([DataDriftPreset()])
report.run(newest[[*FEATURES, "y"]], older[[*FEATURES, "y"]]).save_html(html)
done("drift")

peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": sum(parts.values()), "parts": parts, "peak_mb": peak, "rmse": rmse}))
