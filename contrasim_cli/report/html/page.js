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

  function panel(parent, title) {
    const box = element("div", undefined, "panel"), chart = element("div", undefined, "chart");
    const head = element("h3", cut(title, 90));
    head.title = title;
    box.append(head, chart);
    parent.append(box);
    return chart;
  }

  function ticks(side, how) {
    const every = Math.ceil(side.layers.length / 13);
    const places = side.layers.map((_, k) => k).filter((k) => k % every === 0);
    const text = (k) => how === "depth" ? `${Math.round(side.depths[k])} %` : how === "index" ? String(k) : label(side.layers[k], 16);
    return { tickmode: "array", tickvals: places, ticktext: places.map(text) };
  }

  function limits(map, how) {
    if (how === "panel") {
      const values = map.values.flat().filter((value) => value !== null);
      return values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
    }
    return how === "measure" ? map.measure_limits : map.shared_limits;
  }

  function hover(map) {
    return map.values.map((row, i) => row.map((value, j) => {
      const a = map.down, b = map.across;
      const lines = [
        `<b>${label(map.measure, 60)} ${value === null ? "undefined" : shown(value)}</b>`,
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

  function drawMap(chart, map, how, labels) {
    const [least, most] = limits(map, how);
    const across = map.across.layers.length, down = map.down.layers.length;
    const side = Math.max(5, Math.min(18, 0.55 * 260 / Math.max(across, down)));
    const bar = { thickness: 12, len: 0.95, tickfont: { size: 11 }, outlinewidth: 0 };
    if (map.level !== null) { // the null level is written on the scale, beside its ends
      bar.tickmode = "array";
      const room = 0.06 * (most - least);
      const ends = [least, (least + most) / 2, most].filter((value) => Math.abs(value - map.level) > room);
      const level = Math.min(Math.max(map.level, least), most);
      bar.tickvals = [...ends, level];
      bar.ticktext = [...ends.map(shown), `◂ null ${shown(map.level)}`];
    }
    const traces = [
      { type: "heatmap", z: map.values, zmin: least, zmax: most > least ? most : least + 1e-9, colorscale: "Viridis", reversescale: !map.higher,
        colorbar: bar, hoverinfo: "text", text: hover(map), xgap: across > 30 ? 0 : 1, ygap: down > 30 ? 0 : 1 },
      marks(map.unclear, { symbol: "x-thin", size: side * 0.6, line: { width: 1, color: "rgba(128,128,128,.9)" } }),
      marks(map.best, { symbol: "square-open", size: side, line: { width: 3.2, color: "#000000" }, color: "#000000" }),
      marks(map.best, { symbol: "square-open", size: side, line: { width: 1.4, color: "#ffffff" }, color: "#ffffff" }),
      marks(map.tied, { symbol: "diamond-open", size: side, line: { width: 3.2, color: "#000000" }, color: "#000000" }),
      marks(map.tied, { symbol: "diamond-open", size: side, line: { width: 1.4, color: "#ffffff" }, color: "#ffffff" }),
    ];
    const axis = { ...{ showgrid: false, zeroline: false, ticks: "", tickfont: { size: 10.5 }, constrain: "domain" } };
    const layout = {
      font: FONT, margin: { l: 40, r: 8, t: 30, b: 40 }, height: 372, plot_bgcolor: "#efefef", paper_bgcolor: "#ffffff", showlegend: false,
      xaxis: { ...axis, ...ticks(map.across, labels), title: { text: label(map.stores[1], 40), font: { size: 12 } }, automargin: true,
        tickangle: labels === "name" ? -90 : 0, range: [-0.5, across - 0.5] },
      yaxis: { ...axis, ...ticks(map.down, labels), title: { text: label(map.stores[0], 40), font: { size: 12 } }, automargin: true,
        range: [-0.5, down - 0.5] },
    };
    return Plotly.react(chart, traces, layout, CONFIG);
  }

  function pointTexts(curve, points) {
    // `cka`, and the layers that a point is of
    return points.x.map((_, i) => {
      if (!points.partners) return `${label(points.name, 60)}<br>${label(curve.ticks[i], 60)}`;
      const partner = points.partners[i] === null ? "tied" : label(curve.across.layers[points.partners[i]], 60);
      return `${label(points.name, 60)}<br>${label(curve.down.layers[i], 60)} – ${partner}`;
    });
  }

  function line(curve, points) {
    const k = points.colour, name = points.name;
    const style = { color: COLOURS[k % COLOURS.length], dash: DASHES[k % DASHES.length], width: 2 };
    const traces = [];
    if (points.low && points.low.some((value) => value !== null)) {
      const known = points.x.map((_, i) => i).filter((i) => points.low[i] !== null && points.high[i] !== null);
      const back = [...known].reverse();
      traces.push({ type: "scatter", mode: "lines", x: [...known, ...back].map((i) => points.x[i]),
        y: [...known.map((i) => points.high[i]), ...back.map((i) => points.low[i])], fill: "toself", fillcolor: style.color, opacity: 0.15,
        line: { width: 0 }, hoverinfo: "skip", showlegend: false, legendgroup: name });
    }
    traces.push({ type: "scatter", mode: "lines+markers", name: label(name, 40), legendgroup: name, x: points.x, y: points.y, line: style,
      marker: { symbol: SYMBOLS[k % SYMBOLS.length], size: 6, color: style.color }, text: pointTexts(curve, points),
      hovertemplate: "%{text}<br>%{y:.4g}<extra></extra>", connectgaps: false });
    if (points.level !== null && points.level !== undefined) {
      traces.push({ type: "scatter", mode: "lines", x: [points.x[0], points.x[points.x.length - 1]], y: [points.level, points.level],
        line: { color: style.color, width: 1, dash: "dot" }, name: `${label(name, 34)}: null`, legendgroup: name, hoverinfo: "skip" });
    }
    return traces;
  }

  function drawCurves(chart, curve) {
    const traces = curve.lines.flatMap((points) => line(curve, points));
    const x = { title: { text: escaped(curve.x) }, zeroline: false, automargin: true };
    if (curve.ticks) Object.assign(x, { tickmode: "array", tickvals: curve.ticks.map((_, k) => k), ticktext: curve.ticks.map((name) => label(name, 16)) });
    const shapes = curve.chance === null ? [] : [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: curve.chance, y1: curve.chance,
      line: { color: "#555555", width: 1, dash: "dot" } }];
    if (curve.diagonal) shapes.push({ type: "line", x0: 0, y0: 0, x1: 100, y1: 100, line: { color: "#999999", width: 1, dash: "dot" } });
    const y = { title: { text: escaped(curve.y) }, zeroline: false, automargin: true, ...(curve.range ? { range: curve.range } : {}) };
    return Plotly.react(chart, traces, { font: FONT, height: 372, margin: { l: 55, r: 10, t: 30, b: 45 }, xaxis: x, yaxis: y, shapes,
      showlegend: true, legend: { orientation: "h", y: -0.25 }, plot_bgcolor: "#ffffff" }, CONFIG);
  }

  function drawBars(chart, bars) {
    const known = bars.lines.map((one) => one.y !== null);
    const arms = bars.lines.map((one) => one.low === null || one.high === null || one.y === null ? [null, null] : [Math.max(0, one.high - one.y), Math.max(0, one.y - one.low)]);
    const traces = [{ type: "bar", x: bars.lines.map((_, k) => k), y: bars.lines.map((one) => one.y),
      marker: { color: bars.lines.map((one) => COLOURS[one.colour % COLOURS.length]), line: { color: "#000000", width: 0.6 } },
      error_y: { type: "data", symmetric: false, array: arms.map((one) => one[0]), arrayminus: arms.map((one) => one[1]), color: "#444444", thickness: 1.2 },
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
    // cross-similarity of all measures side by side, the self-similarity of either store beneath (beside, of one measure)
    if (!pairs.length) return [data.maps];
    const [a, b] = chosenPair();
    const of = (first, second) => data.maps.filter((map) => map.stores[0] === first && map.stores[1] === second);
    const rows = [of(a, b), of(a, a), ...(a === b ? [] : [of(b, b)])].filter((row) => row.length);
    return rows.every((row) => row.length === 1) ? [rows.flat()] : rows;
  }

  function drawMaps() {
    const place = byId("maps");
    place.replaceChildren();
    for (const row of mapRows()) {
      const line = element("div", undefined, "panels");
      place.append(line);
      for (const map of row) {
        const within = map.stores[0] === map.stores[1] ? ` within ${map.stores[0]}` : "";
        const chart = panel(line, `${map.higher ? "" : "↓ "}${map.measure}${within}`);
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
      const chart = panel(place, curve.title);
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

  const words = byId("filter"), onlyBest = byId("best");
  const filtered = (row) => (!onlyBest || !onlyBest.checked || row.best) &&
    (!words.value || row.cells.some((cell) => String(cell).toLowerCase().includes(words.value.toLowerCase())));
  const refill = sortableTable(byId("table"), data.columns, allRows(), filtered);
  words.addEventListener("input", refill);
  if (onlyBest) onlyBest.addEventListener("change", refill);

  try {
    const code = element("script");
    code.textContent = await unpacked("plotly");
    document.head.append(code);
    pairs.forEach((pair, k) => byId("pair") && byId("pair").append(new Option(cut(`${pair[0]} – ${pair[1]}`, 100), k)));
    for (const id of ["pair", "scale", "labels"]) {
      const control = byId(id);
      if (control) control.addEventListener("change", () => { drawMaps(); if (id === "pair") drawAllCurves(); });
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
