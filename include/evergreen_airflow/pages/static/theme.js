// Light or dark as Airflow's own pages are: they keep the reader's choice under "theme", and a frame sees it change.
(() => {
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    let chosen = null;
    try { chosen = localStorage.getItem("theme"); } catch { /* no storage: as the system is */ }
    const dark = chosen === "dark" || (chosen !== "light" && system.matches);
    root.dataset.theme = dark ? "dark" : "light";
  };
  apply();
  window.addEventListener("storage", apply);
  system.addEventListener("change", apply);
  root.classList.toggle("framed", window.parent !== window);
})();
