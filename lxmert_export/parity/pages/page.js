// Reads the report inside the page and lays it out.

const report = JSON.parse(document.getElementById("report-json").textContent);
const { histogram_powers: powers, glossary } = JSON.parse(document.getElementById("constants").textContent);
const THEMES = ["auto", "light", "dark"];
const KEPT = "lxmert-export-theme";

// A page that is opened from a file may have no storage. The choice of a theme then lasts until the page is closed.
function kept() {
  try {
    return localStorage.getItem(KEPT);
  } catch {
    return null;
  }
}

function keep(theme) {
  try {
    localStorage.setItem(KEPT, theme);
  } catch {
    // no storage
  }
}

function themeButton() {
  const next = () => show(THEMES[(THEMES.indexOf(shown) + 1) % THEMES.length]);
  const button = element("button", { type: "button", class: "theme", onclick: next });
  let shown = "auto";

  function show(theme) {
    shown = theme;
    document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
    keep(theme);
  }

  show(THEMES.includes(kept()) ? kept() : "auto");
  return button;
}

function header(matrix) {
  const judged = report.runners.filter((runner) => !runner.not_judged).length || matrix.runners.size;
  const scored = report.cells.filter((cell) => cell.score !== null);
  const figures = {
    runners: count(judged), "not judged": count(report.runners.filter((runner) => runner.not_judged).length),
    comparisons: count(report.cells.length), failed: count(report.cells.filter(failed).length),
    "worst score": scored.length ? number(worstOf(scored).score) : "–",
  };
  const [verdict, says] = [report.passed ? "✓ passed" : "✕ FAILED", report.summary.replace(/^parity (passed|FAILED): /, "")];
  return [
    element("div", { class: "head-line" }, element("h1", null, "Parity report"), themeButton()),
    element("p", { class: `verdict ${report.passed ? "pass" : "FAIL"}`, role: "status" },
      element("strong", null, verdict), element("span", null, says)),
    facts(figures, { class: "facts headline" }),
    element("p", { class: "note" }, element("a", { href: "#glossary" }, "What the words of this report mean")),
  ];
}

function matrixSection(matrix) {
  const note = "Worst score of each pair: RMS error ÷ noise floor. A failed pair does not count against a runner " +
    "if only the other one also fails without pairs. Select a square to see its figures.";
  if (!matrix.squares.size) return section("matrix", "Every runner against every other", "Nothing was compared.");
  return section("matrix", "Every runner against every other", note,
    matrixTable(report, matrix, (name, cells) => openDetails(name, cells, powers)), legend());
}

const matrix = matrixOf(report);
document.getElementById("top").append(...header(matrix));
document.getElementById("report-page").replaceChildren(...[
  matrixSection(matrix), failuresSection(report), runnersSection(report, matrix), driftSection(report), lawsSection(report),
  decisionsSection(report), notRunSection(report), provenanceSection(report),
  glossarySection(glossary),
].filter(Boolean));
const dialog = document.getElementById("details");
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside the drawer
