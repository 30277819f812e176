// What a page does beside being read. All of it can be read without.
(() => {
  "use strict";
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // Airflow's own pages open in the whole window, not inside the frame: its sandbox lets a frame lead nobody away, but
  // a link of the page around it may.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-airflow]");
    if (!link || window.parent === window || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    const outer = window.parent.document;
    const there = outer.createElement("a");
    there.href = link.href;
    outer.body.append(there);
    there.click();
    there.remove();
  });

  // Times in the reader's zone, on wish.
  const zone = document.getElementById("zone");
  const local = () => { try { return localStorage.getItem("evergreen.zone") === "local"; } catch { return false; } };
  const pad = (number) => String(number).padStart(2, "0");
  const told = (time, own) => {
    const t = new Date(time.dateTime);
    const day = own ? [t.getFullYear(), t.getMonth() + 1, t.getDate()] : [t.getUTCFullYear(), t.getUTCMonth() + 1, t.getUTCDate()];
    const clock = own ? [t.getHours(), t.getMinutes()] : [t.getUTCHours(), t.getUTCMinutes()];
    const name = own ? new Intl.DateTimeFormat("en-GB", { timeZoneName: "short" }).formatToParts(t).find((p) => p.type === "timeZoneName").value : "UTC";
    const date = `${day[0]}-${pad(day[1])}-${pad(day[2])}`;
    return "day" in time.dataset ? date : `${date} ${clock.map(pad).join(":")} ${name}`;
  };
  const showTimes = (within = document) => {
    const own = local();
    for (const time of all("time[datetime]", within)) time.textContent = told(time, own);
    zone.textContent = own ? "Times in my zone" : "Times in UTC";
    zone.setAttribute("aria-pressed", String(own));
  };
  zone.hidden = false;
  zone.addEventListener("click", () => {
    try { localStorage.setItem("evergreen.zone", local() ? "utc" : "local"); } catch { return; }
    showTimes();
  });
  showTimes();

  // Filter and search.
  const search = document.getElementById("search");
  if (search) {
    const count = document.getElementById("count");
    const filter = () => {
      const state = document.querySelector("input[name=state]:checked").value;
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      const rows = all("tr[data-text]");
      for (const row of rows) {
        const text = row.dataset.text.toLowerCase();
        row.hidden = (state !== "" && row.dataset.state !== state) || !words.every((word) => text.includes(word));
        shown += row.hidden ? 0 : 1;
      }
      count.textContent = shown === rows.length ? "" : `${shown} of ${rows.length}`;
    };
    search.addEventListener("input", filter);
    for (const radio of all("input[name=state]")) radio.addEventListener("change", filter);
    search.form.addEventListener("submit", (event) => event.preventDefault());
    filter();
  }

  // Sort by a column; again the other way round, and the third time as the page had it.
  for (const table of all("table.sortable")) {
    const body = table.tBodies[0];
    const first = [...body.rows];
    const heads = all("thead th", table);
    heads.forEach((head, at) => {
      if (!first.some((row) => row.cells[at] && "sort" in row.cells[at].dataset)) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const next = { ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")] || "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        if (next === "none") return body.append(...first);
        head.setAttribute("aria-sort", next);
        const key = (row) => row.cells[at].dataset.sort;
        const way = next === "ascending" ? 1 : -1;
        body.append(...[...first].sort((a, b) => {
          if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");
          return way * (isNaN(key(a)) ? key(a).localeCompare(key(b)) : key(a) - key(b));
        }));
      });
    });
  }

  // A row of the ledger opens its evidence below itself.
  document.addEventListener("click", async (event) => {
    const link = event.target.closest("a.evidence");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    const place = link.closest("tr, li");
    const open = place.nextElementSibling && place.nextElementSibling.classList.contains("opened");
    link.setAttribute("aria-expanded", String(!open));
    if (open) return place.nextElementSibling.remove();
    const answer = await fetch(`${link.href}?part=true`);
    if (!answer.ok) { window.location = link.href; return; }
    const opened = document.createElement(place.tagName);
    opened.className = "opened";
    let cell = opened;
    if (place.tagName === "TR") {
      cell = document.createElement("td");
      cell.colSpan = [...place.cells].reduce((sum, one) => sum + one.colSpan, 0);
      opened.append(cell);
    }
    const read = new DOMParser().parseFromString(await answer.text(), "text/html");
    // The part's addresses are relative to where it came from.
    for (const one of all("a[href]", read)) one.href = new URL(one.getAttribute("href"), link.href).href;
    cell.append(...read.body.childNodes);
    place.after(opened);
    showTimes(opened);
  });

  // What starts a run or answers a question goes to Airflow's API, with the reader's own session.
  const send = async (form, address, method, body) => {
    const said = form.querySelector(".answer");
    const buttons = all("button", form);
    buttons.forEach((button) => { button.disabled = true; });
    said.textContent = "Asking Airflow …";
    try {
      const answer = await fetch(address, { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
      const found = await answer.json().catch(() => ({}));
      if (answer.ok) return found;
      const why = typeof found.detail === "string" ? found.detail : found.detail ? found.detail.message || JSON.stringify(found.detail) : answer.statusText;
      said.textContent = answer.status === 403 ? "Airflow does not let you do this." : `Airflow said no: ${why}`;
    } catch (error) {
      said.textContent = `Airflow did not answer: ${error.message}`;
    }
    buttons.forEach((button) => { button.disabled = false; });
    return null;
  };
  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (form.matches("form.wait")) {
      form.querySelector("[role=status]").textContent = "Drawing; this takes some 20 seconds …";
      return;
    }
    if (!form.matches("form.action")) return;
    event.preventDefault();
    const fields = Object.fromEntries(new FormData(form));
    const said = form.querySelector(".answer");
    if (form.dataset.answer) {
      const option = event.submitter.value;
      const found = await send(form, form.dataset.answer, "PATCH", { chosen_options: [option], params_input: { comment: fields.comment || "" } });
      if (found) said.textContent = `Your answer is kept: ${option}. The run goes on, and a mail tells how it ended.`;
      return;
    }
    const found = await send(form, form.dataset.run, "POST", { logical_date: null, conf: fields });
    if (!found) return;
    said.textContent = "Started: ";
    const link = document.createElement("a");
    link.href = form.dataset.runs + encodeURIComponent(found.dag_run_id);
    link.dataset.airflow = "";
    link.textContent = "the run in Airflow";
    said.append(link);
  });

  // Where a mail leads to a report that is not drawn yet.
  const now = document.querySelector("form[data-at-once]");
  if (now) now.requestSubmit();
})();
