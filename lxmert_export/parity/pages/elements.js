// Writes figures, makes elements, and makes tables that can be sorted.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

function element(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function drawn(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

// A score or an error: three digits, or two digits and a power of ten.
function number(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (value !== 0 && (value < 0.01 || value >= 1000)) return value.toExponential(1);
  return value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);
}

function count(value) {
  return value === null || value === undefined ? "–" : value.toLocaleString("en");
}

// Rounded down, so that only a whole share is 100 %.
function percent(share) {
  return share === null || share === undefined ? "–" : `${Math.floor(share * 1000 + 1e-9) / 10} %`;
}

function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  for (const [unit, factor] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (bytes >= factor) return `${Number((bytes / factor).toPrecision(3))} ${unit}`;
  }
  return `${bytes} B`;
}

const SIGNS = { pass: "✓", FAIL: "✕", skipped: "»", "built-not-run": "○" };

// A status is shown by a sign and a word, not by its colour alone.
function chip(status) {
  return element("span", { class: `chip ${status}` }, `${SIGNS[status]} ${status.replaceAll("-", " ")}`);
}

// A table that is wider than a phone scrolls in its own box; the page does not scroll sideways.
function scrolled(label, table, kind = "scroll") {
  return element("div", { class: kind, tabindex: 0, role: "region", "aria-label": label }, table);
}

// Columns are {title, value(row), show(row), figure, long}: rows are sorted by `value` and shown by `show`, or else `value`.
function sortableTable(label, columns, rows, attributes) {
  const body = element("tbody");
  const headings = columns.map((column, place) =>
    element("th", { scope: "col", class: column.figure ? "figure" : null, "aria-sort": "none" },
      element("button", { type: "button", class: "sort", onclick: () => sortBy(place) }, column.title)),
  );
  let ascending = false;

  function sortBy(place) {
    const chosen = headings[place];
    ascending = chosen.getAttribute("aria-sort") === "none" ? !columns[place].figure : !ascending;
    headings.forEach((heading) => heading.setAttribute("aria-sort", "none"));
    chosen.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    show([...rows].sort((one, other) => compared(columns[place].value(one), columns[place].value(other), ascending)));
  }

  function show(ordered) {
    body.replaceChildren(...ordered.map((row) => element("tr", null, columns.map((column, place) => {
      const shown = (column.show ?? column.value)(row);
      const kind = column.figure ? { class: "figure", "data-value": column.value(row) } : { class: column.long ? "long" : null };
      return place === 0 ? element("th", { scope: "row", ...kind }, shown) : element("td", kind, shown);
    }))));
  }

  show(rows);
  return scrolled(label, element("table", attributes, element("thead", null, element("tr", null, headings)), body),
    rows.length > 14 ? "scroll tall" : "scroll");
}

// Rows without a value come last in both directions.
function compared(one, other, ascending) {
  const absent = (value) => value === null || value === undefined;
  if (absent(one) || absent(other)) return absent(one) - absent(other);
  const order = typeof one === "number" ? one - other : String(one).localeCompare(String(other), "en", { numeric: true });
  return ascending ? order : -order;
}

// A list of names and values; a value may be such a list.
function facts(values, attributes) {
  const rows = Object.entries(values).map(([name, value]) =>
    element("div", null, element("dt", null, name.replaceAll("_", " ")), element("dd", null, fact(value))));
  return element("dl", { class: "facts", ...attributes }, rows);
}

function fact(value) {
  if (value === null || value === undefined) return "–";
  if (value instanceof Node) return value;
  if (Array.isArray(value)) {
    if (value.every((entry) => typeof entry !== "object" || entry === null)) return value.join(", ") || "–";
    return element("ul", null, value.map((entry) => element("li", null, fact(entry))));
  }
  return typeof value === "object" ? facts(value) : String(value);
}
