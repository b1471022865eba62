// The matrix of runners as a heat map, and the drawer that a square opens.

const [REFERENCE, LAWS] = ["float64", "laws"];

function places(cell) {
  if (cell.kind === "law") return [[cell.runner, LAWS]];
  if (cell.kind === "signature") return [[cell.against, cell.against]];
  const place = [cell.runner, cell.against];
  return cell.kind === "reference" ? [place] : [place, [cell.against, cell.runner]];
}

function matrixOf(report) {
  const runners = new Map(report.runners.map((facts) => [facts.name, facts.status]));
  const squares = new Map();
  for (const cell of report.cells) {
    for (const [runner, against] of places(cell)) {
      if (!squares.has(runner)) squares.set(runner, new Map());
      const row = squares.get(runner);
      row.set(against, [...(row.get(against) ?? []), cell]);
    }
  }
  for (const [runner, row] of squares) {
    if (!runners.has(runner)) runners.set(runner, [...row.values()].flat().some(failed) ? "FAIL" : "pass");
  }
  const fixed = [REFERENCE, LAWS].filter((name) => [...squares.values()].some((row) => row.has(name)));
  return { runners, opponents: [...fixed, ...runners.keys()], squares };
}

function failed(cell) {
  return cell.status !== "pass";
}

function badness(cell) {
  return cell.score === null || !cell.threshold ? Infinity : cell.score / cell.threshold;
}

function found(cell) {
  return cell.reason ?? (cell.score === null ? "its score is not a finite number" : `above ${cell.threshold}`);
}

function worstOf(cells) {
  return cells.reduce((worst, cell) => (badness(cell) > badness(worst) ? cell : worst));
}

// Four steps of score / limit, each with its colour; a failure has another one.
const HEAT = [[1 / 8, "up to ⅛ of the limit"], [1 / 4, "¼"], [1 / 2, "½"], [1, "the limit"]];

function heat(cells) {
  if (cells.some(failed)) return "heat-fail";
  const share = badness(worstOf(cells));
  return `heat-${HEAT.findIndex(([most]) => share <= most)}`;
}

function shownScore(cells) {
  return cells.some(failed) ? "FAIL" : number(worstOf(cells).score);
}

function square(cells, name, attributes) {
  const worst = worstOf(cells);
  const bad = cells.some(failed);
  const title = `${name}: ${bad ? "FAIL" : "pass"}, worst score ${number(worst.score)} (${worst.output}, ${worst.family} inputs)`;
  return element("button", { type: "button", class: `square ${heat(cells)}`, title, "aria-label": title,
    "data-score": worst.score ?? "none", ...attributes },
    element("b", null, shownScore(cells)), bad ? element("small", null, `✕ ${number(worst.score)}`) : null);
}

function matrixTable(report, matrix, open) {
  const names = [...matrix.runners.keys()];
  const byName = new Map(report.runners.map((facts) => [facts.name, facts]));
  const heading = (name) => {
    const place = names.indexOf(name);
    return element("th", { scope: "col" }, place < 0 ? name : element("abbr", { title: name }, String(place + 1)));
  };
  const rows = [...matrix.runners].map(([runner, status], place) => element("tr", null,
    element("th", { scope: "row" },
      element("div", { class: "row-head" }, element("span", { class: "place" }, String(place + 1)),
        element("div", { class: "runner" }, element("span", null, runner, element("small", null, described(byName.get(runner)))),
          chip(status)))),
    matrix.opponents.map((against) => element("td", null, squareOf(matrix, runner, against, byName, open)))));
  const table = element("table", { class: "matrix", onkeydown: moveFocus },
    element("caption", { class: "hidden" }, "Worst score of every runner against float64 and against every other runner"),
    element("thead", null, element("tr", null, element("th", { scope: "col" }, "Runner"),
      matrix.opponents.map(heading))),
    element("tbody", null, rows));
  return scrolled("Matrix of runners", table);
}

// What ran a runner, and on which device, as far as that is known.
function ranIn(runner) {
  return [runner?.runtime, runner?.device].filter(Boolean).join(" on ");
}

function described(runner) {
  return [runner?.target, ranIn(runner), runner?.precision, size(runner?.bytes)].filter((fact) => fact && fact !== "–").join(" · ");
}

function squareOf(matrix, runner, against, byName, open) {
  const cells = matrix.squares.get(runner)?.get(against);
  if (cells) {
    const name = runner === against ? `${runner}, its other signatures` : `${runner} against ${against}`;
    return square(cells, name, { "data-runner": runner, "data-against": against, onclick: () => open(name, cells) });
  }
  if (runner === against) return element("span", { class: "square none" }, "—");
  const left = [runner, against].map((name) => byName.get(name)).find((facts) => facts?.not_judged);
  const why = left ? `${left.name} is ${left.not_judged}: ${left.reason ?? ""}` : against === LAWS ? "not tried" : "not compared";
  return element("span", { class: "square not-run", title: why }, left ? left.not_judged.replaceAll("-", " ") : why);
}

// Arrow keys move the focus from square to square.
function moveFocus(event) {
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  const from = event.target.closest("td");
  if (!steps || !from) return;
  event.preventDefault();
  let [row, column] = [from.parentElement.rowIndex, from.cellIndex];
  const table = event.currentTarget;
  for (;;) {
    [row, column] = [row + steps[0], column + steps[1]];
    const next = table.rows[row]?.cells[column];
    if (!next) return;
    const button = next.querySelector("button.square");
    if (button) return button.focus();
  }
}

function legend() {
  return element("p", { class: "legend" },
    HEAT.map(([, name], step) => element("span", null, element("i", { class: `swatch heat-${step}` }), name)),
    element("span", null, element("i", { class: "swatch heat-fail" }), "✕ FAIL"),
    element("span", null, element("i", { class: "swatch not-run" }), "not run"));
}

// The drawer: a table of outputs × families for one square, and all figures of the cell that is selected in it.
function openDetails(name, cells, powers) {
  const dialog = document.getElementById("details");
  const chosen = element("section", { class: "cell", "aria-live": "polite" });
  const close = element("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => dialog.close() }, "✕");
  const grids = [...Map.groupBy(cells, (cell) => `${cell.runner}\n${cell.against}\n${cell.arithmetic}`).values()]
    .map((own) => cellGrid(own, cells, choose));

  function choose(cell) {
    for (const button of dialog.querySelectorAll("button.square")) {
      button.setAttribute("aria-pressed", String(button.dataset.cell === String(cells.indexOf(cell))));
    }
    chosen.replaceChildren(...cellFigures(cell, powers));
  }

  dialog.replaceChildren(
    element("div", { class: "drawer-head" },
      element("h2", { id: "details-title" }, name), chip(cells.some(failed) ? "FAIL" : "pass"), close),
    element("p", { class: "note" }, "Scores by output and family of inputs. Select a score to see its figures, or a heading to sort."),
    ...grids, chosen);
  choose(worstOf(cells));
  dialog.showModal();
  dialog.scrollTop = 0;
  close.focus();
}

const ARITHMETIC = {
  native: "computed in its own precision",
  emulated: "every operator's result rounded to its precision (emulated)",
  "cpu-fp32-arithmetic": "computed in float32 by this CPU, so this table alone does not count",
};

function cellGrid(own, cells, choose) {
  const families = [...new Set(own.map((cell) => cell.family))];
  const outputs = [...Map.groupBy(own, (cell) => cell.output)].map(([output, ofOutput]) =>
    ({ output, byFamily: new Map(ofOutput.map((cell) => [cell.family, cell])) }));
  const { runner, against, arithmetic, kind } = own[0];
  const columns = [
    { title: "output", value: (row) => row.output },
    ...families.map((family) => ({
      title: family, figure: true,
      value: (row) => row.byFamily.get(family)?.score,
      show: (row) => {
        const cell = row.byFamily.get(family);
        if (!cell) return element("span", { class: "square none" }, "—");
        return square([cell], `${cell.output}, ${family} inputs`, { "aria-pressed": "false", "data-cell": cells.indexOf(cell),
          onclick: () => choose(cell) });
      },
    })),
  ];
  const head = `${kind === "reference" ? "" : `${runner} against ${against}, `}${ARITHMETIC[arithmetic]}`;
  return element("div", null, element("h3", null, head), sortableTable(head, columns, outputs, { class: "grid" }));
}

function cellFigures(cell, powers) {
  const measures = {
    score: number(cell.score), limit: String(cell.threshold), "error RMS": number(cell.error_rms),
    "error max": number(cell.error_max), "noise floor": number(cell.floor), "reference RMS": number(cell.reference_rms),
    samples: count(cell.samples), values: count(cell.values),
  };
  const further = cell.figures && {
    "error mean": number(cell.figures.error_mean), "relative RMS": number(cell.figures.relative_rms),
    "relative mean": number(cell.figures.relative_mean), "relative max": number(cell.figures.relative_max),
    cosine: cell.figures.cosine === null ? "–" : cell.figures.cosine.toFixed(7),
    "ULP median": number(cell.figures.ulp_median), "ULP max": number(cell.figures.ulp_max),
  };
  return [
    element("h3", null, `${cell.output}, ${cell.family} inputs `, chip(cell.status)),
    failed(cell) && element("p", { class: "reason" }, found(cell)),
    facts({ ...measures, ...further }, { class: "facts measures" }),
    cell.figures && element("h4", null, "Errors"), cell.figures && histogram(cell.figures.histogram, powers),
    ...worstInputs(cell), ...choices(cell),
  ].filter(Boolean);
}

function worstInputs(cell) {
  const worst = cell.figures?.worst_inputs ?? [];
  if (!worst.length) return [];
  const columns = ["batch", "row", "error_rms"].map((name) => ({ title: name.replace("_rms", " RMS"), figure: true,
    value: (row) => row[name], show: (row) => (name === "error_rms" ? number(row[name]) : count(row[name])) }));
  return [element("h4", null, "Worst inputs"), sortableTable("Worst inputs", columns, worst, { class: "narrow" })];
}

function choices(cell) {
  const chosen = cell.figures?.choices;
  if (!chosen) return [];
  return [element("h4", null, "Choices"), facts({
    rows: count(chosen.rows), agreed: count(chosen.agreed), flips: count(chosen.flips), "near-ties swapped": count(chosen.tied_flips),
    "top-5 overlap": percent(chosen.top_k_overlap), "KL divergence": `${number(chosen.divergence)} nats`,
  }, { class: "facts measures" })];
}
