"""docker-compose.yaml and the image, as far as they can be judged without an engine; tests/compose runs them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from evergreen import settings
from evergreen.cli import COMMANDS
from evergreen.deployment.environment import SECRETS, SETTINGS, STORES
from evergreen.deployment.store import ROOT
from evergreen.exporter.command import PORT
from evergreen.serving.command import PORT as SERVING_PORT
from evergreen.warehouse import roles

REPOSITORY = Path(__file__).resolve().parents[3]
FILE = REPOSITORY / "docker-compose.yaml"
TEXT = FILE.read_text(encoding="utf-8")
STACK = yaml.safe_load(TEXT)
SERVICES = STACK["services"]
OURS = {name: s for name, s in SERVICES.items() if str(s["image"]).startswith("${EVERGREEN_IMAGE")}
# Of the operator, beside those that Evergreen reads: what the stack is built of, and how much of the machine it may take.
OPERATORS = {
    "EVERGREEN_IMAGE", "EVERGREEN_BIND", "EVERGREEN_PORT", "EVERGREEN_SMTP", "MLFLOW_PORT", "SERVING_PORT", "SERVING_MEMORY", "MAIL_PORT", "MLFLOW_ARTIFACTS",
    "MLFLOW_ALLOWED_HOSTS", "STORE_BUCKET", "STORE_MEMORY", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION",
    "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN",
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AIRFLOW_PARALLELISM",
    "AIRFLOW_WORKER_CONCURRENCY", "WORKER_GRACE", "POSTGRES_MEMORY", "MLFLOW_MEMORY", "APISERVER_MEMORY", "SCHEDULER_MEMORY",
    "DAG_PROCESSOR_MEMORY", "TRIGGERER_MEMORY", "WORKER_MEMORY", "OPENLINEAGE_API_KEY", "AIRFLOW_STATSD", "PROMETHEUS_PORT",
    "PROMETHEUS_RETENTION", "PROMETHEUS_MEMORY", "GRAFANA_PORT", "GRAFANA_MEMORY",
}  # fmt: skip
METRICS = ("exporter", "grafana", "prometheus", "statsd-exporter")
STORE = ("store", "store-folders")
# Compose's own escape of a dollar is none of them.
USED = re.findall(r"(?<!\$)\$\{(\w+)(:[-?][^}]*)?", TEXT)


def test_it_is_what_the_specification_of_compose_asks_for():
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_every_variable_is_known():
    known = {v.name for v in settings.ALL} | set(SECRETS) | OPERATORS
    assert {name for name, _ in USED} <= known
    assert {name for name, _ in USED} >= set(SECRETS) | OPERATORS


def test_no_secret_has_a_default_and_what_is_missing_names_the_command():
    for name, default in USED:
        assert (default == ":?run make compose-env") is (name in SECRETS), name


def test_no_password_is_written_down():
    for name in SECRETS:
        assert not re.search(rf"{name}=\S", SETTINGS)
    for word in ("password", "secret", "fernet"):
        for line in TEXT.splitlines():
            name, _, value = line.partition(":")
            if word in name.lower() and not line.lstrip().startswith("#") and value.strip():
                assert "${" in value, line


def test_nothing_but_init_knows_the_login_that_owns_the_warehouse():
    def knowing(secret: str) -> set[str]:
        return {name for name, service in SERVICES.items() if secret in str(service)}

    assert knowing("WAREHOUSE_DB_PASSWORD") == {"init"}
    assert {"init", "airflow-worker", "airflow-dag-processor"} <= knowing("WAREHOUSE_INGEST_PASSWORD")
    assert "demo" in knowing("EVERGREEN_WAREHOUSE_URL")
    assert "airflow-worker" not in knowing("EVERGREEN_WAREHOUSE_URL"), "it would win over the connections"
    assert knowing("WAREHOUSE_SERVING_PASSWORD") == {"init", "serving"}
    assert knowing("MLFLOW_SERVING_PASSWORD") == {"mlflow", "serving"}
    assert "serving" not in knowing("MLFLOW_PASSWORD"), "it reads versions and writes nothing there"


def test_the_prediction_service_has_its_own_role_and_volume_and_starts_without_mlflow():
    service = SERVICES["serving"]
    login, owner = (SERVICES[name]["environment"]["EVERGREEN_WAREHOUSE_URL"] for name in ("serving", "init"))
    assert login.startswith(f"postgresql://{roles.SERVING}:")
    assert owner.startswith("postgresql://warehouse:"), "`evergreen client add` is run in its place"
    assert service["volumes"] == ["serving:/var/lib/evergreen"]
    assert [n for n, s in SERVICES.items() if any("serving:" in v for v in s.get("volumes", []))] == [
        "serving"
    ]
    assert set(service["depends_on"]) == {"init"}
    # MLflow and PostgreSQL are in the same network; brokers, stores and Airflow's own are not its business.
    assert service["networks"] == ["data", "metrics", "front"]
    assert "container_name" not in service, "there could be no second one"
    assert f":{SERVING_PORT}/healthz" in service["healthcheck"]["test"][-1]
    assert service["command"][-2:] == ["--port", str(SERVING_PORT)]


def test_only_the_pages_are_published_and_on_loopback_unless_asked():
    published = {name: s["ports"] for name, s in SERVICES.items() if s.get("ports")}
    assert set(published) == {"airflow-apiserver", "mlflow", "serving", "mail", "prometheus", "grafana"}
    for ports in published.values():
        assert all(port.startswith(("127.0.0.1:", "${EVERGREEN_BIND:-127.0.0.1}:")) for port in ports)
    assert all(
        STACK["networks"][name].get("internal") for name in ("data", "broker", "inside", "store", "metrics")
    )


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_each_service_has_limits_and_comes_back(name):
    service = SERVICES[name]
    assert service["mem_limit"]
    assert service["networks"]
    assert not service.get("privileged")
    if name in ("init", "demo", "store-folders"):
        assert service["restart"] == "no"
        return
    assert service["restart"] == "unless-stopped"
    check = service["healthcheck"]
    assert {"test", "interval", "timeout", "retries", "start_period", "start_interval"} <= set(check)


@pytest.mark.parametrize("name", [*sorted(OURS), *METRICS, "store"])
def test_ours_the_metrics_and_the_store_run_with_few_rights(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "USER 50000:0" in (REPOSITORY / "Dockerfile").read_text()


def test_metrics_run_only_where_they_are_asked_for_and_airflow_sends_to_them_only_then():
    assert {name for name, s in SERVICES.items() if s.get("profiles") == ["metrics"]} == set(METRICS)
    for name in METRICS:
        image = SERVICES[name]["image"]
        assert name == "exporter" or re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+", image), image
        # Nobody can be made to wait for what does not run.
        assert not any(
            name in s.get("depends_on", {}) for other, s in SERVICES.items() if other not in METRICS
        )
    sent = SERVICES["airflow-worker"]["environment"]
    assert sent["AIRFLOW__METRICS__STATSD_ON"] == "${AIRFLOW_STATSD:-False}"
    assert sent["AIRFLOW__METRICS__STATSD_HOST"] in METRICS
    assert (
        f"--statsd.listen-udp=:{sent['AIRFLOW__METRICS__STATSD_PORT']}"
        in SERVICES["statsd-exporter"]["command"]
    )


def test_the_store_runs_only_where_it_is_chosen_and_those_who_use_it_reach_it():
    assert {name for name, s in SERVICES.items() if s.get("profiles") == ["s3"]} == set(STORE)
    store, init = SERVICES["store"], SERVICES["init"]
    assert re.fullmatch(r"[a-z/-]+:v\d+\.\d+\.\d+", store["image"])
    assert store["user"] == "50000:0", (
        "not its image's own, root; the Dockerfile gives the folder to this one"
    )
    # Nobody can be made to wait for what does not run.
    assert init["depends_on"]["store"] == {"condition": "service_healthy", "required": False}
    assert not any("store" in s.get("depends_on", {}) for name, s in SERVICES.items() if name != "init")
    users = {name for name, s in SERVICES.items() if "AWS_SECRET_ACCESS_KEY" in s.get("environment", {})}
    assert users == {"airflow-worker", "mlflow", "init", "demo"}
    assert {name for name, s in SERVICES.items() if "store" in s["networks"]} == {*users, *STORE}
    assert {name for name, s in SERVICES.items() if "STORE_ROOT_PASSWORD" in str(s)} == {"store", "init"}
    folders = SERVICES["store-folders"]
    assert folders["volumes"] == store["volumes"] == ["store:/var/lib/store"]
    assert folders["command"][2:] == [store["command"][1], store["environment"]["VGW_IAM_DIR"]]
    assert (
        f"http://127.0.0.1{store['environment']['VGW_PORT']}{store['environment']['VGW_HEALTH']}"
        in store["healthcheck"]["test"]
    )


def test_what_chooses_the_store_is_passed_on_to_those_who_use_it():
    chosen = STORES["s3"]
    assert chosen["AWS_ENDPOINT_URL"] == f"http://store{SERVICES['store']['environment']['VGW_PORT']}"
    assert chosen["AWS_ACCESS_KEY_ID"] != SERVICES["store"]["environment"]["ROOT_ACCESS_KEY"] == ROOT
    assert set(chosen) <= {name for name, _ in USED}
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        for service in ("airflow-worker", "mlflow", "init", "demo"):
            assert SERVICES[service]["environment"][name] == f"${{{name}:-}}"
    places = [value for value in chosen.values() if value.startswith("s3://")]
    assert len(places) == len(set(places)) == 4
    assert all(value.startswith(f"s3://{chosen['STORE_BUCKET']}/") for value in places)


def test_make_keeps_the_profiles_of_env_beside_its_own(tmp_path):
    (tmp_path / ".env").write_text("COMPOSE_PROFILES=s3,metrics\n")
    for name in ("include", "Makefile"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    for target, own in (("compose-up", ""), ("compose-demo", "--profile dev ")):
        done = subprocess.run(
            ["make", "--dry-run", target, "COMPOSE=engine"],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert (
            f"engine -f docker-compose.yaml --profile s3 --profile metrics {own}up --detach" in done.stdout
        ), target


def test_prometheus_asks_what_listens_and_grafana_lets_nobody_in_without_a_login():
    metrics = REPOSITORY / "deploy" / "metrics"
    jobs = yaml.safe_load((metrics / "prometheus.yml").read_text())["scrape_configs"]
    asked = [target for job in jobs for group in job.get("static_configs", ()) for target in group["targets"]]
    assert asked == [f"exporter:{PORT}", "statsd-exporter:9102", "127.0.0.1:9090"]
    found = [group for job in jobs for group in job.get("dns_sd_configs", ())]
    assert found == [{"names": ["serving"], "type": "A", "port": SERVING_PORT}]
    for name in ("exporter", "statsd-exporter", "serving", "prometheus"):
        assert "metrics" in SERVICES[name]["networks"]
    source = yaml.safe_load((metrics / "grafana/provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ][0]
    assert source["url"] == "http://prometheus:9090"
    grafana = SERVICES["grafana"]["environment"]
    assert grafana["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert grafana["GF_SECURITY_ADMIN_PASSWORD"] == "${GRAFANA_PASSWORD:?run make compose-env}"
    mounted = {
        path for name in METRICS for path in SERVICES[name].get("volumes", []) if path.startswith("./")
    }
    assert all((REPOSITORY / path.split(":")[0]).exists() and path.endswith(":ro") for path in mounted)


def test_a_worker_may_end_its_tasks_before_it_is_killed_and_no_task_is_delivered_twice_meanwhile():
    worker = SERVICES["airflow-worker"]
    assert worker["stop_grace_period"] == "${WORKER_GRACE:-10m}"
    timeout = int(worker["environment"]["AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"])
    assert timeout >= 6 * 3600, "the longest task may take four hours"


def test_only_init_knows_the_administrators_password():
    for name, service in SERVICES.items():
        told = "POSTGRES_PASSWORD" in service.get("environment", {})
        assert told is (name in ("postgres", "init")), name


@pytest.mark.parametrize("name", sorted(OURS))
def test_what_a_service_runs_exists(name):
    program, *arguments = OURS[name]["command"]
    if program == "mkdir":
        return
    if program == "evergreen":
        assert arguments[0] in {name for group in COMMANDS.values() for name in group}
        return
    assert (program, arguments) in [
        ("airflow", [part]) for part in ("api-server", "scheduler", "dag-processor", "triggerer")
    ] + [("airflow", ["celery", "worker"])]


def test_every_setting_of_airflow_exists():
    from airflow.configuration import conf

    known = conf.configuration_description
    for name in SERVICES["airflow-worker"]["environment"]:
        if name.startswith("AIRFLOW__"):
            section, _, option = name.removeprefix("AIRFLOW__").lower().partition("__")
            # Celery's sections come with its provider, which is in the image alone.
            if not section.startswith("celery"):
                assert option in known[section]["options"], name


def test_the_image_holds_what_it_is_said_to_hold_and_nothing_else():
    sent = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert "*" in sent
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)
    for source in " ".join(copied).split():
        assert (REPOSITORY / source).exists(), source
        assert any(source.startswith(kept[1:]) for kept in sent if kept.startswith("!")), source
