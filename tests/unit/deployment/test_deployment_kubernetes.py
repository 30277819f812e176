"""deploy/helm and deploy/kubernetes, as far as they can be judged without a cluster; docs/kubernetes.md says what else was checked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from evergreen import settings
from evergreen.cli import COMMANDS
from evergreen.deployment import variables
from evergreen.serving.command import PORT as SERVING_PORT
from evergreen.settings import Variable

REPOSITORY = Path(__file__).resolve().parents[3]
DEPLOY = REPOSITORY / "deploy"
VALUES, CELERY = (
    yaml.safe_load((DEPLOY / "helm" / name).read_text()) for name in ("values.yaml", "values-celery.yaml")
)
BESIDE = [
    yaml.safe_load((DEPLOY / "kubernetes" / f / "kustomization.yaml").read_text()) for f in ("", "migrate")
]
MANIFESTS = [
    document
    for path in sorted((DEPLOY / "kubernetes").rglob("*.yaml"))
    if path.name != "kustomization.yaml"
    for document in yaml.safe_load_all(path.read_text())
]
PODS = {m["metadata"]["name"]: m["spec"]["template"]["spec"] for m in MANIFESTS if "template" in m["spec"]}
PAGE = (REPOSITORY / "docs" / "kubernetes.md").read_text()
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
DEPLOYMENTS = {v.name for v in vars(variables).values() if isinstance(v, Variable)}
# Of Airflow's connections, those that the DAGs and the DAG bundle ask for.
CONNECTIONS = {
    "EVERGREEN_GIT",
    "EVERGREEN_WAREHOUSE_INGEST",
    "EVERGREEN_WAREHOUSE_MODEL",
    "EVERGREEN_MLFLOW",
    "EVERGREEN_SMTP",
}
OF_LIBRARIES = {"OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"}


def inside(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in a document, at whatever depth."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from inside(each)


def environment(value: Any) -> list[dict[str, Any]]:
    return [m for m in inside(value) if re.fullmatch(r"[A-Z][A-Z0-9_]+", str(m.get("name", "")))]


def overlaid(base: Any, over: Any) -> Any:
    """As Helm does it: mappings are merged, all else is replaced."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    return base | {name: overlaid(base.get(name), value) for name, value in over.items()}


BOTH = overlaid(VALUES, CELERY)


def unknown(values: dict[str, Any], keys: dict[str, Any], path: str = "") -> list[str]:
    found = []
    for name, value in values.items():
        here = f"{path}.{name}".lstrip(".")
        if name not in keys:
            found.append(here)
        elif keys[name] is not None and isinstance(value, dict):
            found += unknown(value, keys[name], here)
    return found


@pytest.mark.parametrize("values", [VALUES, CELERY], ids=["values", "values-celery"])
def test_every_key_is_one_of_the_chart(values):
    keys = yaml.safe_load(Path(__file__).with_name("airflow_chart.yaml").read_text())
    assert unknown(values, keys) == []
    assert unknown({"workers": {"celery": {"kedaa": {}}, "replicas": 1}}, keys) == [
        "workers.celery.kedaa",
        "workers.replicas",
    ]


def test_image_and_versions_are_those_of_the_project():
    version = re.search(r'^version = "(.+)"', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)[1]
    image = {"newName": VALUES["defaultAirflowRepository"], "newTag": VALUES["defaultAirflowTag"]}
    assert image["newTag"] == version
    for kustomization in BESIDE:
        assert kustomization["images"] == [{"name": "evergreen", **image}]
    locked = re.search(
        r"^apache-airflow==(\S+)", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE
    )[1]
    assert VALUES["airflowVersion"] == locked
    assert f"--version {re.search(r'chart (1[.]22[.]0)', PAGE)[1]}" in PAGE
    assert {c["image"] for pod in PODS.values() for c in pod["containers"]} == {"evergreen"}


def test_the_image_holds_what_the_values_ask_of_airflow():
    locked = (REPOSITORY / "requirements-image.txt").read_text()
    assert VALUES["executor"] == "KubernetesExecutor"
    (bundle,) = VALUES["dagProcessor"]["dagBundleConfigList"]
    assert bundle["classpath"].startswith("airflow.providers.git.")
    for provider in ("cncf-kubernetes", "celery", "git", "fab"):
        assert re.search(rf"^apache-airflow-providers-{provider}==", locked, re.MULTILINE), provider
    assert re.search(r"^statsd==", locked, re.MULTILINE)
    assert re.search(r"apt-get install .*\bgit\b", DOCKERFILE), "the provider calls git"


def test_every_manifest_is_named_by_its_kustomization():
    for folder, kustomization in zip(("", "migrate"), BESIDE, strict=True):
        there = {p.name for p in (DEPLOY / "kubernetes" / folder).glob("*.yaml")} - {"kustomization.yaml"}
        assert set(kustomization["resources"]) == there


def test_the_exporter_sees_the_volume_of_the_tasks_and_not_the_nodes_disk():
    (pod,) = (
        p for p in PODS.values() if any("exporter" in c["args"] for c in p["containers"] if "args" in c)
    )
    claims = {v["name"]: v["persistentVolumeClaim"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
    (container,) = pod["containers"]
    (home,) = re.findall(r"EVERGREEN_HOME=(\S+)", DOCKERFILE)
    (mount,) = (m for m in container["volumeMounts"] if m["mountPath"] == home)
    assert claims[mount["name"]] == {"claimName": "evergreen", "readOnly": True}


def test_a_pod_that_answers_keeps_its_versions_and_is_ready_without_the_warehouse():
    (service,) = (m for m in MANIFESTS if m["kind"] == "StatefulSet")
    (container,) = service["spec"]["template"]["spec"]["containers"]
    (kept,) = service["spec"]["volumeClaimTemplates"]
    (home,) = re.findall(r"EVERGREEN_HOME=(\S+)", DOCKERFILE)
    assert {"name": kept["metadata"]["name"], "mountPath": home} in container["volumeMounts"]
    (login,) = (e for e in container["env"] if e["name"] == settings.WAREHOUSE.name)
    assert login["valueFrom"]["secretKeyRef"] == {"name": "warehouse", "key": "serving"}
    assert container["ports"] == [{"name": "http", "containerPort": SERVING_PORT}]
    # The page of readiness asks no server: a warehouse that is away takes no pod out of service.
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_nothing_secret_is_written_down():
    for document in (VALUES, CELERY, *MANIFESTS):
        assert document.get("kind") != "Secret"
        for each in inside(document):
            assert not {"password", "pass", "stringData", "fernetKey", "apiSecretKey", "jwtSecret"} & set(
                each
            )
            assert not {"metadataConnection", "brokerUrl"} & set(each)
        for each in environment(document):
            secret = re.search(r"PASSWORD|SECRET|KEY|TOKEN|CONN_|DATABASE|WAREHOUSE", each["name"])
            assert ("valueFrom" in each) is bool(secret), each["name"]
            assert "://" not in each.get("value", "") or "@" not in each["value"]


def secrets(document: Any) -> set[tuple[str, str]]:
    """Secrets that are asked for, each with the key in it."""
    fixed = {
        "fernetKeySecretName": "fernet-key", "apiSecretKeySecretName": "api-secret-key", "jwtSecretName": "jwt-secret",
        "metadataSecretName": "connection", "brokerUrlSecretName": "connection", "passwordSecretName": "password",
    }  # fmt: skip
    found = set()
    for each in inside(document):
        found |= {(each[name], key) for name, key in fixed.items() if name in each}
        if ref := each.get("secretKeyRef"):
            found.add((ref["name"], ref["key"]))
    return found


def test_the_page_makes_every_secret_that_is_asked_for():
    asked = secrets([VALUES, CELERY, *MANIFESTS])
    made = {
        (command.split()[0], key)
        for command in PAGE.replace("\\\n", " ").split("create secret generic ")[1:]
        for key in re.findall(r"--from-literal=([\w-]+)=", command.partition("\n")[0])
    }
    assert len(asked) >= 14
    assert asked <= made
    assert made - asked <= {("object-store", "AWS_ACCESS_KEY_ID"), ("object-store", "AWS_SECRET_ACCESS_KEY")}


def test_every_variable_is_known_to_evergreen_or_to_airflow():
    known = (
        {v.name for v in settings.ALL}
        | DEPLOYMENTS
        | OF_LIBRARIES
        | {f"AIRFLOW_CONN_{c}" for c in CONNECTIONS}
    )
    used = {each["name"] for document in (VALUES, CELERY, *MANIFESTS) for each in environment(document)}
    assert used <= known
    assert {f"AIRFLOW_CONN_{c}" for c in CONNECTIONS} <= used
    assert settings.SPECS.name not in DOCKERFILE, "it would win over the specs of the run's commit"


def test_every_setting_of_airflow_exists():
    from airflow.configuration import conf

    for section, options in {**VALUES["config"], **CELERY["config"]}.items():
        # These sections come with providers, which are in the image alone.
        if not section.startswith(("celery", "kubernetes")):
            assert set(options) <= set(conf.configuration_description[section]["options"]), section
        # Helm reads a number as a float, and a long one is then written with an exponent.
        assert all(isinstance(v, str) or v == 2 for v in options.values()), section


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        (VALUES, ["dagProcessor", "scheduler", "triggerer", "workers.kubernetes", "apiServer"]),
        (BOTH, ["dagProcessor", "scheduler", "triggerer", "workers.celery", "apiServer"]),
    ],
    ids=["kubernetes", "celery"],
)
def test_nothing_of_airflows_own_image_is_run_and_each_part_has_limits(values, parts):
    for path in parts:
        part = values
        for name in path.split("."):
            part = part[name]
        assert part["resources"]["limits"]["memory"], path
        assert part["resources"]["requests"]["memory"], path
        assert part["serviceAccount" if path != "scheduler" else "resources"], path
        if path in ("workers.kubernetes", "apiServer"):  # no probe, and one by HTTP
            continue
        assert part["logGroomerSidecar"] == {"enabled": False}, path
        for probe in ("livenessProbe", "startupProbe"):
            if probe == "livenessProbe" or path == "scheduler":
                assert "/entrypoint" not in " ".join(part[probe]["command"])


def test_pods_run_with_few_rights():
    assert "USER 50000:0" in DOCKERFILE
    pod, container = VALUES["securityContexts"]["pod"], VALUES["securityContexts"]["containers"]
    for spec in PODS.values():
        assert spec["automountServiceAccountToken"] is False
        assert (
            pod.items()
            >= spec["securityContext"].items()
            >= {"runAsUser": 50000, "runAsNonRoot": True}.items()
        )
        assert (
            pod["seccompProfile"] == spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        )
        for each in spec["containers"]:
            assert each["securityContext"] == container
            assert each["resources"]["limits"]["memory"]
    assert container["readOnlyRootFilesystem"] is True
    assert {m["mountPath"] for m in VALUES["volumeMounts"]} == {"/tmp", "/opt/airflow"}
    for values, scheduler in (
        (VALUES, None),
        (BOTH, False),
    ):  # who starts pods needs a token; nobody else does
        told = {
            name: part["serviceAccount"].get("automountServiceAccountToken")
            for name, part in (values | values["workers"]).items()
            if isinstance(part, dict) and "serviceAccount" in part
        }
        assert told.pop("scheduler", None) is scheduler
        assert set(told.values()) == {False}


def test_only_tasks_and_what_tells_of_them_know_the_connections():
    def told(values: dict[str, Any]) -> set[str]:
        parts = values | {f"workers.{name}": part for name, part in values["workers"].items()}
        del parts["workers"]
        return {
            name
            for name, part in parts.items()
            if any("AIRFLOW_CONN" in e["name"] for e in environment(part))
        }

    assert told(BOTH) == {"dagProcessor", "workers.kubernetes", "workers.celery"}


def test_a_worker_may_end_its_tasks_and_no_task_is_delivered_twice_meanwhile():
    limits = re.findall(r"execution_timeout=timedelta\(hours=(\d+)\)", "".join(
        path.read_text() for path in (REPOSITORY / "include" / "evergreen_airflow").rglob("*.py")
    ))  # fmt: skip
    longest = max(map(int, limits)) * 3600
    assert longest >= 4 * 3600
    grace = CELERY["workers"]["celery"]["terminationGracePeriodSeconds"]
    assert longest < grace < int(CELERY["config"]["celery_broker_transport_options"]["visibility_timeout"])


def test_the_bundle_is_the_repository_and_its_connection_is_told():
    (bundle,) = VALUES["dagProcessor"]["dagBundleConfigList"]
    assert (REPOSITORY / bundle["kwargs"]["subdir"] / "train.py").exists()
    assert bundle["kwargs"]["git_conn_id"].upper() in CONNECTIONS
    assert "gitSync" not in str(VALUES)


@pytest.mark.parametrize("name", sorted(PODS))
def test_what_a_pod_runs_exists(name):
    for container in PODS[name]["containers"]:
        program, command, *_ = container["args"]
        assert program == "evergreen"
        assert command in {name for group in COMMANDS.values() for name in group}
        writable = {m["mountPath"] for m in container["volumeMounts"]}
        assert "/tmp" in writable
