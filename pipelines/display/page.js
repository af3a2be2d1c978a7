"use strict";
// Asks for what is new once a second and draws it. Nothing is kept but the last `depth` dumps.

const PERIOD_MS = 1000;
const MARGIN = { left: 58, right: 12, top: 8, bottom: 22 };
const INK = "#d8e0e8", DIM = "#8fa0b0", GRID = "#2a343e", LINE = "#6ec1ff", DOTS = "#ffd166";
const $ = (id) => document.getElementById(id);

let axes = null;   // what the stream is
let seen = null;   // what has been shown of the chosen product

function floats(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

function forget() {
  seen = { dumps: 0, start: 0, times: [], phase: [], amplitude: [], waterfall: [], occupancy: [] };
}

// ---------------------------------------------------------------- drawing

function prepare(id) {
  const canvas = $(id), ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.font = "11px system-ui, sans-serif";
  return { pen, width, height, left: MARGIN.left, top: MARGIN.top,
           w: width - MARGIN.left - MARGIN.right, h: height - MARGIN.top - MARGIN.bottom };
}

function range(values, least) {
  let low = Infinity, high = -Infinity;
  for (const v of values) if (Number.isFinite(v)) { low = Math.min(low, v); high = Math.max(high, v); }
  if (low > high) return null;
  const pad = Math.max((high - low) * 0.05, least / 2);
  return [low - pad, high + pad];
}

function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) found.push(v);
  return found;
}

const short = (v) => (Math.abs(v) >= 1e5 || (v !== 0 && Math.abs(v) < 1e-3)) ? v.toExponential(1) : String(+v.toPrecision(6));

function frameAxes(p, xs, ys, xLabel, yLabel) {
  const { pen } = p;
  pen.strokeStyle = GRID; pen.fillStyle = DIM; pen.lineWidth = 1;
  pen.textAlign = "right"; pen.textBaseline = "middle";
  for (const v of ticks(ys[0], ys[1], 4)) {
    const y = p.top + p.h * (1 - (v - ys[0]) / (ys[1] - ys[0]));
    pen.beginPath(); pen.moveTo(p.left, y); pen.lineTo(p.left + p.w, y); pen.stroke();
    pen.fillText(short(v), p.left - 5, y);
  }
  xTicks(p, xs, xLabel);
  pen.save(); pen.translate(10, p.top + p.h / 2); pen.rotate(-Math.PI / 2);
  pen.textAlign = "center"; pen.fillText(yLabel, 0, 0); pen.restore();
}

function xTicks(p, xs, label) {
  const { pen } = p;
  pen.fillStyle = DIM; pen.textAlign = "center"; pen.textBaseline = "top";
  for (const v of ticks(xs[0], xs[1], 5)) {
    const x = p.left + p.w * (v - xs[0]) / (xs[1] - xs[0]);
    if (x < p.left + p.w - 40) pen.fillText(short(v), x, p.top + p.h + 5);
  }
  pen.textAlign = "right";
  pen.fillText(label, p.left + p.w, p.top + p.h + 5);
}

function empty(p) {
  p.pen.fillStyle = DIM; p.pen.textAlign = "center";
  p.pen.fillText("no data", p.left + p.w / 2, p.top + p.h / 2);
}

function plot(id, x, y, options) {
  const p = prepare(id), ys = options.ys || range(y, options.least || 1e-6);
  const xs = [x[0], x[x.length - 1]];
  if (!ys || !(xs[1] > xs[0])) return empty(p);
  frameAxes(p, xs, ys, options.xLabel, options.yLabel);
  const { pen } = p;
  const at = (i) => [p.left + p.w * (x[i] - xs[0]) / (xs[1] - xs[0]),
                     p.top + p.h * (1 - (y[i] - ys[0]) / (ys[1] - ys[0]))];
  if (options.dots) {
    pen.fillStyle = DOTS;
    for (let i = 0; i < y.length; i++) if (Number.isFinite(y[i])) { const [a, b] = at(i); pen.fillRect(a - 1, b - 1, 2.4, 2.4); }
    return;
  }
  pen.strokeStyle = LINE; pen.lineWidth = 1.2; pen.beginPath();
  let down = false;
  for (let i = 0; i < y.length; i++) {
    if (!Number.isFinite(y[i])) { down = false; continue; }
    const [a, b] = at(i);
    if (down) pen.lineTo(a, b); else pen.moveTo(a, b);
    down = true;
  }
  pen.stroke();
}

// Dark blue over green to yellow: readable by the colour-blind, and in grey.
const STOPS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
function colour(f) {
  const x = Math.min(Math.max(f, 0), 1) * (STOPS.length - 1), i = Math.min(Math.floor(x), STOPS.length - 2);
  return STOPS[i].map((c, k) => Math.round(c + (STOPS[i + 1][k] - c) * (x - i)));
}
const COLOURS = Array.from({ length: 256 }, (_, i) => colour(i / 255));

function picture(id, rows, limits, label) {
  const p = prepare(id), freqs = axes.freqs;
  if (!rows.length || !limits) return empty(p);
  const image = new ImageData(freqs.length, rows.length);
  for (let r = 0; r < rows.length; r++) {
    const row = rows[rows.length - 1 - r];
    for (let i = 0; i < freqs.length; i++) {
      const f = (row[i] - limits[0]) / (limits[1] - limits[0]), o = 4 * (r * freqs.length + i);
      const c = Number.isFinite(f) ? COLOURS[Math.min(Math.max(Math.round(f * 255), 0), 255)] : [20, 20, 20];
      image.data[o] = c[0]; image.data[o + 1] = c[1]; image.data[o + 2] = c[2]; image.data[o + 3] = 255;
    }
  }
  const small = new OffscreenCanvas(freqs.length, rows.length);
  small.getContext("2d").putImageData(image, 0, 0);
  const { pen } = p, bar = 46;
  p.w -= bar;
  pen.imageSmoothingEnabled = false;
  pen.drawImage(small, p.left, p.top, p.w, p.h);
  xTicks(p, [freqs[0], freqs[freqs.length - 1]], "MHz");
  pen.textAlign = "right"; pen.textBaseline = "top"; pen.fillText("now", p.left - 5, p.top);
  pen.textBaseline = "bottom";
  const span = seen.times[seen.times.length - 1] - seen.times[0];
  pen.fillText(`−${short(Math.round(span))} s`, p.left - 5, p.top + p.h);
  for (let y = 0; y < p.h; y++) {
    pen.fillStyle = `rgb(${COLOURS[Math.round(255 * (1 - y / p.h))].join(",")})`;
    pen.fillRect(p.left + p.w + 6, p.top + y, 8, 1.5);
  }
  pen.fillStyle = DIM; pen.textAlign = "left"; pen.textBaseline = "top";
  pen.fillText(short(+limits[1].toPrecision(3)), p.left + p.w + 17, p.top);
  pen.textBaseline = "bottom";
  pen.fillText(short(+limits[0].toPrecision(3)), p.left + p.w + 17, p.top + p.h);
  pen.textBaseline = "middle"; pen.fillText(label, p.left + p.w + 17, p.top + p.h / 2);
}

function percentiles(rows, low, high) {
  const all = [];
  for (const row of rows) for (let i = 0; i < row.length; i += 4) if (Number.isFinite(row[i])) all.push(row[i]);
  if (!all.length) return null;
  all.sort((a, b) => a - b);
  const at = (f) => all[Math.min(Math.floor(f * all.length), all.length - 1)];
  return at(high) > at(low) ? [at(low), at(high)] : [at(low) - 0.5, at(low) + 0.5];
}

function bars(powers) {
  const p = prepare("powers"), ys = range([0, ...powers], 1e-6), n = powers.length;
  if (!n || !ys) return empty(p);
  ys[0] = 0;
  frameAxes(p, [0, n], ys, "", "power");
  const { pen } = p, step = p.w / n;
  pen.clearRect(p.left, p.top + p.h + 2, p.w + 20, 30);
  pen.textAlign = "center"; pen.textBaseline = "top";
  const every = Math.max(1, Math.ceil(46 / step));
  for (let i = 0; i < n; i++) {
    const good = Number.isFinite(powers[i]), h = good ? p.h * Math.max(powers[i], 0) / ys[1] : p.h;
    pen.fillStyle = good ? (axes.inputs[i] === chosenInput() ? DOTS : LINE) : "#5a2a2a";
    pen.fillRect(p.left + i * step + step * 0.1, p.top + p.h - h, step * 0.8, h);
    if (i % every === 0) { pen.fillStyle = DIM; pen.fillText(axes.inputs[i], p.left + (i + 0.5) * step, p.top + p.h + 5); }
  }
  $("powers").onclick = (event) => {
    const i = Math.floor((event.offsetX - p.left) / step);
    if (i >= 0 && i < n) choose(`${axes.inputs[i]}-${axes.inputs[i]}`);
  };
}

function chosenInput() {
  const [a, b] = $("product").value.split("-");
  return a === b ? a : null;
}

// ---------------------------------------------------------------- what is asked and shown

const decibel = (v) => 10 * Math.log10(v);

function draw(now) {
  const scale = $("decibel").checked ? decibel : (v) => v, unit = $("decibel").checked ? "dB Jy" : "Jy";
  const freqs = axes.freqs, map = (values) => Array.from(values, scale);
  plot("spectrum", freqs, map(now.spectrum), { xLabel: "MHz", yLabel: unit, least: 0.1 });
  plot("spectrum-phase", freqs, now.spectrumPhase, { xLabel: "MHz", yLabel: "degrees", ys: [-180, 180], dots: true });
  const age = seen.times.map((t) => t - seen.times[seen.times.length - 1]);
  plot("phase", age, seen.phase, { xLabel: "s", yLabel: "degrees", ys: [-180, 180], dots: true });
  plot("amplitude", age, map(seen.amplitude), { xLabel: "s", yLabel: unit, least: 0.1 });
  const rows = seen.waterfall.map((row) => row.map(scale));
  picture("waterfall", rows, percentiles(rows, 0.02, 0.98), unit);
  picture("occupancy", seen.occupancy, [0, 1], "part");
  bars(Array.from(now.powers));
}

function add(now) {
  const n = axes.freqs.length;
  if (now.start !== seen.start || now.dumps < seen.dumps) { forget(); seen.start = now.start; }
  const phase = floats(now.phase), amplitude = floats(now.amplitude);
  const waterfall = floats(now.waterfall), occupancy = floats(now.occupancy);
  now.times.forEach((time, k) => {
    seen.times.push(time); seen.phase.push(phase[k]); seen.amplitude.push(amplitude[k]);
    seen.waterfall.push(waterfall.subarray(k * n, (k + 1) * n));
    seen.occupancy.push(occupancy.subarray(k * n, (k + 1) * n));
  });
  seen.dumps = now.dumps;
  for (const key of ["times", "phase", "amplitude", "waterfall", "occupancy"]) {
    seen[key].splice(0, Math.max(seen[key].length - axes.depth, 0));
  }
  now.spectrum = floats(now.spectrum);
  now.spectrumPhase = floats(now.spectrum_phase);
  now.powers = floats(now.powers);
}

function tell(id, text, kind) {
  $(id).textContent = text;
  $(id).className = kind || "";
}

function header(now) {
  tell("block", now.capture_block || "none");
  const newest = seen.times[seen.times.length - 1];
  tell("time", newest === undefined ? "–" : new Date(newest * 1000).toISOString().slice(0, 19).replace("T", " ") + " UTC");
  tell("dumps", `${now.dumps - now.start}` + (now.skipped ? ` (${now.skipped} left out)` : ""));
  tell("heaps", `${now.heaps}, ${now.lost} lost`, now.lost ? "bad" : "");
  tell("flagged", `${(100 * now.flagged).toFixed(1)} %`, now.flagged > 0.5 ? "bad" : "");
  tell("state", now.status, now.status === "ok" ? "good" : "bad");
}

async function ask(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(10000) });
  if (!answer.ok) throw new Error((await answer.text()) || `HTTP ${answer.status}`);
  return answer.json();
}

async function update() {
  if ($("hold").checked) return;
  const product = $("product").value, mine = seen;
  const now = await ask(`api/frame?product=${encodeURIComponent(product)}&since=${seen.dumps}`);
  if (mine !== seen) return;  // another product was chosen meanwhile
  add(now);
  header(now);
  draw(now);
}

function choose(product) {
  $("product").value = product;
  const known = axes.products.includes(product);
  $("product").classList.toggle("wrong", !known);
  if (!known) return;
  forget();
  history.replaceState(null, "", `#${product}`);
  update().catch(failed);
}

function failed(error) {
  tell("state", error.message, "bad");
}

async function begin() {
  axes = await ask("api/stream");
  axes.freqs = floats(axes.freqs_mhz);
  document.title = `${axes.stream}: signal display`;
  $("stream").textContent = axes.stream;
  const names = axes.products.map((name) => { const o = document.createElement("option"); o.value = name; return o; });
  $("products").append(...names);
  $("product").addEventListener("change", () => choose($("product").value.trim()));
  $("choice").addEventListener("submit", (event) => event.preventDefault());
  const asked = decodeURIComponent(location.hash.slice(1));
  choose(axes.products.includes(asked) ? asked : axes.products.find((n) => !sameAntenna(n)) || axes.products[0]);
}

// Autocorrelations say little of the sky: begin with a product of two antennas.
const sameAntenna = (name) => { const [a, b] = name.split("-"); return a.slice(0, -1) === b.slice(0, -1); };

async function run() {
  for (;;) {
    try {
      if (axes === null) await begin(); else await update();
    } catch (error) { failed(error); }
    await new Promise((resume) => setTimeout(resume, PERIOD_MS));
  }
}

run();
