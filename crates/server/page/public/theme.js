// Runs before the first paint: a reader who chose light or dark never sees the other one flash.
(() => {
  const chosen = localStorage.getItem("polylance.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
