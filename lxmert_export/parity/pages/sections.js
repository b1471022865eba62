// The sections of the page below the matrix. Each is null if the report has nothing to show in it.

function section(id, title, note, ...children) {
  return element("section", { class: "card", id, "aria-labelledby": `${id}-title` },
    element("h2", { id: `${id}-title` }, title), note && element("p", { class: "note" }, note), ...children);
}

function bulletList(lines) {
  return element("ul", null, lines.map((text) => element("li", null, text)));
}

// A line for each half-precision runner that was computed only in float32 by a CPU.
function unproven(report) {
  const judged = report.cells.filter((cell) => cell.kind === "reference");
  const alone = [...Map.groupBy(judged, (cell) => cell.runner)].filter(([name, cells]) => 
    cells.every((cell) => cell.arithmetic === "cpu-fp32-arithmetic") && !report.vouched.includes(name));
  return alone.map(([name]) => `no proof for ${name}: computed only in float32 by a CPU, which does not count alone`);
}

const askedOf = (decided) => (decided.inputs === "scenes" ? "held-out questions" : `labelled ${decided.inputs} inputs`);

function failuresSection(report) {
  const rows = report.cells.filter(failed);
  const beside = [
    ...report.decisions.filter(failed).map((one) => `${one.runner}, ${askedOf(one)}: ${one.reason}`),
    ...unproven(report), ...report.missing, ...report.regressions,
  ];
  if (!rows.length && !beside.length) return null;
  const columns = [
    { title: "runner", value: (cell) => cell.runner },
    { title: "against", value: (cell) => cell.against },
    { title: "output", value: (cell) => cell.output },
    { title: "inputs", value: (cell) => cell.family },
    { title: "score", figure: true, value: (cell) => cell.score, show: (cell) => number(cell.score) },
    { title: "what was found", long: true, value: found },
  ];
  rows.sort((one, other) => badness(other) - badness(one));
  return section("failures", "Failures", null, beside.length ? bulletList(beside) : null,
    rows.length ? sortableTable("Failures", columns, rows) : null);
}

// One row per runner: its worst score against float64 and, if questions were asked, its lowest accuracy.
function runnerRows(report, matrix) {
  const byName = new Map(report.runners.map((one) => [one.name, one]));
  return [...matrix.runners].map(([name, status], place) => {
    const cells = matrix.squares.get(name)?.get(REFERENCE);
    const asked = report.decisions.filter((one) => one.runner === name);
    const least = asked.length ? asked.reduce((worst, one) => (one.accuracy < worst.accuracy ? one : worst)) : null;
    return { number: place + 1, name, status, ...byName.get(name), judged: Boolean(cells), score: cells ? worstOf(cells).score : null,
      accuracy: least?.accuracy ?? null, scoreFailed: cells?.some(failed), answersFailed: asked.some(failed) };
  });
}

function bar(value, largest, shown) {
  if (value === null || value === undefined) return "–";
  const length = element("i", { class: "length" });
  length.style.setProperty("--share", largest ? value / largest : 0);
  return element("span", { class: "barred" }, length, element("span", null, shown));
}

function runnersSection(report, matrix) {
  const rows = runnerRows(report, matrix);
  const largest = Math.max(...rows.map((row) => row.bytes ?? 0));
  const columns = [
    { title: "#", figure: true, value: (row) => row.number },
    { title: "runner", value: (row) => row.name },
    { title: "status", value: (row) => row.status, show: (row) => chip(row.status) },
    { title: "target", value: (row) => row.target },
    { title: "runtime", value: (row) => ranIn(row) },
    { title: "precision", value: (row) => row.precision },
    { title: "size", figure: true, value: (row) => row.bytes, show: (row) => bar(row.bytes, largest, size(row.bytes)) },
    { title: "worst score", figure: true, value: (row) => row.score,
      show: (row) => (row.scoreFailed ? `✕ ${row.score === null ? "none" : number(row.score)}` : number(row.score)) },
    { title: "accuracy", figure: true, value: (row) => row.accuracy, show: (row) => percent(row.accuracy) },
  ];
  return section("runners", "Size beside score and accuracy",
    "Worst score against float64. A number in a chart is the runner's number in the table.", ...sizeCharts(report, rows),
    sortableTable("Runners", columns, rows));
}

function sizeCharts(report, rows) {
  const sized = rows.filter((row) => row.bytes);
  const scored = sized.filter((row) => row.judged).map((row) => ({ ...row, value: row.score ?? Infinity, failed: row.scoreFailed }));
  const answered = sized.filter((row) => row.accuracy !== null).map((row) => ({ ...row, value: row.accuracy, failed: row.answersFailed }));
  const limit = report.cells.find((cell) => cell.kind === "reference")?.threshold;
  const charts = [
    scored.length && sizeChart(scored, { title: "Worst score against float64, by size", limit, format: plainTick, logarithmicValue: true }),
    answered.length && sizeChart(answered, { title: "Least accuracy of answers, by size", format: percent, logarithmicValue: false }),
  ].filter(Boolean);
  return charts.length ? [element("div", { class: "side-by-side" }, charts)] : [];
}

function driftSection(report) {
  if (!report.divergences.length) return null;
  const limit = report.cells[0]?.threshold ?? 8;
  return section("drift", "Where it diverges", "Score of each layer's output. The dashed line is the limit for the outputs of the model.",
    report.divergences.map((one) => element("article", null,
      element("h3", null, one.artifact),
      element("p", null, one.layer
        ? ["First layer that jumps: ", element("b", null, one.layer), one.family ? `, in its ${one.family}` : "",
          one.module ? ` (${one.module})` : "", one.score !== null ? `, score ${number(one.score)}` : ""]
        : "No layer's score jumps."),
      driftChart(one, limit),
      element("details", null, element("summary", null, "The figures of every layer"), driftTable(one)))));
}

function driftTable(divergence) {
  const columns = [
    { title: "layer", value: (row) => row.layer },
    ...["score", "error_rms", "floor", "reference_rms"].map((name) => ({
      title: name.replace("_rms", " RMS"), figure: true, value: (row) => row[name], show: (row) => number(row[name]),
    })),
  ];
  return sortableTable(`Layers of ${divergence.artifact}`, columns, divergence.curve);
}

function lawsSection(report) {
  const rows = report.cells.filter((cell) => cell.kind === "law");
  if (!rows.length && !report.laws_not_run.length) return null;
  const columns = [
    { title: "runner", value: (cell) => cell.runner },
    { title: "law", value: (cell) => cell.against.replace(/^law: /, "") },
    { title: "output", value: (cell) => cell.output },
    { title: "inputs", value: (cell) => cell.family },
    { title: "score", figure: true, value: (cell) => cell.score, show: (cell) => number(cell.score) },
    { title: "status", long: true, value: (cell) => cell.status, show: (cell) => [chip(cell.status), cell.reason ? ` ${cell.reason}` : ""] },
  ];
  return section("laws", "Laws", "Rules that hold whatever the weights are, so that no reference is needed.",
    rows.length ? sortableTable("Laws", columns, rows) : null,
    report.laws_not_run.length ? [element("h3", null, "Laws not run"),
      bulletList(report.laws_not_run.map((law) => `${law.runner}: ${law.law} (${law.reason})`))] : null);
}

function decisionsSection(report) {
  if (!report.decisions.length) return null;
  const rows = report.decisions.flatMap((one) => [
    { ...one, asked: "all", kind: askedOf(one) }, ...Object.entries(one.families).map(([asked, tally]) => ({ ...one, ...tally, asked, kind: askedOf(one), status: null })),
  ]);
  const figures = ["questions", "near_ties", "flips", "tied_flips"].map((name) => ({
    title: name.replaceAll("_", " "), figure: true, value: (row) => row[name], show: (row) => count(row[name]),
  }));
  const shares = [["accuracy", "accuracy"], ["reference_accuracy", "float64's"], ["agreement", "agreement"]].map(([name, title]) => ({
    title, figure: true, value: (row) => row[name], show: (row) => percent(row[name]),
  }));
  const columns = [
    { title: "runner", value: (row) => row.runner, show: (row) => row.runner + (row.arithmetic === "native" ? "" : ` (${row.arithmetic})`) },
    { title: "asked", value: (row) => row.kind },
    { title: "family", value: (row) => row.asked },
    { title: "status", long: true, value: (row) => row.status, show: (row) => (row.status ? [chip(row.status), row.reason ? ` ${row.reason}` : ""] : "") },
    ...shares, ...figures,
  ];
  const totals = rows.filter((row) => row.asked === "all");
  return section("decisions", "Answers",
    "Agreement: share of answers equal to float64's, near-ties aside. Accuracy: share that is true.",
    sortableTable("Answers", columns.filter((column) => column.title !== "family"), totals),
    element("details", null, element("summary", null, "By family of questions"), sortableTable("By family of questions", columns, rows)));
}

function notRunSection(report) {
  const lines = [
    ...report.runners.filter((one) => one.not_judged).map((one) => [chip(one.not_judged), ` ${one.name}: ${one.reason ?? "no reason is known"}`]),
    ...Object.entries(report.not_run).filter(([, families]) => families.length)
      .map(([runner, families]) => [`${runner}: ${families.join(", ")} inputs`]),
    ...report.notes.map((note) => [note]),
  ];
  if (!lines.length) return null;
  return section("not-run", "Not run, and notes", null, bulletList(lines));
}

function provenanceSection(report) {
  const made = report.runners.filter((one) => Object.keys(one.source).length || Object.keys(one.tools).length);
  if (!made.length && !Object.keys(report.provenance).length) return null;
  return section("provenance", "Provenance", null,
    Object.keys(report.provenance).length ? facts(report.provenance) : null,
    made.map((one) => element("details", null, element("summary", null, one.name),
      facts({ kind: one.kind, source: one.source, tools: one.tools }))));
}

function glossarySection(glossary) {
  const entries = Object.entries(glossary).flatMap(([word, meaning]) => [element("dt", null, word), element("dd", null, meaning)]);
  return section("glossary", "Words of this report", null, element("dl", { class: "glossary" }, entries));
}
