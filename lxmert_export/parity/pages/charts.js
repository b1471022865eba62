// Charts: the histogram of a cell's errors, the drift from layer to layer, and score or accuracy by size.

// Redraws whenever the width changes, so that text keeps its size on a phone.
function responsive(label, draw) {
  const frame = element("div", { class: "chart" });
  let drawnFor = 0;
  new ResizeObserver(() => {
    const width = Math.floor(frame.clientWidth);
    if (width && width !== drawnFor) frame.replaceChildren(draw((drawnFor = width)));
  }).observe(frame);
  return element("figure", null, frame, element("figcaption", null, label));
}

function canvas(width, height, label, ...children) {
  return drawn("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, ...children);
}

function line(x1, y1, x2, y2, kind) {
  return drawn("line", { x1, y1, x2, y2, class: kind });
}

function label(x, y, text, anchor = "start", kind = "tick") {
  return drawn("text", { x, y, "text-anchor": anchor, class: kind }, text);
}

function marked(shape, title) {
  shape.append(drawn("title", null, title));
  return shape;
}

function power(exponent) {
  return exponent < 0 ? `1/${2 ** -exponent}` : String(2 ** exponent);
}

// Bins of |error| / floor: below the first power of two, between each and the next, and above the last.
function binName(bin, bins, [first]) {
  if (bin === 0) return `below ${power(first)}`;
  const from = power(first + bin - 1);
  return bin === bins - 1 ? `${from} and above` : `${from} to ${power(first + bin)}`;
}

function histogram(counts, powers) {
  const total = counts.reduce((sum, values) => sum + values, 0);
  const most = Math.max(...counts, 1);
  return responsive("Number of values by |error| ÷ noise floor; each bar is a factor of two", (width) => {
    const [height, left, bottom, top] = [190, 8, 36, 18];
    const step = (width - 2 * left) / counts.length;
    const room = height - bottom - top;
    const bars = counts.map((values, bin) => {
      const tall = values ? Math.max(1, (values / most) * room) : 0;
      const bar = drawn("rect", {
        x: left + bin * step + 1, y: height - bottom - tall, width: Math.max(1, step - 2), height: tall, rx: 1,
        class: "bar", "data-count": values,
      });
      return marked(bar, `${binName(bin, counts.length, powers)} floors: ${count(values)} values, ${percent(values / total)}`);
    });
    const place = (exponent) => left + (exponent - powers[0] + 1) * step;
    const ticks = [];
    for (let exponent = powers[0]; exponent <= powers[1]; exponent += width < 480 ? 4 : 2) {
      ticks.push(line(place(exponent), height - bottom, place(exponent), height - bottom + 4, "axis"));
      ticks.push(label(place(exponent), height - bottom + 17, power(exponent), "middle"));
    }
    return canvas(width, height, `Histogram of ${count(total)} errors`,
      line(place(0), top - 4, place(0), height - bottom, "floor"), label(place(0) + 5, top + 4, "noise floor"),
      ...bars, line(left, height - bottom, width - left, height - bottom, "axis"), ...ticks,
      label(width - left, height - 4, "|error| / floor", "end"));
  });
}

// A logarithmic axis that covers all scores and the limit. Infinite scores are placed at its end.
function logarithmic(values, from, to) {
  const known = values.filter((value) => value > 0 && Number.isFinite(value));
  const low = Math.floor(Math.log10(Math.min(...known, 1)) - 0.05);
  const high = Math.ceil(Math.log10(Math.max(...known, 10)) + 0.05);
  const within = (value) => Math.min(Math.max(value, 10 ** low), 10 ** high);
  const place = (value) => from + ((Math.log10(within(value)) - low) / (high - low)) * (to - from);
  const every = Math.ceil((high - low) / 8);
  const ticks = [];
  for (let exponent = low; exponent <= high; exponent += every) ticks.push(10 ** exponent);
  return { place, ticks };
}

function plainTick(value) {
  if (!Number.isFinite(value)) return "no score";
  return value >= 0.001 && value < 100000 ? count(value) : value.toExponential(0);
}

// One row per layer, in execution order from the top, so that the names can be read.
function driftChart(divergence, limit) {
  const rows = divergence.curve;
  return responsive("Score of every layer's output, in execution order", (width) => {
    const [step, top, bottom] = [20, 12, 26];
    const left = Math.min(Math.max(...rows.map((row) => row.layer.length)) * 6.6 + 12, width * 0.5);
    const height = top + step * rows.length + bottom;
    const scores = rows.map((row) => row.score);
    const axis = logarithmic([...scores, limit], left + 8, width - 30);
    const at = (score) => axis.place(score ?? Infinity);
    const level = (place) => top + step * (place + 0.5);
    const grid = axis.ticks.flatMap((value) => [
      line(axis.place(value), top, axis.place(value), height - bottom, "grid"),
      label(axis.place(value), height - 8, plainTick(value), "middle"),
    ]);
    const points = rows.map((row, place) => {
      const failed = row.score === null || row.score > limit;
      const mark = drawn("path", { d: failed ? cross(at(row.score), level(place), 5) : dot(at(row.score), level(place), 4),
        class: failed ? "point FAIL" : "point pass", "data-score": row.score ?? "none" });
      const [score, error, floor] = [row.score, row.error_rms, row.floor].map(number);
      return marked(mark, `${row.layer}: score ${score}, error RMS ${error}, floor ${floor}`);
    });
    const names = rows.map((row, place) =>
      label(left, level(place) + 4, row.layer, "end", row.layer === divergence.layer ? "name found" : "name"));
    const path = rows.map((row, place) => `${place ? "L" : "M"}${at(row.score)} ${level(place)}`).join("");
    return canvas(width, height, `Drift of ${divergence.artifact} over ${rows.length} layers`, ...grid,
      line(axis.place(limit), top, axis.place(limit), height - bottom, "limit"),
      drawn("path", { d: path, class: "curve" }), ...points, ...names);
  });
}

function dot(x, y, radius) {
  return `M${x - radius} ${y}a${radius} ${radius} 0 1 0 ${2 * radius} 0a${radius} ${radius} 0 1 0 ${-2 * radius} 0`;
}

function cross(x, y, half) {
  return `M${x - half} ${y - half}L${x + half} ${y + half}M${x - half} ${y + half}L${x + half} ${y - half}`;
}

// Points are {number, name, bytes, value, failed}. `limit` is the score above which a point fails; accuracies have none.
function sizeChart(points, { title, limit, format, logarithmicValue }) {
  return responsive(title, (width) => {
    const [height, left, right, top, bottom] = [300, 52, 20, 18, 42];
    const largest = Math.max(...points.map((point) => point.bytes)) * 1.08;
    const across = (bytes) => left + (bytes / largest) * (width - left - right);
    const values = points.map((point) => point.value);
    const up = logarithmicValue
      ? logarithmic([...values, limit], height - bottom, top)
      : linear(values, height - bottom, top);
    const grid = up.ticks.flatMap((value) => [
      line(left, up.place(value), width - right, up.place(value), "grid"),
      label(left - 8, up.place(value) + 4, format(value), "end"),
    ]);
    const sizes = [0, 0.25, 0.5, 0.75, 1].map((share) => (largest / 1.08) * share).map((bytes) =>
      label(across(bytes), height - bottom + 18, size(Math.round(bytes)), bytes ? "middle" : "start"));
    const taken = [];
    const leaders = [];
    const marks = points.map((point) => {
      const [x, y] = [across(point.bytes), up.place(point.value)];
      const beside = free(taken, x, y);
      leaders.push(line(x, y, beside, y, "leader"), drawn("path", { d: dot(x, y, 2), class: "leader" }));
      const mark = drawn("g", { class: point.failed ? "mark FAIL" : "mark pass" },
        drawn(point.failed ? "rect" : "circle", point.failed
          ? { x: beside - 11, y: y - 11, width: 22, height: 22 } : { cx: beside, cy: y, r: 11 }),
        label(beside, y + 4, point.number, "middle", "inside"));
      return marked(mark, `${point.name}: ${size(point.bytes)}, ${format(point.value)}`);
    });
    const limits = limit ? [line(left, up.place(limit), width - right, up.place(limit), "limit"),
      label(width - right, up.place(limit) - 5, `limit ${limit}`, "end", "limit-name")] : [];
    return canvas(width, height, title, ...grid, line(left, height - bottom, width - right, height - bottom, "axis"),
      ...sizes, label(width - right, height - 4, "size of all files", "end"), ...limits, ...leaders, ...marks);
  });
}

function linear(values, from, to) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const margin = Math.max((high - low) * 0.15, 0.005);
  const [start, end] = [low - margin, Math.min(high + margin, 1)];
  const place = (value) => from + ((value - start) / (end - start || 1)) * (to - from);
  return { place, ticks: [0, 0.25, 0.5, 0.75, 1].map((share) => start + (end - start) * share) };
}

// Moves a mark to the left until it hides no other. Its height still shows the exact value; a line leads to its exact size.
function free(taken, x, y) {
  let beside = x;
  while (taken.some(([otherX, otherY]) => Math.hypot(otherX - beside, otherY - y) < 25)) beside -= 26;
  taken.push([beside, y]);
  return beside;
}
