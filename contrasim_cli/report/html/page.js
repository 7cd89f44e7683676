"use strict";
// Draws what `results` holds. Names of others are set as text, and escaped where plotly reads markup.
(async () => {
  const data = JSON.parse(document.getElementById("results").textContent);
  const byId = (id) => document.getElementById(id);
  for (const one of [...data.maps, ...data.curves]) {
    if (one.down === undefined) continue;
    one.down = data.sides[one.down];
    one.across = data.sides[one.across];
    one.stores = [one.down.store, one.across.store];
  }
  const pairs = data.pairs.map((pair) => pair.map((k) => data.stores[k]));
  const COLOURS = ["#000000", "#D55E00", "#56B4E9", "#0072B2", "#E69F00", "#009E73", "#CC79A7"];
  const DASHES = ["solid", "dash", "dashdot", "dot", "longdash", "longdashdot"];
  const SYMBOLS = ["circle", "square", "diamond", "triangle-down", "triangle-up", "cross", "x", "star"];
  const FONT = { family: "system-ui, Segoe UI, Roboto, Helvetica, Arial, sans-serif", size: 12, color: "#1a1a1a" };
  const NARROWEST = 300; // pixels of a map
  const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };

  const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const cut = (text, most) => {
    const letters = Array.from(String(text));
    const head = Math.floor((most - 1) / 2);
    return letters.length <= most ? letters.join("") : letters.slice(0, head).join("") + "…" + letters.slice(letters.length - (most - 1 - head)).join("");
  };
  const label = (text, most) => escaped(cut(text, most));
  const shown = (value) => {
    if (value === null || value === undefined) return "";
    if (typeof value !== "number") return String(value);
    if (Number.isInteger(value)) return String(value);
    return Math.abs(value) >= 1e-4 && Math.abs(value) < 1e5 ? String(+value.toPrecision(4)) : value.toExponential(3);
  };
  const element = (name, text, className) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };

  async function unpacked(id) {
    const packed = atob(byId(id).textContent.trim());
    const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  // --- tables ------------------------------------------------------------------------------------------------------

  const collator = new Intl.Collator("en", { numeric: true });
  const compared = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : collator.compare(String(a), String(b)));

  function sortableTable(place, columns, allRows, filters) {
    const MOST = 500;
    let order = null, everything = false;
    const head = element("tr"), body = element("tbody"), table = element("table"), note = element("p", "", "soft");
    const isNumber = columns.map((_, k) => allRows.some((row) => typeof row.cells[k] === "number"));
    columns.forEach((name, k) => {
      const cell = element("th", undefined, isNumber[k] ? "number" : ""), button = element("button", name);
      button.type = "button";
      button.addEventListener("click", () => {
        order = { column: k, down: order && order.column === k ? !order.down : isNumber[k] };
        head.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
        cell.setAttribute("aria-sort", order.down ? "descending" : "ascending");
        fill();
      });
      cell.append(button);
      head.append(cell);
    });
    const more = element("button", "show all");
    more.type = "button";
    more.addEventListener("click", () => { everything = true; fill(); });
    function fill() {
      let rows = allRows.filter(filters);
      if (order) {
        const missing = (row) => row.cells[order.column] === null || row.cells[order.column] === "";
        rows = rows.filter((row) => !missing(row)).sort((a, b) => (order.down ? -1 : 1) * compared(a.cells[order.column], b.cells[order.column]))
          .concat(rows.filter(missing)); // what has no value comes last either way
      }
      const drawn = everything ? rows : rows.slice(0, MOST);
      body.replaceChildren(...drawn.map((row) => {
        const line = element("tr", undefined, row.best ? "best" : "");
        row.cells.forEach((value, k) => line.append(element("td", shown(value), isNumber[k] ? "number" : "")));
        return line;
      }));
      note.textContent = `${drawn.length} of ${allRows.length} rows `;
      if (drawn.length < rows.length) note.append(more);
    }
    const top = element("thead");
    top.append(head);
    table.append(top, body);
    const frame = element("div", undefined, "scroll");
    frame.append(table);
    place.replaceChildren(frame, note);
    fill();
    return fill;
  }

  // --- heat maps and curves ------------------------------------------------------------------------------------------

  function drawLater(place, draw) {
    // many maps are drawn as they come into view, all of them before the page is printed
    if (!("IntersectionObserver" in window)) { draw(); return; }
    let done = false;
    const once = () => { if (!done) { done = true; watch.disconnect(); draw(); } };
    const watch = new IntersectionObserver((seen) => { if (seen.some((one) => one.isIntersecting)) once(); }, { rootMargin: "800px" });
    watch.observe(place);
    window.addEventListener("beforeprint", once);
  }

  function panel(parent, title, colour) {
    const box = element("div", undefined, "panel"), chart = element("div", undefined, "chart");
    const head = element("h3", cut(title, 90));
    head.title = title;
    if (colour !== undefined) {
      const swatch = element("span", undefined, "swatch");
      swatch.style.background = COLOURS[colour % COLOURS.length];
      head.prepend(swatch);
    }
    box.append(head, chart);
    parent.append(box);
    return chart;
  }

  function ticks(side, how) {
    const every = Math.ceil(side.layers.length / 13);
    const places = side.layers.map((_, k) => k).filter((k) => k % every === 0);
    const names = side.layers.some((name) => name.length > 16) ? side.short : side.layers; // long ones without what all have in common
    const text = (k) => how === "depth" ? `${Math.round(side.depths[k])} %` : how === "index" ? String(k) : label(names[k], 16);
    return { tickmode: "array", tickvals: places, ticktext: places.map(text) };
  }

  const calibrated = () => byId("values") !== null && byId("values").value === "calibrated";

  function viewed(map) {
    // a map as it is chosen to be seen: by calibrated scores where it has them; frames stay those of its scores
    if (!calibrated() || !map.calibrated_limits) return map;
    return { ...map, values: map.columns.calibrated, level: 0, higher: true, measure_limits: map.calibrated_limits, shared_limits: map.calibrated_limits };
  }

  function limits(map, how) {
    if (how === "panel") {
      const values = map.values.flat().filter((value) => value !== null);
      return values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
    }
    return how === "measure" ? map.measure_limits : map.shared_limits;
  }

  function hover(map) {
    return map.raw.map((row, i) => row.map((value, j) => {
      const a = map.down, b = map.across;
      const lines = [
        `<b>${label(map.measure, 60)}${map.calibrated_limits ? ", raw" : ""} ${value === null ? "undefined" : shown(value)}</b>`,
        `${label(map.stores[0], 40)}: ${label(a.layers[i], 60)} (${Math.round(a.depths[i])} %)`,
        `${label(map.stores[1], 40)}: ${label(b.layers[j], 60)} (${Math.round(b.depths[j])} %)`,
      ];
      for (const [name, values] of Object.entries(map.columns)) if (values[i][j] !== null) lines.push(`${escaped(name)} ${shown(values[i][j])}`);
      return lines.join("<br>");
    }));
  }

  function marks(cells, marker) {
    return { type: "scatter", mode: "markers", x: cells.map((c) => c[1]), y: cells.map((c) => c[0]), marker, hoverinfo: "skip", showlegend: false };
  }

  const LETTER = 6; // pixels that a digit of a cell's number takes, whose size is 10
  const inCell = (value) => value === null ? "" : Math.abs(value) < 9.995 ? value.toFixed(2) : value.toPrecision(3);

  function cellSize(chart) {
    // the pixels of a cell, as wide and as high
    const area = chart.querySelector(".nsewdrag").getBoundingClientRect(), { xaxis, yaxis } = chart.layout;
    return [area.width / Math.abs(xaxis.range[1] - xaxis.range[0]), area.height / Math.abs(yaxis.range[1] - yaxis.range[0])];
  }

  function mapTraces(map, zmin, zmax, bar, texts, hovers, [width, height]) {
    // numbers stand in cells where the widest fits, and crosses above them; frames are as large as cells
    const across = map.across.layers.length, down = map.down.layers.length;
    const numbers = height >= 14 && width >= LETTER * Math.max(...texts.flat().map((text) => text.length)) + 2;
    const side = Math.max(4, Math.min(width, height) - 5), thick = Math.max(1.6, Math.min(3.2, side / 3));
    const crosses = numbers ? map.unclear.map(([i, j]) => [i + 0.33, j]) : map.unclear;
    const cross = numbers ? 6 : Math.min(11, side * 0.6);
    const twice = (cells, symbol, size, lines) => lines.map(([line, color]) => marks(cells, { symbol, size, line: { width: line, color }, color }));
    const frame = (cells, symbol) => twice(cells, symbol, side, [[thick, "#000000"], [0.44 * thick, "#ffffff"]]);
    return [
      { type: "heatmap", z: map.values, zmin, zmax, colorscale: "Viridis", reversescale: !map.higher, colorbar: bar, hoverinfo: "text",
        hovertext: hovers, text: texts, texttemplate: numbers ? "%{text}" : "", textfont: { size: 10 }, xgap: across > 30 ? 0 : 1, ygap: down > 30 ? 0 : 1 },
      ...twice(crosses, "x-thin", cross, [[2.2, "rgba(255,255,255,.7)"], [1, "#000000"]]),
      ...frame(map.best, "square-open"),
      ...frame(map.tied, "diamond-open"),
    ];
  }

  async function drawMap(chart, whole, how, labels) {
    const map = { ...viewed(whole), raw: whole.values };
    const [least, most] = limits(map, how);
    const across = map.across.layers.length, down = map.down.layers.length;
    const bar = { thickness: 12, len: 0.95, tickfont: { size: 11 }, outlinewidth: 0 };
    if (map.level !== null) { // the null level is written on the scale, beside its ends
      bar.tickmode = "array";
      const room = 0.12 * (most - least);
      const ends = [least, (least + most) / 2, most].filter((value) => Math.abs(value - map.level) > room);
      const level = Math.min(Math.max(map.level, least), most);
      bar.tickvals = [...ends, level];
      bar.ticktext = [...ends.map(shown), `◂ null<br>${shown(+map.level.toPrecision(2))}`];
    }
    const texts = map.values.map((row) => row.map(inCell)), hovers = hover(map);
    const traces = (size) => mapTraces(map, least, most > least ? most : least + 1e-9, bar, texts, hovers, size);
    const axis = { showgrid: false, zeroline: false, ticks: "", tickfont: { size: 10.5 }, automargin: true };
    const title = (store) => ({ text: label(store, 40), font: { size: 12 }, standoff: 6 });
    const x = ticks(map.across, labels), height = Math.max(300, Math.min(372, chart.clientWidth));
    chart.style.height = `${height}px`;
    const layout = {
      font: FONT, margin: { l: 40, r: 86, t: 30, b: 40 }, height, plot_bgcolor: "#efefef", paper_bgcolor: "#ffffff", showlegend: false,
      xaxis: { ...axis, ...x, title: title(map.stores[1]), tickangle: x.ticktext.some((text) => text.length > 5) ? -90 : 0, range: [-0.5, across - 0.5] },
      yaxis: { ...axis, ...ticks(map.down, labels), title: title(map.stores[0]), range: [-0.5, down - 0.5] },
    };
    let size = [0, 0];
    const fit = async () => { // to the cells' size, which is known when they are drawn, and changes as one zooms
      const found = cellSize(chart);
      if (found.some((value, k) => Math.abs(value - size[k]) > 0.5)) await Plotly.react(chart, traces(size = found), chart.layout, CONFIG);
    };
    await Plotly.react(chart, traces(size), layout, CONFIG);
    chart.on("plotly_relayout", fit);
    await fit();
  }

  function pointTexts(curve, points) {
    // `cka`, and the layers that a point is of
    return points.x.map((_, i) => {
      if (!points.partners) return `${label(points.name, 60)}<br>${label(curve.ticks[i], 60)}`;
      const partner = points.partners[i] === null ? "tied" : label(curve.across.layers[points.partners[i]], 60);
      return `${label(points.name, 60)}<br>${label(curve.down.layers[i], 60)} – ${partner}`;
    });
  }

  function whiskers(values, low, high) {
    // the arms of intervals, none where one of the three is not known
    const known = values.map((value, i) => value !== null && low[i] !== null && high[i] !== null);
    return { type: "data", symmetric: false, array: values.map((value, i) => known[i] ? Math.max(0, high[i] - value) : null),
      arrayminus: values.map((value, i) => known[i] ? Math.max(0, value - low[i]) : null), thickness: 1.2 };
  }

  function line(curve, points) {
    // intervals are bands along the depth, and whiskers at layers that have no distances
    const k = points.colour, name = points.name, hasInterval = points.low && points.low.some((value) => value !== null);
    const style = { color: COLOURS[k % COLOURS.length], dash: DASHES[k % DASHES.length], width: 2 };
    const traces = [];
    if (hasInterval && !curve.ticks) {
      const known = points.x.map((_, i) => i).filter((i) => points.low[i] !== null && points.high[i] !== null);
      const back = [...known].reverse();
      traces.push({ type: "scatter", mode: "lines", x: [...known, ...back].map((i) => points.x[i]),
        y: [...known.map((i) => points.high[i]), ...back.map((i) => points.low[i])], fill: "toself", fillcolor: style.color, opacity: 0.15,
        line: { width: 0 }, hoverinfo: "skip", showlegend: false, legendgroup: name });
    }
    traces.push({ type: "scatter", mode: "lines+markers", name: label(name, 40), legendgroup: name, x: points.x, y: points.y, line: style,
      marker: { symbol: SYMBOLS[k % SYMBOLS.length], size: 6, color: style.color },
      ...(hasInterval && curve.ticks ? { error_y: whiskers(points.y, points.low, points.high) } : {}), text: pointTexts(curve, points),
      hovertemplate: "%{text}<br>%{y:.4g}<extra></extra>", connectgaps: false });
    for (const ends of points.ceilings || []) {
      traces.push({ type: "scatter", mode: "lines", x: points.x, y: ends, line: { color: style.color, width: 1, dash: "dashdot" },
        name: `${label(name, 30)}: noise ceiling`, legendgroup: name, showlegend: false, hovertemplate: "noise ceiling %{y:.4g}<extra></extra>" });
    }
    if (points.level !== null && points.level !== undefined) {
      traces.push({ type: "scatter", mode: "lines", x: [points.x[0], points.x[points.x.length - 1]], y: [points.level, points.level],
        line: { color: style.color, width: 1, dash: "dot" }, name: `${label(name, 34)}: null`, legendgroup: name, hoverinfo: "skip", meta: "null" });
    }
    return traces;
  }

  const mayBeCalibrated = (curve) => !curve.bars && curve.lines.some((points) => points.calibrated);
  const hasCalibrated = (curve) => calibrated() && mayBeCalibrated(curve);

  function rangeOf(traces) {
    // the range of lines and of their intervals, with a margin
    const arms = (trace) => (trace.error_y ? trace.y.flatMap((y, i) => y === null ? [] : [y + trace.error_y.array[i], y - trace.error_y.arrayminus[i]]) : []);
    const values = traces.flatMap((trace) => [...trace.y, ...arms(trace)]).filter((value) => value !== null);
    const least = Math.min(...values), most = Math.max(...values), margin = Math.max(0.06 * (most - least), 0.01 * Math.abs(most), 1e-6);
    return values.length ? [least - margin, most + margin] : null;
  }

  async function drawCurves(chart, curve) {
    const lines = hasCalibrated(curve) ? curve.lines.map((points) => ({ ...points, y: points.calibrated, low: null, level: null })) : curve.lines;
    const apart = curve.ticks ? Math.min(0.12, 0.6 / lines.length) : 0; // so that whiskers stand beside each other
    const traces = lines.flatMap((points, k) => line(curve, { ...points, x: points.x.map((x) => x + (k - (lines.length - 1) / 2) * apart) }));
    const x = { title: { text: escaped(curve.x) }, zeroline: false, automargin: true };
    if (curve.ticks) Object.assign(x, { tickmode: "array", tickvals: curve.ticks.map((_, k) => k), ticktext: curve.ticks.map((name) => label(name, 16)) });
    const shapes = curve.chance === null ? [] : [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: curve.chance, y1: curve.chance,
      line: { color: "#555555", width: 1, dash: "dot" } }];
    if (curve.diagonal) shapes.push({ type: "line", x0: 0, y0: 0, x1: 100, y1: 100, line: { color: "#999999", width: 1, dash: "dot" } });
    const whole = curve.range || rangeOf(traces) || undefined;
    const unit = hasCalibrated(curve) ? "calibrated score" : mayBeCalibrated(curve) ? "raw score" : curve.y;
    const y = { title: { text: escaped(unit) }, zeroline: false, automargin: true, range: whole };
    await Plotly.react(chart, traces, { font: FONT, height: 372, margin: { l: 55, r: 10, t: 30, b: 45 }, xaxis: x, yaxis: y, shapes,
      showlegend: true, legend: { orientation: "h", y: -0.25 }, plot_bgcolor: "#ffffff" }, { ...CONFIG, doubleClick: false });
    let isWhole = true;
    chart.on("plotly_relayout", (change) => { if ("xaxis.range[0]" in change || "yaxis.range[0]" in change) isWhole = false; }); // zoomed
    chart.on("plotly_doubleclick", () => {
      const own = isWhole ? rangeOf(chart.data.filter((trace) => trace.meta !== "null" && trace.visible !== "legendonly")) : null;
      isWhole = own === null;
      Plotly.relayout(chart, { "xaxis.autorange": true, "yaxis.range": own || whole });
    });
  }

  function drawBars(chart, bars) {
    const known = bars.lines.map((one) => one.y !== null);
    const of = (name) => bars.lines.map((one) => one[name]);
    const traces = [{ type: "bar", x: bars.lines.map((_, k) => k), y: bars.lines.map((one) => one.y),
      marker: { color: bars.lines.map((one) => COLOURS[one.colour % COLOURS.length]), line: { color: "#000000", width: 0.6 } },
      error_y: { ...whiskers(of("y"), of("low"), of("high")), color: "#444444" },
      text: bars.lines.map((one, k) => `${escaped(one.name)}<br>${known[k] ? shown(one.y) : "undefined"}`), hoverinfo: "text", textposition: "none" },
      marks(bars.lines.map((_, k) => [0, k]).filter((cell) => !known[cell[1]]), { symbol: "x", size: 9, color: "#a00000" })];
    const shapes = [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: bars.chance, y1: bars.chance, line: { color: "#555555", width: 1, dash: "dot" } }];
    return Plotly.react(chart, traces, { font: FONT, height: 372, margin: { l: 55, r: 10, t: 30, b: 45 }, shapes, showlegend: false,
      xaxis: { tickmode: "array", tickvals: bars.lines.map((_, k) => k), ticktext: bars.lines.map((one) => label(one.name, 20)), automargin: true },
      yaxis: { title: { text: escaped(bars.y) }, range: bars.range, automargin: true, zeroline: false } }, CONFIG);
  }

  // --- the page --------------------------------------------------------------------------------------------------------

  function chosenPair() { return pairs.length > 1 ? pairs[byId("pair").value] : pairs[0]; }

  function mapRows() {
    // a line per measure, with the self-similarity of either store beside; or all measures side by side, and that beneath
    if (!pairs.length) return [data.maps];
    const [a, b] = chosenPair();
    const of = (first, second) => data.maps.filter((map) => map.stores[0] === first && map.stores[1] === second);
    const rows = [of(a, b), of(a, a), ...(a === b ? [] : [of(b, b)])].filter((row) => row.length);
    if (byId("lines") && byId("lines").value === "stores") return rows;
    const measures = [...new Set(rows.flat().map((map) => map.measure))];
    return measures.map((name) => rows.flat().filter((map) => map.measure === name));
  }

  const isLearned = (measure) => data.maps.some((map) => map.measure === measure && map.calibrated_limits);

  function drawMaps() {
    const place = byId("maps");
    place.replaceChildren();
    for (const row of mapRows()) {
      const line = element("div", undefined, "panels");
      const lines = Math.ceil(row.length / Math.max(1, Math.floor(place.clientWidth / NARROWEST)));
      line.style.setProperty("--columns", Math.max(3, Math.ceil(row.length / lines))); // five maps stand as three and two
      place.append(line);
      for (const map of row) {
        const within = map.stores[0] === map.stores[1] ? ` within ${map.stores[0]}` : "";
        const how = !isLearned(map.measure) ? "" : map.calibrated_limits && calibrated() ? ", calibrated" : ", raw";
        const chart = panel(line, `${map.higher ? "" : "↓ "}${map.title}${within}${how}`, map.colour);
        drawLater(chart, () => drawMap(chart, map, byId("scale").value, byId("labels").value));
      }
    }
  }

  function drawAllCurves() {
    const place = byId("curves");
    place.replaceChildren();
    const pair = pairs.length ? chosenPair() : null;
    for (const curve of data.curves) {
      if (curve.stores && pair && (curve.stores[0] !== pair[0] || curve.stores[1] !== pair[1])) continue;
      const chart = panel(place, curve.title + (hasCalibrated(curve) ? ", calibrated" : mayBeCalibrated(curve) ? ", raw" : ""));
      drawLater(chart, () => (curve.bars ? drawBars(chart, curve) : drawCurves(chart, curve)));
    }
  }

  function allRows() {
    if (data.rows) return data.rows.map((cells) => ({ cells, best: false }));
    const rows = [];
    for (const map of data.maps) {
      if (map.stores[0] === map.stores[1]) continue;
      const key = (i, j) => i * map.across.layers.length + j;
      const best = new Set([...map.best, ...map.tied].map(([i, j]) => key(i, j)));
      map.values.forEach((line, i) => line.forEach((value, j) => rows.push({
        best: best.has(key(i, j)),
        cells: [map.measure, map.stores[0], map.down.layers[i], map.down.depths[i], map.stores[1], map.across.layers[j], map.across.depths[j], value,
          ...data.optional.map((name) => (map.columns[name] ? map.columns[name][i][j] : null))],
      })));
    }
    return rows;
  }

  const everyRow = allRows();
  const words = byId("filter"), onlyBest = byId("best");
  if (onlyBest) onlyBest.checked = everyRow.some((row) => row.best);
  const filtered = (row) => (!onlyBest || !onlyBest.checked || row.best) &&
    (!words.value || row.cells.some((cell) => String(cell).toLowerCase().includes(words.value.toLowerCase())));
  const refill = sortableTable(byId("table"), data.columns, everyRow, filtered);
  words.addEventListener("input", refill);
  if (onlyBest) onlyBest.addEventListener("change", refill);

  try {
    const code = element("script");
    code.textContent = await unpacked("plotly");
    document.head.append(code);
    pairs.forEach((pair, k) => byId("pair") && byId("pair").append(new Option(cut(`${pair[0]} – ${pair[1]}`, 100), k)));
    for (const id of ["pair", "values", "lines", "scale", "labels"]) {
      const control = byId(id);
      if (control) control.addEventListener("change", () => { drawMaps(); if (id === "pair" || id === "values") drawAllCurves(); });
    }
    if (byId("maps")) drawMaps();
    if (byId("curves")) drawAllCurves();
    document.body.dataset.drawn = "yes";
  } catch (error) {
    const place = byId("failed");
    place.textContent = `The figures cannot be drawn in this browser (${error.message}); it has to be one of 2023 or later. Texts and tables are complete.`;
    place.hidden = false;
    document.body.dataset.drawn = "failed";
  }
})();
