"""The environment variables that only a deployment has, by compose or in Kubernetes; `settings` has all others."""

from __future__ import annotations

from urllib.parse import quote

from evergreen.settings import Variable

POSTGRES_PASSWORD = Variable("POSTGRES_PASSWORD", None, "password of PostgreSQL's administrator")
AIRFLOW_DB_PASSWORD = Variable("AIRFLOW_DB_PASSWORD", None, "password of the database role airflow")
MLFLOW_DB_PASSWORD = Variable("MLFLOW_DB_PASSWORD", None, "password of the database role mlflow")
WAREHOUSE_DB_PASSWORD = Variable("WAREHOUSE_DB_PASSWORD", None, "password of the database role warehouse")
WAREHOUSE_INGEST_PASSWORD = Variable(
    "WAREHOUSE_INGEST_PASSWORD", None, "password of the database role evergreen_ingest"
)
WAREHOUSE_MODEL_PASSWORD = Variable(
    "WAREHOUSE_MODEL_PASSWORD", None, "password of the database role evergreen_model"
)
WAREHOUSE_SERVING_PASSWORD = Variable(
    "WAREHOUSE_SERVING_PASSWORD", None, "password of the database role evergreen_serving"
)
WAREHOUSE_EXPORTER_PASSWORD = Variable(
    "WAREHOUSE_EXPORTER_PASSWORD", None, "password of the database role evergreen_exporter"
)
AIRFLOW_PASSWORD = Variable("AIRFLOW_PASSWORD", None, "password of the login `admin` in Airflow")
MLFLOW_DATABASE_URL = Variable(
    "MLFLOW_DATABASE_URL", "", "PostgreSQL URL of MLflow's database; default: that of the compose stack"
)
MLFLOW_PASSWORD = Variable("MLFLOW_PASSWORD", None, "password of the login `admin` in MLflow")
MLFLOW_SERVING_PASSWORD = Variable(
    "MLFLOW_SERVING_PASSWORD", None, "password of the login `serving` in MLflow, which may only read"
)
MLFLOW_SESSION_KEY = Variable("MLFLOW_SESSION_KEY", None, "signs sessions of the MLflow UI")
MLFLOW_ARTIFACTS = Variable(
    "MLFLOW_ARTIFACTS", "/var/lib/mlflow", "where the server keeps artifacts: a folder, or s3://… or gs://…"
)
MLFLOW_ALLOWED_HOSTS = Variable(
    "MLFLOW_ALLOWED_HOSTS", "mlflow:*,localhost:*,127.0.0.1:*", "names under which it may be asked for"
)
STORE_ROOT_PASSWORD = Variable("STORE_ROOT_PASSWORD", None, "secret of the store's own key")
STORE_BUCKET = Variable(
    "STORE_BUCKET", "", "bucket that init makes in the store of the profile s3; default: none is made"
)
AWS_ENDPOINT_URL = Variable("AWS_ENDPOINT_URL", None, "address of the store")
AWS_ACCESS_KEY_ID = Variable("AWS_ACCESS_KEY_ID", None, "id of the workers' key in the store")
AWS_SECRET_ACCESS_KEY = Variable("AWS_SECRET_ACCESS_KEY", None, "secret of the workers' key in the store")

USER = "admin"
"""The first login in Airflow and in MLflow."""
READER = "serving"
"""The login of the prediction service in MLflow: it reads and does nothing else."""
POSTGRES = "postgres"
"""The database's name in the stack's network."""


def mlflow_database() -> str:
    """The URL of MLflow's database in libpq's form; it holds a password.

    Raises:
        TerminalError: neither MLFLOW_DATABASE_URL nor MLFLOW_DB_PASSWORD is set.
    """
    if url := MLFLOW_DATABASE_URL.read():
        return "postgresql:" + url.partition(":")[2]
    return f"postgresql://mlflow:{quote(MLFLOW_DB_PASSWORD.read(), safe='')}@{POSTGRES}/mlflow"


def sqlalchemy(url: str) -> str:
    """The same URL for SQLAlchemy, with the driver that is installed."""
    return "postgresql+psycopg2:" + url.partition(":")[2]
