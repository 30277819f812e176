"""What is answered, and what is refused with which words: by the app itself, with versions that were really fitted."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import msgspec
import pytest
from serving_scene import EXAMPLE, KEY

from evergreen.serving import app, kept, predict, service
from evergreen.serving.clients import sha256
from evergreen.serving.kept import Client


def test_a_record_gets_the_prediction_of_the_champion_and_its_version(kept_scene, with_service):
    async def steps(running):
        found = (await running.ask({"record": EXAMPLE})).json()
        assert found.pop("request_id")
        assert found == {"model": "rides", "version": "1", "prediction": kept_scene.predicted("1", EXAMPLE)}

    with_service(steps)


def test_a_batch_is_answered_in_its_order_beyond_what_is_predicted_at_once(kept_scene, with_service):
    records = [{"hour": i % 24, "x": i / 100, "kind": ("dry", "wet", None)[i % 3]} for i in range(250)]

    async def steps(running):
        found = (await running.ask({"records": records})).json()["predictions"]
        assert [one["prediction"] for one in found] == [kept_scene.predicted("1", r) for r in records]
        assert {one["version"] for one in found} == {"1"}

    with_service(steps)


def test_everything_that_is_wrong_is_told_at_once_by_record_and_field(kept_scene, with_service):
    records = [
        {"hour": "8", "x": True, "kind": 1.5}, {"hour": 8, "kind": "dry"}, {"hour": 8, "x": 1, "kind": "dry", "kinds": "wet"},
        EXAMPLE, {**EXAMPLE, "ts": "soon"}, *[EXAMPLE] * 150, {"hour": [], "x": {}, "kind": []},
    ]  # fmt: skip

    async def steps(running):
        answer = await running.ask({"records": records})
        told = {(p["record"], p["field"]): p["problem"] for p in answer.json()["problems"]}
        assert answer.status_code == 422
        assert set(told) == {
            (0, "hour"), (0, "x"), (0, "kind"), (1, "x"), (2, "kinds"), (4, "ts"), (155, "hour"), (155, "x"), (155, "kind"),
        }  # fmt: skip
        assert told[0, "hour"] == 'is "8"; write a number, or null where it is not known'
        assert told[1, "x"] == "is missing; write null where it is not known"
        assert told[2, "kinds"] == "is no feature of the model; did you mean kind?"
        assert "no time" in told[4, "ts"]

    with_service(steps)


@pytest.mark.parametrize(("body", "status", "text"), [
    (b"", 400, "no JSON"), (b"{", 400, "no JSON"), (b'{"record": NaN}', 400, "no JSON"), (b"\xff", 400, "no JSON"),
    (b"[" * 100_000, 400, "no JSON"), (b'{"record": {"hour": 1e999, "x": 1, "kind": "dry"}}', 400, "no JSON"),
    (b"[]", 422, "write an object"), (b"5", 422, "write an object"), (b"null", 422, "write an object"),
    (b"{}", 422, "exactly one"), ({"record": EXAMPLE, "records": [EXAMPLE]}, 422, "exactly one"),
    ({"recrod": EXAMPLE}, 422, "no field recrod"), ({"record": EXAMPLE, "more": 1}, 422, "no field more"),
    ({"record": []}, 422, "is an object"), ({"records": {}}, 422, "a list of objects"), ({"records": [1]}, 422, "a list of objects"),
    ({"records": []}, 422, "1 to 1,000"), ({"records": [EXAMPLE] * 1001}, 422, "1 to 1,000"), ({"record": EXAMPLE, "ranges": 1}, 422, "true or false"),
    ({"record": {}}, 422, "3 values"), ({"record": {**EXAMPLE, "hour": "inf"}}, 422, "1 value is"),
])  # fmt: skip
def test_a_request_that_is_none_is_refused_with_what_is_wrong(kept_scene, with_service, body, status, text):
    async def steps(running):
        answer = await running.ask(body if isinstance(body, bytes) else json.dumps(body))
        assert (answer.status_code, text in answer.json()["error"]) == (status, True), answer.text
        assert (await running.ask({"record": EXAMPLE})).status_code == 200

    with_service(steps)


def test_a_body_that_is_too_large_is_not_read(kept_scene, with_service):
    async def parts():
        for _ in range(64):
            yield b" " * (64 << 10)

    async def steps(running):
        whole = await running.ask(b" " * (app.MOST_BYTES + 1))
        streamed = await running.client.post(
            "/models/rides/predict", headers=running.headers(), content=parts()
        )
        assert [a.status_code for a in (whole, streamed)] == [413, 413]

    with_service(steps)


def test_a_body_that_does_not_come_is_not_waited_for(kept_scene, with_service, monkeypatch):
    monkeypatch.setattr(app, "BODY_S", 0.2)

    async def steps(running):
        front = app.Front(running.service)
        await running.service.stop()
        await running.service.start()
        sent = []

        async def receive():
            await asyncio.sleep(60)

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/models/rides/predict",
            "headers": [(b"authorization", f"Bearer {KEY}".encode()), (b"content-length", b"10")],
        }  # fmt: skip
        await asyncio.wait_for(front(scope, receive, send), 5)
        assert (sent[0]["status"], (b"connection", b"close") in sent[0]["headers"]) == (408, True)

    with_service(steps)


def test_what_the_model_does_not_know_is_taken_as_missing_and_told(kept_scene, with_service):
    record = {"hour": 1e39, "x": -(10**400), "kind": "fog"}

    async def steps(running):
        found = (await running.ask({"record": record})).json()
        assert found["prediction"] == kept_scene.predicted("1", {"hour": None, "x": None, "kind": None})
        assert [p["field"] for p in found["missing"]] == ["hour", "x", "kind"]
        assert '"fog" is not known to the model (dry, snow, wet)' in found["missing"][2]["problem"]
        again = (await running.ask({"record": record, "ranges": True})).json()
        assert (again["prediction"], again["beyond"]) == (found["prediction"], [])

    with_service(steps)


def test_numbers_beyond_what_it_learnt_are_told_on_wish(kept_scene, with_service):
    async def steps(running):
        body = {"records": [EXAMPLE, {**EXAMPLE, "x": -4.5}]}
        assert "beyond" not in (await running.ask(body)).json()
        (told,) = (await running.ask({**body, "ranges": True})).json()["beyond"]
        assert (told["record"], told["text"]) == (1, "x -4.5 is beyond what it learnt, -3 to 3")

    with_service(steps)


def test_an_explanation_adds_up_to_the_prediction(kept_scene, with_service):
    async def steps(running):
        found = (await running.ask({"record": EXAMPLE}, "explain")).json()
        told = found["explanation"]
        assert set(told["contributions"]) == {"hour", "x", "kind"}
        assert sum(told["contributions"].values()) + told["bias"] == pytest.approx(
            kept_scene.predicted("1", EXAMPLE), rel=1e-5
        )
        assert (await running.ask({"records": [EXAMPLE] * 101}, "explain")).status_code == 422

    with_service(steps)


def test_nobody_is_answered_without_a_key_and_a_client_only_for_its_models(kept_scene, with_service):
    kept_scene.clients += (Client("other", sha256(b"other"), ("wetness",), 100.0),)
    kept_scene.keep(kept_scene.model())

    async def steps(running):
        for key, status in ((None, 401), ("wrong", 401), (f"{KEY} ", 200), ("other", 403), (KEY, 200)):
            running.key = key
            assert (await running.ask({"record": EXAMPLE})).status_code == status, key
            assert (await running.get("/models/rides")).status_code == status, key
        running.key = "other"
        assert (await running.get("/models")).json() == {"models": []}
        assert "/models/rides" not in (await running.get("/openapi.json")).json()["paths"]
        running.key = None
        for path in ("/models", "/openapi.json"):
            assert (await running.get(path)).status_code == 401
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await running.get(path)).status_code == 200

    with_service(steps)


def test_a_client_that_asks_too_often_is_told_when_to_come_again(kept_scene, with_service):
    kept_scene.clients = (Client("slow", sha256(KEY.encode()), ("*",), 5.0),)
    kept_scene.keep(kept_scene.model())

    async def steps(running):
        answers = [await running.ask({"record": EXAMPLE}) for _ in range(15)]
        assert Counter(a.status_code for a in answers) == {200: 10, 429: 5}
        assert answers[-1].headers["retry-after"] == "1"
        await asyncio.sleep(0.3)
        assert (await running.ask({"record": EXAMPLE})).status_code == 200

    with_service(steps)


def test_a_model_that_is_not_served_names_those_that_are(kept_scene, with_service):
    async def steps(running):
        answer = await running.ask({"record": EXAMPLE}, model="ride")
        assert (answer.status_code, "there is rides" in answer.json()["error"]) == (404, True)
        assert (await running.client.get("/nothing")).status_code == 404

    with_service(steps)


def test_another_champion_answers_between_two_requests_and_a_broken_one_never(kept_scene, with_service):
    async def until(running, version):
        for _ in range(100):
            if (await running.ask({"record": EXAMPLE})).json()["version"] == version:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(version)

    async def steps(running):
        await until(running, "1")
        kept_scene.add("2")
        kept_scene.keep(kept_scene.model("2"))
        await until(running, "2")
        broken = kept_scene.add("3")
        (kept.versions_folder() / broken.folder / kept.MODEL_FILE).write_bytes(b"no model")
        kept_scene.keep(kept_scene.model("3"))
        await asyncio.sleep(0.6)
        found = await running.ask({"record": EXAMPLE})
        assert (found.json()["version"], found.json()["prediction"]) == (
            "2",
            kept_scene.predicted("2", EXAMPLE),
        )
        ready = (await running.get("/readyz")).json()
        assert (ready["ready"], "version 3 cannot be served" in ready["problems"]["rides"]) == (True, True)
        kept.state_file().write_text("{")
        await asyncio.sleep(0.4)
        await until(running, "2")
        kept_scene.keep(kept_scene.model("1"))
        await until(running, "1")

    with_service(steps)


def test_a_version_that_could_not_be_loaded_is_tried_again(kept_scene, with_service, monkeypatch):
    monkeypatch.setattr(service, "AGAIN_S", 0.5)
    version = kept_scene.add("2")
    file = kept.versions_folder() / version.folder / kept.MODEL_FILE
    whole = file.read_bytes()
    file.write_bytes(b"no model")
    kept_scene.keep(kept_scene.model("2"))

    async def steps(running):
        ready = await running.get("/readyz")
        assert (ready.status_code, ready.json()["because"]) == (503, "not answered for: rides")
        file.write_bytes(whole)
        for _ in range(100):
            answer = await running.ask({"record": EXAMPLE})
            if answer.status_code == 200:
                break
            await asyncio.sleep(0.05)
        assert answer.json()["version"] == "2"
        assert (await running.get("/readyz")).json()["problems"] == {}

    with_service(steps)


def test_a_share_of_the_keys_meets_the_new_champion_and_always_the_same(kept_scene, with_service):
    kept_scene.add("2")
    keys = [{**EXAMPLE, "ts": f"2025-06-{1 + i // 24:02d}T{i % 24:02d}:00:00Z"} for i in range(700)]

    async def versions(running, share):
        kept_scene.keep(kept_scene.model("2", former="1", share=share))
        await asyncio.sleep(0.4)
        found = (await running.ask({"records": keys})).json()["predictions"]
        for one in found:
            assert one["prediction"] == kept_scene.predicted(one["version"], EXAMPLE)
        return [one["version"] for one in found]

    async def steps(running):
        shadow, tenth, half, again = [await versions(running, share) for share in (0.0, 0.1, 0.5, 0.5)]
        assert set(shadow) == {"1"}
        assert 40 < tenth.count("2") < 105
        assert 290 < half.count("2") < 410
        assert half == again
        # Who has met the new one goes on meeting it.
        assert all(later == "2" for early, later in zip(tenth, half, strict=True) if early == "2")
        elsewhere = {**keys[0], "ts": "2025-06-01T02:00:00+02:00"}
        assert (await running.ask({"record": elsewhere})).json()["version"] == half[0]

    with_service(steps)


def test_both_versions_are_kept_while_they_share(kept_scene, with_service):
    kept_scene.add("2")
    kept_scene.keep(kept_scene.model("2", former="1", share=0.0))

    async def steps(running):
        logged = []
        running.service.spool.add = logged.append
        await running.ask({"record": {**EXAMPLE, "ts": "2025-06-01T00:00:00Z"}})
        (made,) = logged[0].records
        assert (made.version, made.prediction) == ("1", kept_scene.predicted("1", EXAMPLE))
        assert (made.beside, made.beside_prediction) == ("2", kept_scene.predicted("2", EXAMPLE))
        assert (made.key, made.event_time) == ('["2025-06-01T00:00:00+00:00"]', "2025-06-01T00:00:00+00:00")

    with_service(steps)


@pytest.mark.parametrize(("changes", "features"), [
    ({}, {"hour": 8.0, "x": 0.5, "kind": "dry"}), ({"sensitive": ("x",)}, {"hour": 8.0, "kind": "dry"}), ({"logged": 0.0}, None),
])  # fmt: skip
def test_features_are_written_down_as_far_as_the_spec_allows(kept_scene, with_service, changes, features):
    kept_scene.keep(msgspec.structs.replace(kept_scene.model(), **changes))

    async def steps(running):
        logged = []
        running.service.spool.add = logged.append
        await running.ask({"record": {**EXAMPLE, "ts": "2025-06-01T00:00:00Z"}})
        (made,) = logged[0].records
        told = made.features and dict(zip(logged[0].features, made.features, strict=True))
        assert told == features
        assert (logged[0].client, logged[0].model, logged[0].source) == ("tester", "rides", "record")

    with_service(steps)


def test_a_key_is_told_whole_or_not_at_all(kept_scene, with_service):
    kept_scene.keep(msgspec.structs.replace(kept_scene.model(), key={"station": "integer"}))

    async def steps(running):
        for more, status in (
            ({}, 200),
            ({"station": 5}, 422),
            ({"ts": "2025-06-01"}, 422),
            ({"station": 5, "ts": "2025-06-01"}, 200),
        ):
            assert (await running.ask({"record": {**EXAMPLE, **more}})).status_code == status, more

    with_service(steps)


def test_too_many_at_once_are_sent_away(kept_scene, with_service, monkeypatch):
    monkeypatch.setattr(app, "MOST_AT_ONCE", 3)

    async def steps(running):
        many = [running.ask({"records": [EXAMPLE] * 1000}) for _ in range(8)]
        found = Counter(a.status_code for a in await asyncio.gather(*many))
        assert found == {200: 3, 503: 5}
        assert (await running.ask({"record": EXAMPLE})).status_code == 200

    with_service(steps)


def test_nothing_kept_is_not_ready_and_says_why(home, with_service):
    async def steps(running):
        running.key = None
        answer = await running.get("/readyz")
        assert (answer.status_code, "run its training first" in answer.json()["because"]) == (503, True)
        assert (await running.get("/healthz")).status_code == 200

    with_service(steps)


def test_a_model_that_cannot_be_fetched_is_not_ready_and_asking_for_it_says_why(kept_scene, with_service):
    state = kept.State(
        {"rides": kept_scene.model()}, kept_scene.clients, {"wetness": "MLflow does not answer"}
    )
    kept.write(kept.state_file(), state)

    async def steps(running):
        ready = await running.get("/readyz")
        assert (ready.status_code, ready.json()["because"]) == (503, "not answered for: wetness")
        answer = await running.ask({"record": EXAMPLE}, model="wetness")
        assert (answer.status_code, answer.json()["error"]) == (503, "MLflow does not answer")
        assert (await running.ask({"record": EXAMPLE})).status_code == 200

    with_service(steps)


def test_metrics_count_what_was_answered_and_refused(kept_scene, with_service):
    async def steps(running):
        await running.ask({"records": [EXAMPLE, {**EXAMPLE, "kind": "fog"}]})
        await running.ask({"record": {}})
        text = (await running.get("/metrics")).text
        for line in (
            'evergreen_serving_requests_total{model="rides",result="ok",version="1"} 1.0',
            'evergreen_serving_requests_total{model="rides",result="refused",version=""} 1.0',
            'evergreen_serving_records_total{model="rides",version="1"} 2.0',
            'evergreen_serving_missing_values_total{feature="kind",model="rides"} 1.0',
            'evergreen_serving_share{model="rides",version="1"} 1.0',
            'evergreen_serving_request_seconds_count{model="rides",version="1"} 1.0',
            'evergreen_serving_up{part="companion"} 0.0',
            "evergreen_serving_in_flight 0.0",
        ):
            assert f"\n{line}\n" in text, line
        made = {(m.model, m.version): m for m in running.service.traffic.minutes({"rides": 3}, last=True)}
        assert (
            made["rides", "1"].requests,
            made["rides", "1"].records,
            made["rides", ""].refused,
            made["rides", ""].lost,
        ) == (1, 2, 1, 3)
        assert 0 < made["rides", "1"].p50_ms <= made["rides", "1"].p99_ms

    with_service(steps)


def test_the_document_is_of_openapi_and_its_example_is_answered(kept_scene, with_service):
    async def steps(running):
        document = (await running.get("/openapi.json")).json()
        post = document["paths"]["/models/rides/predict"]["post"]
        content = post["requestBody"]["content"]["application/json"]
        assert set(content["schema"]["oneOf"][0]["properties"]["record"]["properties"]) == {
            "hour",
            "x",
            "kind",
            "ts",
        }
        assert (await running.ask(content["example"])).status_code == 200
        assert (await running.get("/models/rides")).json()["example"] == content["example"]

    with_service(steps)


def test_predict_reads_no_more_than_it_answers():
    with pytest.raises(predict.RefusedError, match="1 to 5"):
        predict.read(json.dumps({"records": [{}] * 6}).encode(), 5)


def tensors(records):
    kinds = {"hour": "FP64", "x": "FP64", "kind": "BYTES"}
    return [
        {"name": n, "datatype": k, "shape": [len(records)], "data": [r[n] for r in records]}
        for n, k in kinds.items()
    ]


def test_the_open_inference_protocol_gets_the_same_predictions(kept_scene, with_service):
    records = [EXAMPLE, {"hour": 3, "x": None, "kind": "fog"}]

    async def steps(running):
        async def infer(body):
            return await running.client.post("/v2/models/rides/infer", headers=running.headers(), json=body)

        found = (await infer({"id": "mine", "inputs": tensors(records)})).json()
        assert (found["id"], found["model_name"], found["model_version"]) == ("mine", "rides", "1")
        wanted = [kept_scene.predicted("1", EXAMPLE), kept_scene.predicted("1", {**records[1], "kind": None})]
        assert found["outputs"] == [{"name": "prediction", "shape": [2], "datatype": "FP64", "data": wanted}]
        assert [p["field"] for p in found["parameters"]["missing"]] == ["kind"]
        column = [{**t, "shape": [2, 1], "data": [[v] for v in t["data"]]} for t in tensors(records)]
        assert (await infer({"inputs": column})).json()["outputs"] == found["outputs"]
        for bad, text in (
            ({}, "list of tensors"), ({"inputs": [5]}, "a tensor is such as"), ({"inputs": tensors(records)[:2]}, "2 values are not"),
            ({"inputs": [*tensors(records)[:2], *tensors(records[:1])[2:]]}, "as many values"), ({"inputs": tensors(records) * 2}, "another name"),
            ({"inputs": [{**t, "shape": [3]} for t in tensors(records)]}, "its shape is [2]"),
        ):  # fmt: skip
            refused = await infer(bad)
            assert (refused.status_code, text in refused.json()["error"]) == (422, True), refused.text
        about = (await running.get("/v2/models/rides")).json()
        assert {t["name"]: t["datatype"] for t in about["inputs"]} == {
            "hour": "FP64",
            "x": "FP64",
            "kind": "BYTES",
        }
        for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/rides/ready"):
            assert (await running.get(path)).status_code == 200
        assert (await running.get("/v2/models/others/ready")).status_code == 404
        running.key = None
        assert (await infer({"inputs": tensors(records)})).status_code == 401

    with_service(steps)
