# One image for every Airflow service, the MLflow server and the commands.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim-bookworm AS packages
ARG UV=0.13.8
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore UV_SYSTEM_CERTS=true UV_LINK_MODE=copy
WORKDIR /build
# Packages change rarely, the code often: each has a layer of its own.
COPY requirements.txt requirements-image.txt ./
RUN --mount=type=cache,target=/root/.cache \
    pip install --quiet uv==${UV} && python -m venv --without-pip /opt/venv \
    && uv pip install --quiet --python /opt/venv --require-hashes --compile-bytecode \
       --requirement requirements.txt --requirement requirements-image.txt
COPY pyproject.toml ./
COPY include include
RUN uv pip install --quiet --python /opt/venv --no-deps --no-build-isolation --offline --compile-bytecode .

FROM python:${PYTHON}-slim-bookworm
# The commit goes into each model's record; the image holds no repository.
ARG COMMIT=""
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TZ=UTC \
    MPLBACKEND=Agg \
    MPLCONFIGDIR=/tmp/matplotlib \
    DO_NOT_TRACK=1 \
    SCARF_ANALYTICS=False \
    GX_ANALYTICS_ENABLED=False \
    MLFLOW_DISABLE_TELEMETRY=true \
    PYTHONPATH=/opt/evergreen/config \
    AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/evergreen/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/evergreen/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False \
    EVERGREEN_PROJECT=/opt/evergreen \
    EVERGREEN_HOME=/var/lib/evergreen \
    EVERGREEN_LANDING=/var/lib/evergreen/landing \
    EVERGREEN_SNAPSHOTS=/var/lib/evergreen/snapshots \
    EVERGREEN_COMMIT=${COMMIT}
# For DAG bundles that come from a repository.
RUN apt-get update -qq && apt-get install -qq --yes --no-install-recommends git >/dev/null && rm -rf /var/lib/apt/lists/*
# A new volume takes the owner of the folder that it covers.
RUN useradd --uid 50000 --gid 0 --no-create-home --home-dir /opt/airflow evergreen \
    && mkdir -p /opt/airflow/logs /var/lib/evergreen/landing /var/lib/mlflow /var/lib/store \
    && chown -R 50000:0 /opt/airflow /var/lib/evergreen /var/lib/mlflow /var/lib/store \
    && chmod -R g=u /opt/airflow /var/lib/evergreen /var/lib/mlflow /var/lib/store
COPY --from=packages /opt/venv /opt/venv
COPY deploy/airflow_local_settings.py /opt/evergreen/config/
COPY dags /opt/evergreen/dags
COPY plugins /opt/evergreen/plugins
COPY include/datasets /opt/evergreen/include/datasets
COPY include/models /opt/evergreen/include/models
WORKDIR /opt/evergreen
USER 50000:0
CMD ["airflow", "version"]
