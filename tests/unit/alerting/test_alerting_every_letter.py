"""What holds for a mail of every kind: the state in its subject, numbers before hashes, nothing raw, the same in both parts, on every screen."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Callable
from email.message import EmailMessage
from html import unescape
from pathlib import Path

import pytest
from letters_scene import HASH, RUN, Writer, every

from chromium import PROGRAM, browser
from evergreen import settings
from evergreen.alert_kinds import AlertKind
from evergreen.alerting.content import amounts
from evergreen.alerting.letters.challenger_tables import reworded
from evergreen.incidents import failures
from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection

DOCS = Path(__file__).resolve().parents[3] / "docs"
MOST_BYTES = 200_000
# What a reader of code knows, and a reader of mail does not.
RAW = re.compile(
    r"\bNone\b|\bnan\b|\binf\b|\bTrue\b|\bFalse\b|\{'|datetime\.|<[A-Z]\w+[.:]|\(s\)|StrEnum|Undefined|\b-?\d\.\d{7,}"
)
NEGATIVE_LIMIT = re.compile(r"(?:limits?:?|at (?:least|most)|allowed:?) [-−]\d")
CHAMPIONS = ("first champion", "promotion", "rejection", "approval")


_made: dict[str, EmailMessage] = {}


@pytest.fixture
def mails(request: pytest.FixtureRequest) -> dict[str, EmailMessage]:
    """A mail of each kind; made once, as drawing takes seconds."""
    if not _made:
        _made.update(every(*map(request.getfixturevalue, ("conn", "specs", "decide", "judge", "life"))))
    return _made


def text(message: EmailMessage) -> str:
    """The plain-text part, each run of spaces and line ends as one space."""
    part = message.get_body(("plain",))
    assert isinstance(part, EmailMessage)
    return " ".join(str(part.get_content()).split())


def page(message: EmailMessage) -> str:
    """The HTML part as it is."""
    part = message.get_body(("html",))
    assert isinstance(part, EmailMessage)
    return str(part.get_content())


def seen(message: EmailMessage) -> str:
    """What the HTML part shows on a wide screen, pictures as their words."""
    body = page(message).partition("<body")[2].partition(">")[2]
    body = re.sub(r'<span class="label[^>]*>.*?</span>', "", body)
    body = re.sub(r'<img [^>]*alt="([^"]*)"[^>]*>', r" \1 ", body)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body.replace("<wbr>", ""))).split())


def test_there_is_a_mail_of_each_kind(mails: dict[str, EmailMessage]) -> None:
    told = {name for message in mails.values() for name in message.get_all("X-Evergreen-Incident", [])}
    assert {name.partition(":")[0] for name in told} == set(AlertKind)


def test_nothing_raw_is_shown(mails: dict[str, EmailMessage]) -> None:
    for name, message in mails.items():
        for shown in (str(message["Subject"]), text(message), seen(message)):
            assert not RAW.findall(shown), (name, RAW.findall(shown), shown)
            assert not NEGATIVE_LIMIT.findall(shown), (name, NEGATIVE_LIMIT.findall(shown))
            for kind in AlertKind:
                raw = kind.value if "_" in kind.value else "\0"
                assert raw not in re.sub(r"(incident|\S+@|X-).*$", "", shown), (name, kind)


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("drift", "bike_demand v1: drift, temperature 8.0 × its limit and 2 more, RMSE 82.5 above its limit 55"),
        ("drift needs a person", "bike_demand v1 needs a person: drift, temperature 8.0 × its limit and 2 more, RMSE 82.5 above its limit 55"),
        ("drift by an estimate", "bike_demand v3: estimated RMSE 71.26 above its limit 55"),
        ("columns cannot be read", "bike_demand: windspeed could not be judged"),
        ("data problem stale", "bike_demand: data is stale, newest row 60.3 h old, at most 36 h"),
        ("data problem volume", "bike_demand: unusual number of rows, 3, at least 84"),
        ("data problem unscored", "bike_demand: rows were not scored, 168 of 168"),
        ("skew other features", "bike_demand: online predictions differ from batch ones, 41.2% of them, temp and 1 more sent otherwise"),
        ("skew unexplained", "bike_demand: online predictions differ from batch ones, 41.2% of them"),
        ("skew other numbers", "bike_demand: online predictions differ from batch ones, 3 of the same features"),
        ("recovered from serving_skew", "bike_demand: recovered, online and batch predictions are alike after 10d 4h"),
        ("batch quarantined", "bike_hourly: file quarantined, 168 rows, humidity 655.3, expected 0 to 100 (bike_2026_00.csv)"),
        ("batches quarantined", "bike_hourly: 20 of 40 files quarantined"),
        ("rows held back", "bike_hourly: 12 of 168 rows held back, humidity 655.3, expected 0 to 100 (bike_2026_50.csv)"),
        ("batch corrected", "bike_hourly: a.csv was withdrawn: keys gone: 3"),
        ("first champion", "van_demand: promoted version 1, RMSE 55.84, 37 % better than the baseline, the first champion"),
        ("promotion", "bike_demand: promoted version 4, RMSE 41.25, 12 % better than version 3"),
        ("rejection", "bike_demand: rejected version 5, RMSE 48.1, 2.3 % worse than version 4; it did not beat the champion on the same rows"),
        ("approval", "bike_demand: version 6 waits for approval, RMSE 41.25, 12 % better than version 4"),
        ("rollback by the watch", "bike_demand: rolled back to version 3 from version 4, 25 % worse on the same rows"),
        ("rollback by hand", "bike_demand: rolled back to version 1 from version 3"),
        ("alias repaired", "bike_demand: the alias champion in MLflow named version 2, it is version 1 again"),
        ("run failed", "bike_demand: train failed in fit: MLflow at http://mlflow:5000 did not answer within 60 s"),
        ("spec unusable", "specs: datasets/bike_hourly.yaml cannot be used, 1 file switched off with it"),
        ("recovered from drift", "bike_demand v3: recovered, the drift is over after 10d 4h"),
        ("after a silence", "bike_demand: silence ended, one alert was held, 1 still so"),
    ],
)  # fmt: skip
def test_the_subject_says_the_state(mails: dict[str, EmailMessage], name: str, subject: str) -> None:
    assert mails[name]["Subject"] == f"[Evergreen] {subject}"


def test_what_happened_is_within_the_first_sixty_characters(mails: dict[str, EmailMessage]) -> None:
    verbs = re.compile(
        r"drift|RMSE|judged|stale|rows|quarantined|held back|withdrawn|promoted|rejected|waits for approval|rolled back|alias"
        r"|predictions differ|failed|cannot be used|recovered|silence ended|incident"
    )
    for name, message in mails.items():
        assert verbs.search(message["Subject"][:60]), (name, message["Subject"])
        assert len(message["Subject"]) <= 140


def test_a_subject_has_no_space_twice_and_no_encoded_word_that_is_too_long(
    conn: Connection, specs: Specs, decide: Callable[..., Decision], mails: dict[str, EmailMessage]
) -> None:
    for name, message in mails.items():
        assert "  " not in message["Subject"], name
    odd = Writer(conn, specs, decide).mail(
        AlertKind.RUN_FAILED,
        context={"dag_id": "train__bike_demand", "task_id": "fit", "error": "Größe " * 30},
    )
    found = re.findall(rb"=\?[^?]*\?[bq]\?[^?]*\?=", odd.as_bytes())
    assert found
    assert max(map(len, found)) <= 76, "as Python folds it"


def test_two_to_five_numbers_stand_first_and_hashes_last(mails: dict[str, EmailMessage]) -> None:
    for name, message in mails.items():
        body = page(message)
        for part in body.split("<h1")[1:]:
            numbers, table = (
                part.find('<table class="numbers'),
                part.partition('<table class="numbers')[2].partition("</table>")[0],
            )
            assert numbers >= 0, name
            assert "<p " not in part[:numbers], (name, "nothing stands between the headline and the numbers")
            assert 1 <= table.count("<tr>") <= 5, name
        first = text(message)
        for code in (HASH, RUN, "scheduled__"):
            if code in re.sub(r"https?://\S+", "", first):
                shown = re.sub(r"https?://\S+", "", first).index(code)
                last = re.sub(r"https?://\S+", "", first).rindex("Runbook:", 0, shown)
                assert last < shown, name
            for size in re.findall(
                rf"font-size:(\d+)px[^<]*(?:<[^t/][^>]*>|</?t[rdb][^>]*>|[^<])*?{code}", body
            ):
                assert int(size) <= 20


def test_hashes_are_in_small_type(mails: dict[str, EmailMessage]) -> None:
    found = 0
    for name, message in mails.items():
        body = re.sub(r'href="[^"]*"', "", page(message))
        for code in (HASH, RUN):
            for match in re.finditer(code, body):
                size = re.findall(r"<table [^>]*font-size:(\d+)px", body[: match.start()])[-1]
                assert size == "12", (name, code)
                found += 1
    assert found > 5


def test_a_promotion_a_rejection_and_a_question_have_a_picture_in_words(
    mails: dict[str, EmailMessage],
) -> None:
    for name in CHAMPIONS:
        (image,) = [p for p in mails[name].walk() if p.get_content_type() == "image/png"]
        content = image.get_content()
        width, height = struct.unpack(">II", content[16:24])
        assert width == 1300
        assert height <= 1600
        assert len(content) < MOST_BYTES, name
        alt = re.findall(r'<img [^>]*alt="([^"]*)"', page(mails[name]))[0]
        assert alt.startswith("RMSE on the same rows (less is better): version"), alt
        assert "naive baseline 88.51" in alt
    promotion = page(mails["promotion"])
    assert "version 4 41.25, version 3 47" in promotion
    assert "beside version 3 version 4 is 12 % better, its interval reaches to 3.1 % better" in promotion
    assert "until the promotion" in promotion
    assert "interval" not in page(mails["first champion"]), "it was held against nobody"
    assert "its interval reaches to 5.3 % worse" in page(mails["rejection"])


def test_every_picture_is_bounded_and_described(mails: dict[str, EmailMessage]) -> None:
    for name, message in mails.items():
        images = [p for p in message.walk() if p.get_content_type() == "image/png"]
        alts = re.findall(r'<img [^>]*alt="([^"]*)"', page(message))
        assert len(images) == len(alts)
        assert all(len(i.get_content()) < MOST_BYTES for i in images), name
        for alt in map(unescape, alts):
            assert len(alt) > 40, (name, alt)
            assert re.search(r"\d", alt), (name, alt)
            assert alt in text(message), (name, "the text has it too")


def test_a_rollback_has_the_numbers_of_both_versions(mails: dict[str, EmailMessage]) -> None:
    for said in (
        "Version 4, taken out: promised RMSE 41.25, served RMSE 58.9",
        "Version 3, back again: promised RMSE 43.25, served RMSE 42.24",
        "version 4 is 25 % worse on 1,234 rows; 2 % worse is allowed",
        "1 of 2 windows", "0 of 7 windows",
        "from 2026-05-25 00:00 UTC to 2026-06-15 00:00 UTC",
        "from 2026-04-06 00:00 UTC to 2026-05-18 00:00 UTC, again from 2026-06-15 00:00 UTC",
        "predicted 20 rows as before",
    ):  # fmt: skip
        assert said in text(mails["rollback by the watch"]), said
        assert said.replace(": ", " ") in seen(mails["rollback by the watch"]).replace(": ", " "), said
    assert "at most 1e-07 apart from before" in text(mails["rollback by hand"])


def test_each_section_names_its_runbook_and_leads_to_its_page(
    mails: dict[str, EmailMessage], conn: Connection, specs: Specs, decide: Callable[..., Decision], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    for name, message in mails.items():
        assert "Runbook: docs/runbook.md, section " in text(message), name
        assert "Runbook: docs/runbook.md, section " in seen(message), name
        pages = re.findall(r'href="(http://127\.0\.0\.1:8080/plugin/models/evergreen/[^"]*)"', page(message))
        assert pages, name
        if any(kind in name for kind in ("spec", "digest")):
            assert pages == ["http://127.0.0.1:8080/plugin/models/evergreen/"], name
        else:
            assert re.search(r"/evergreen/(model|dataset)/\w+$", pages[0]), (name, pages)
    monkeypatch.setenv(settings.RUNBOOK_URL.name, "https://docs.example.org/runbook/")
    linked = Writer(conn, specs, decide).mail(
        AlertKind.CHAMPION_CHANGED, context={"again": 1}, subject="model/other"
    )
    assert 'href="https://docs.example.org/runbook#champion-changed"' in page(linked)
    assert "https://docs.example.org/runbook#champion-changed" in text(linked)


@pytest.mark.parametrize("kind", AlertKind, ids=str)
def test_the_runbook_has_a_section_for_each_kind(kind: AlertKind) -> None:
    headings = re.findall(r"^## (.+)$", (DOCS / "runbook.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert kind.value.replace("_", "-") in [h.lower().replace(" ", "-") for h in headings]
    assert len(headings) == len(AlertKind), "and for nothing else"


def test_a_mail_that_could_not_be_laid_out_names_the_runbook_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVERGREEN_WAREHOUSE_URL", raising=False)
    bare = failures.bare_message("model/m", "train__m/1", "fit", "no", "http://log", RuntimeError("gone"))
    assert "Runbook: docs/runbook.md, section Run failed" in bare.get_content()


def test_the_report_button_opens_the_report(mails: dict[str, EmailMessage]) -> None:
    opens = re.search(r'href="([^"]*)"[^>]*>Evidently report<', page(mails["drift"]))
    assert opens
    assert unescape(opens[1]) == (
        "http://127.0.0.1:8080/evergreen/model/bike_demand/window/20260330T000000Z/report?version=1&file=drift.html"
    )


def test_both_parts_say_the_same_in_the_same_order(mails: dict[str, EmailMessage]) -> None:
    for name, message in mails.items():
        told, shown = text(message), seen(message)
        labels = re.findall(
            r'<td class="muted(?: box| line)"[^>]*>(.*?)</td><td class="(?:box|line)"[^>]*>(.*?)</td>',
            page(message),
        )
        assert labels, name
        place = 0
        for label, value in labels:
            words = " ".join(unescape(re.sub(r"<[^>]+>", "", f"{label}: {value}")).split())
            found = told.find(words, place)
            assert found >= 0, (name, words, "is missing in the text, or stands elsewhere")
            place = found
        for heading in re.findall(r"<h[12][^>]*>(.*?)</h[12]>", page(message)):
            assert " ".join(unescape(re.sub(r"<[^>]+>", "", heading)).split()) in told, (name, heading)
        assert shown


@pytest.mark.parametrize(
    ("metric", "value", "limit", "side", "told"),
    [
        ("rmse", 71.0, 55.0, "at most 55", "RMSE 71 above its limit 55"),
        ("roc_auc", 0.58, 0.62, "at least 0.62", "ROC AUC 0.58 below its limit 0.62"),
        ("r2", 0.31, 0.62, "at least 0.62", "R² 0.31 below its limit 0.62"),
        ("r2", -12.0, -10.0, "", "R² -12, worse than always guessing the mean"),
        ("accuracy", 0.4, -0.2, "", "accuracy 0.4"),
        ("brier", 0.4, 1.5, "", "Brier score 0.4"),
        ("rmse", None, 55.0, "at most 55", "RMSE could not be computed"),
    ],
)  # fmt: skip
def test_a_limit_is_shown_where_it_means_something(
    metric: str, value: float | None, limit: float, side: str, told: str
) -> None:
    assert amounts.limit(metric, limit) == side
    assert amounts.beyond(metric, value, limit) == told


def test_a_limit_that_means_nothing_is_in_no_part_of_a_mail(
    conn: Connection, specs: Specs, decide: Callable[..., Decision], monkeypatch: pytest.MonkeyPatch
) -> None:
    violation = {
        "kind": "performance",
        "column": "r2",
        "statistic": "r2",
        "value": -12.0,
        "limit": -10.0,
        "detail": "",
    }
    made = Writer(conn, specs, decide).mail(
        AlertKind.DRIFT, DecisionKind.RETRAIN_REQUESTED, reason="performance", version="1", evidence={"violations": [violation]}
    )  # fmt: skip
    assert made["Subject"] == "[Evergreen] bike_demand v1: R² -12, worse than always guessing the mean"
    for shown in (text(made), seen(made)):
        assert "-10" not in shown
        assert "-12" in shown


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("the improvement over the champion is -2.00 %, with 95 % confidence at least -5.34 %; -1.00 % is allowed",
         "beside the champion it is 2 % worse, with 95 % confidence at the least 5.3 % worse; 1 % worse is allowed"),
        ("the improvement over the champion is 3.00 %, with 95 % confidence at most 5.00 %; below zero it is surely worse",
         "beside the champion it is 3 % better, with 95 % confidence at the most 5 % better; where even that is worse, it is surely worse"),
        ("the improvement in hour=3 (80 rows, the worst of 14) is -9.00 %, surely below -5.34 %; -5.00 % is allowed",
         "in hour=3 (80 rows, the worst of 14) it is 9 % worse, surely at the least 5.3 % worse; 5 % worse is allowed"),
        ("the challenger takes 12 ms for 1,000 rows, 10 are allowed", "the challenger takes 12 ms for 1,000 rows, 10 are allowed"),
    ],
)  # fmt: skip
def test_what_the_gate_says_has_no_signs(said: str, told: str) -> None:
    assert reworded(said) == told


def test_the_colours_follow_the_reader(mails: dict[str, EmailMessage]) -> None:
    for name, message in mails.items():
        body = page(message)
        for said in (
            'name="color-scheme" content="light dark"',
            'name="supported-color-schemes"',
            "(prefers-color-scheme: dark)",
            "(max-width: 480px)",
        ):
            assert said in body, (name, said)
        classes = {c for names in re.findall(r'class="([^"]*)"', body) for c in names.split()}
        styled = set(re.findall(r"\.([a-z-]+)", body.partition("<style>")[2].partition("</style>")[0]))
        assert classes <= styled | {"head", "line", "numbers"}, name
        for element in re.findall(
            r"<[a-z0-9]+ [^>]*color:#(?!b4430b|ffffff)[^>]*>", body.partition("<body")[2]
        ):
            assert 'class="' in element or element.startswith("<h1"), (name, element)


# Lightness as WCAG measures contrast; a text below 4.5 is hard to read.
CONTRAST = """(() => {
  const rgb = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = (c) => { const [r, g, b] = rgb(c).map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (e) => { while (e) { const c = getComputedStyle(e).backgroundColor; if (rgb(c)[3] !== 0) return c; e = e.parentElement; } return "rgb(255,255,255)"; };
  const low = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || getComputedStyle(e).display === "none" || !e.getClientRects().length) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.push([e.textContent.trim().slice(0, 40), getComputedStyle(e).color, behind(e)]);
  }
  return low;
})()"""
# Elements that reach beyond the screen, and short words that are split over two lines.
WIDE = """(() => [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
  .map((e) => [e.tagName, e.textContent.trim().slice(0, 40)]))()"""
SPLIT = """(() => { const found = []; const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) { const node = walk.currentNode; if (!node.parentElement.closest("table.data, table.numbers")) continue;
    for (const word of node.textContent.matchAll(/[^\\s_/.-]{2,16}/g)) { const range = document.createRange();
      range.setStart(node, word.index); range.setEnd(node, word.index + word[0].length);
      const tops = new Set([...range.getClientRects()].filter((r) => r.width > 0).map((r) => Math.round(r.top)));
      if (tops.size > 1) found.push(word[0]); } }
  return found; })()"""


@pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium here")
def test_no_mail_is_wider_than_a_phone_and_every_text_can_be_read_in_light_and_dark(
    mails: dict[str, EmailMessage], tmp_path: Path
) -> None:
    with browser(tmp_path / "browser") as window:
        for name, message in mails.items():
            body = page(message)
            for part in message.walk():
                if part.get_content_type() == "image/png":
                    shown = base64.b64encode(part.get_content()).decode()
                    body = body.replace(
                        f"cid:{part['Content-ID'].strip('<>')}", f"data:image/png;base64,{shown}"
                    )
            file = tmp_path / f"{name}.html"
            file.write_text(body, encoding="utf-8")
            for width, dark in ((390, False), (390, True), (1280, False), (1280, True)):
                window.size(width, 800, dark=dark)
                window.open(file.as_uri())
                assert window.run("document.documentElement.scrollWidth") <= width, (name, width)
                assert window.run(WIDE) == [], (name, width)
                assert window.run(CONTRAST) == [], (name, width, dark)
                assert window.run(SPLIT) == [], (name, width)
                background = window.run("getComputedStyle(document.body).backgroundColor")
                assert (background == "rgb(17, 22, 28)") is dark, name
