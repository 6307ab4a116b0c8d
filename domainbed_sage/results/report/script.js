"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const svgNamespace = "http://www.w3.org/2000/svg";

function made(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function drawn(name, attributes = {}, text = "") {
  const node = document.createElementNS(svgNamespace, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
}

// Sorting: numbers by size, texts by alphabet, what is no number below all numbers

function rank(text) {
  const number = parseFloat(text.replace("−", "-").replace(/^</, ""));
  return Number.isNaN(number) ? null : number;
}

function compared(a, b) {
  const [x, y] = [rank(a), rank(b)];
  if (x !== null && y !== null) return x - y || a.localeCompare(b);
  return (x === null) - (y === null) || a.localeCompare(b, undefined, { numeric: true });
}

function turned(header) {
  const others = header.parentNode.querySelectorAll("[aria-sort]");
  const falling = header.getAttribute("aria-sort") ? header.getAttribute("aria-sort") === "ascending" : header.classList.contains("n");
  others.forEach((other) => other.removeAttribute("aria-sort"));
  header.setAttribute("aria-sort", falling ? "descending" : "ascending");
  return falling;
}

function withButton(header, act) {
  const button = made("button", { type: "button" }, ...header.childNodes);
  button.addEventListener("click", () => act(turned(header)));
  header.append(button);
}

function sortable(table) {
  for (const header of table.tHead.rows[table.tHead.rows.length - 1].cells) {
    if (header.tagName !== "TH") continue;
    withButton(header, (falling) => {
      const text = (row) => row.cells[header.cellIndex].textContent.trim();
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort((a, b) => {
        const gap = (rank(text(a)) === null) - (rank(text(b)) === null);
        return header.classList.contains("n") && gap ? gap : (falling ? -1 : 1) * compared(text(a), text(b));
      }));
    });
  }
}

// Copying

function copied(button, text) {
  const said = button.textContent;
  const done = () => { button.textContent = "Copied"; setTimeout(() => { button.textContent = said; }, 1500); };
  const byHand = () => {
    const area = made("textarea", { "aria-label": "text to copy" });
    area.value = text;
    button.after(area);
    area.select();
    if (document.execCommand("copy")) { area.remove(); done(); }
  };
  if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, byHand); else byHand();
}

const copies = {
  ...data.copies,
  verdict: byId("verdict-text")?.innerText,
  bibtex: byId("bibtex").textContent,
};
for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", () => copied(button, copies[button.dataset.copy]));
}

// Curves

const margin = { left: 48, right: 12, top: 10, bottom: 34 };
const size = { height: 340 };

function niceTicks(low, high, most) {
  const power = 10 ** Math.floor(Math.log10((high - low) / most));
  const step = [1, 2, 5, 10, 20].map((times) => times * power).find((own) => (high - low) / own < most);
  const ticks = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + 1e-9 * step; at++) ticks.push(Number((at * step).toPrecision(12)));
  return ticks;
}

function shown(value) {
  if (value === null || value === undefined) return "–";
  return String(Math.abs(value) >= 10 ? value.toFixed(1) : Number(value.toPrecision(3))).replace("-", "−");
}

function looks(method) {
  const at = data.methods.indexOf(method);
  return `m${at}`;
}

function chosenCurves() {
  const dataset = data.curves[byId("curve-dataset").value];
  const measure = byId("curve-measure").value;
  const env = Number(byId("curve-env").value);
  const lines = dataset.lines[measure] ?? {};
  const from = Number(byId("curve-steps").value) * dataset.steps.at(-1);
  return data.methods.filter((method) => lines[method]?.[env]).map((method) => ({
    method,
    points: lines[method][env].map((y, at) => [dataset.steps[at], y]).filter(([x, y]) => y !== null && x >= from),
    selected: measure === "selected_so_far" ? dataset.selected[method][env] : [],
    on: data.drawn.includes(method),
  })).filter((curve) => curve.points.length);
}

function plot() {
  const curves = chosenCurves();
  legend(curves);
  const visible = curves.filter((curve) => curve.on);
  const width = Math.max(280, byId("curve-plot").clientWidth);
  const svg = drawn("svg", { class: "plot", height: size.height, viewBox: `0 0 ${width} ${size.height}`, role: "img" });
  const all = visible.flatMap((curve) => curve.points);
  byId("curve-plot").replaceChildren(all.length ? svg : made("p", { class: "why" }, "Nothing is chosen that has this measure."));
  if (!all.length) return;
  const name = byId("curve-measure").selectedOptions[0].textContent;
  svg.setAttribute("aria-label", `${name} by training step; the last values stand beside the methods`);
  const ends = (values) => [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  const [x0, x1] = ends(all.map(([x]) => x));
  let [y0, y1] = ends(all.map(([, y]) => y));
  const room = (y1 - y0 || Math.abs(y0) || 1) * 0.05;
  [y0, y1] = [y0 - room, y1 + room];
  const across = (x) => margin.left + (x - x0) / (x1 - x0 || 1) * (width - margin.left - margin.right);
  const down = (y) => size.height - margin.bottom - (y - y0) / (y1 - y0) * (size.height - margin.top - margin.bottom);
  axes(svg, width, [x0, x1, across], [y0, y1, down]);
  for (const { method, points, selected } of visible) {
    const path = points.map(([x, y], at) => `${at ? "L" : "M"}${across(x).toFixed(1)} ${down(y).toFixed(1)}`).join("");
    const line = drawn("path", { class: `line ${looks(method)}`, d: path });
    line.append(drawn("title", {}, method));
    svg.append(line);
    for (const [x, y] of points) {
      if (selected.includes(x)) svg.append(drawn("circle", { class: `mark ${looks(method)}`, cx: across(x), cy: down(y), r: 3.5 }));
    }
  }
}

function axes(svg, width, [x0, x1, across], [y0, y1, down]) {
  for (const y of niceTicks(y0, y1, 7)) {
    svg.append(drawn("line", { class: "grid", x1: margin.left, x2: width - margin.right, y1: down(y), y2: down(y) }));
    svg.append(drawn("text", { x: margin.left - 8, y: down(y) + 4, "text-anchor": "end" }, String(y).replace("-", "−")));
  }
  for (const x of niceTicks(x0, x1 === x0 ? x0 + 1 : x1, width < 500 ? 5 : 9)) {
    svg.append(drawn("text", { x: across(x), y: size.height - margin.bottom + 18, "text-anchor": "middle" }, String(x)));
  }
  svg.append(drawn("text", { x: width - margin.right, y: size.height - 2, "text-anchor": "end" }, "training step"));
}

function legend(curves) {
  byId("curve-methods").replaceChildren(...curves.map(({ method, points, on }) => {
    const box = made("input", { type: "checkbox" });
    box.checked = on;
    box.addEventListener("change", () => {
      data.drawn = box.checked ? [...data.drawn, method] : data.drawn.filter((other) => other !== method);
      const at = [...byId("curve-methods").querySelectorAll("input")].indexOf(box);
      plot();
      byId("curve-methods").querySelectorAll("input")[at].focus();
    });
    const swatch = drawn("svg", { width: 26, height: 10, "aria-hidden": "true" });
    swatch.append(drawn("path", { class: `line ${looks(method)}`, d: "M0 5H26" }));
    const name = made("span", { class: "name" }, method);
    return made("label", {}, box, swatch, name, made("span", { class: "value" }, shown(points.at(-1)[1])));
  }));
}

function options(select, entries) {
  const before = select.value;
  select.replaceChildren(...entries.map(([value, text]) => made("option", { value }, text)));
  if (entries.some(([value]) => String(value) === before)) select.value = before;
}

function offered() {
  const dataset = data.curves[byId("curve-dataset").value];
  options(byId("curve-env"), dataset.environments.map((name, at) => [at, name]));
  options(byId("curve-measure"), Object.keys(dataset.lines).map((name) => [name, data.measures[name] ?? name]));
  plot();
}

if (byId("curves-tool")) {
  byId("curves-tool").hidden = false;
  options(byId("curve-dataset"), data.curves.map((own, at) => [at, own.name]));
  byId("curve-dataset").addEventListener("change", offered);
  for (const id of ["curve-env", "curve-measure", "curve-steps"]) byId(id).addEventListener("change", plot);
  addEventListener("resize", plot);
  offered();
}

// Runs

const first = 100;
const runColumns = ["State", "Dataset", "Method", "Held out", "Trial", "Step", "Validation", "Accuracy", "Setting", "Folder"];
const runNumbers = [4, 5, 6, 7, 8];
let runRows = data.runs.map((row) => row.map((value) => value ?? ""));
let allRuns = false;

function listed() {
  const words = byId("run-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const kept = runRows.filter((row) => {
    const text = row.join("\t").toLowerCase();
    return words.every((word) => text.includes(word));
  });
  const visible = allRuns ? kept : kept.slice(0, first);
  const cell = (value, at) => made("td", runNumbers.includes(at) ? { class: "n" } : {}, String(value));
  byId("run-list").querySelector("tbody").replaceChildren(...visible.map((row) => made("tr", {}, ...row.map(cell))));
  byId("run-count").textContent = `${kept.length} of ${runRows.length} runs${visible.length < kept.length ? `, the first ${visible.length} are shown` : ""}`;
  byId("run-all").hidden = visible.length === kept.length;
}

function runTable() {
  const heads = runColumns.map((name, at) => {
    const header = made("th", { scope: "col", class: runNumbers.includes(at) ? "n" : "" }, name);
    withButton(header, (falling) => {
      runRows = [...runRows].sort((a, b) => (falling ? -1 : 1) * compared(String(a[at]), String(b[at])));
      listed();
    });
    return header;
  });
  byId("run-list").append(made("table", {}, made("thead", {}, made("tr", {}, ...heads)), made("tbody")));
  byId("run-filter").addEventListener("input", listed);
  byId("run-all").addEventListener("click", () => { allRuns = true; listed(); });
  byId("runs-tool").hidden = false;
  listed();
}

document.querySelectorAll("table.sortable").forEach(sortable);
runTable();
document.documentElement.dataset.ready = Math.round(performance.now());
