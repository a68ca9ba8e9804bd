"use strict";

// -- Figures and choices: no page needed ----------------------------------------------------------

/** Of `positions`, those that no other beats in both figures, by x from best to worst. */
function unbeaten(positions, x, y) {
  const better = (figure) => (figure.more ? (v) => -v : (v) => v);
  const [bx, by] = [better(x), better(y)];
  const key = (p) => [bx(x.values[p]), by(y.values[p])];
  const sorted = positions
    .map((p) => [...key(p), p])
    .sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]);
  const front = [];
  let best = Infinity;
  for (const [, value, position] of sorted) {
    if (value < best) {
      best = value;
      front.push(position);
    }
  }
  return front;
}

/** Positions of the points that keep all limits, which are {name: value}. */
function within(data, limits) {
  const names = Object.keys(limits);
  return [...data.parts.keys()].filter((p) =>
    names.every((name) => {
      const figure = data.figures[name];
      return figure.more ? figure.values[p] >= limits[name] : figure.values[p] <= limits[name];
    }),
  );
}

/** What a file with a point's design holds: the same as its to_json() writes. */
function designOf(data, position) {
  const variant = data.variants[data.variant[position]];
  const design = structuredClone(variant.design);
  variant.places.forEach((place, n) => {
    const inner = place.slice(0, -1).reduce((value, key) => value[key], design);
    inner[place.at(-1)] = data.parts[position][n];
  });
  return design;
}

function text(value) {
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en-US");
  return String(Number(value.toPrecision(4)));
}

/** Round values from low to high, about `count` of them. */
function ticks(low, high, log, count = 6) {
  if (log && high / low > 8) {
    const steps = high / low > 3000 ? [1] : [1, 2, 5];
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1)
      for (const step of steps) found.push(step * 10 ** power);
    return found.filter((v) => v >= low && v <= high);
  }
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => power * factor >= raw);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high * (1 + 1e-9); n += 1) found.push(n * step);
  return found;
}

if (typeof module !== "undefined") module.exports = { unbeaten, within, designOf, text, ticks };

// -- Drawing --------------------------------------------------------------------------------------

const FRAME = { width: 780, height: 470, left: 66, right: 18, top: 30, bottom: 46 };
const PINS = ["#c2410c", "#7c3aed", "#0f766e", "#be185d", "#4d7c0f"];
const MANY = 1000; // points from which on they are drawn smaller
const REACH = 26; // how near the pointer must come to a point

function svg(tag, attributes, parent, content) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (content !== undefined) node.textContent = content;
  parent?.append(node);
  return node;
}

function html(tag, attributes = {}, ...content) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined) node.setAttribute(name, value);
  }
  node.append(...content);
  return node;
}

/** A scale from values to pixels of the drawing. */
function scale(values, log, from, to) {
  let [low, high] = [Infinity, 0];
  for (const v of values) [low, high] = [v > 0 ? Math.min(low, v) : low, Math.max(high, v)];
  log &&= high > 0;
  if (log) [low, high] = [low / 1.15, high * 1.15];
  else [low, high] = [0, high * 1.05 || 1];
  const along = log ? (v) => Math.log(v / low) / Math.log(high / low) : (v) => (v - low) / (high - low);
  // Where the scale is logarithmic, zero is drawn at its edge.
  return { log, low, high, at: (v) => from + Math.max(0, along(v)) * (to - from) };
}

/** A plot of two figures of all points. What it shows is given to draw(). */
class Plot {
  constructor(node, { onhover, onpick, onstep }) {
    this.node = node;
    this.onhover = onhover;
    node.setAttribute("viewBox", `0 0 ${FRAME.width} ${FRAME.height}`);
    node.addEventListener("pointermove", (event) => this.hover(event));
    node.addEventListener("click", (event) => {
      const found = this.hover(event);
      if (found !== undefined) onpick(found);
    });
    node.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      if (step) onstep(step, this.line);
      else if (event.key === "Home" || event.key === "End") onstep(event.key, this.line);
      else if (event.key === "Enter" || event.key === " ") onpick();
      else return;
      event.preventDefault();
    });
  }

  hover(event) {
    const place = new DOMPoint(event.clientX, event.clientY);
    const { x, y } = place.matrixTransform(this.node.getScreenCTM().inverse());
    let [found, least] = [undefined, REACH ** 2];
    for (const p of this.shown) {
      // Points of the line are preferred to what lies just behind them.
      const away = (this.px[p] - x) ** 2 + (this.py[p] - y) ** 2 + (this.onLine.has(p) ? 0 : 16);
      if (away < least) [found, least] = [p, away];
    }
    if (found !== undefined) this.onhover(found);
    return found;
  }

  /** `speed` is the figure whose best points stand out, if it is not y; then no line joins them. */
  draw({ x, y, speed, shown, marks, limits, knee }) {
    const { width, height, left, right, top, bottom } = FRAME;
    const known = (of) => marks.map((mark) => mark[of]).filter((v) => v != null);
    this.x = scale([...x.values, ...known("x")], x.log, left, width - right);
    this.y = scale([...y.values, ...known("y")], y.log, height - bottom, top);
    this.px = x.values.map(this.x.at);
    this.py = y.values.map(this.y.at);
    this.shown = shown;
    const best = unbeaten(shown, x, speed ?? y);
    this.onLine = new Set(best);
    this.line = [...best].sort((a, b) => this.px[a] - this.px[b]);

    this.node.replaceChildren();
    this.axes(x, y);
    for (const { axis, value, words } of limits) this.limit(axis, value, words);
    if (!speed) svg("path", { class: "stairs", d: this.stairs(x) }, this.node);
    const pale = shown.filter((p) => !this.onLine.has(p));
    const dots = pale.map((p) => `M${this.px[p].toFixed(1)} ${this.py[p].toFixed(1)}h0`);
    const size = shown.length > MANY ? 2.6 : 3.6;
    const style = { class: "pale", "stroke-width": 1.25 * size };
    svg("path", { ...style, d: dots.join("") }, this.node);
    for (const p of best)
      svg("circle", { class: "best", cx: this.px[p], cy: this.py[p], r: size }, this.node);
    this.published(marks);
    if (shown.includes(knee)) {
      const [cx, cy] = [this.px[knee], this.py[knee]];
      svg("circle", { class: "knee", cx, cy, r: 8 }, this.node);
      svg("text", { class: "knee-text halo", x: cx + 11, y: cy + 14 }, this.node, "knee");
    }
    this.top = svg("g", {}, this.node);
  }

  axes(x, y) {
    const { width, height, left, right, top, bottom } = FRAME;
    for (const v of ticks(this.x.low, this.x.high, this.x.log)) {
      const at = this.x.at(v);
      svg("path", { class: "grid", d: `M${at} ${top}V${height - bottom}` }, this.node);
      svg("text", { x: at, y: height - bottom + 18, "text-anchor": "middle" }, this.node, text(v));
    }
    for (const v of ticks(this.y.low, this.y.high, this.y.log)) {
      const at = this.y.at(v);
      svg("path", { class: "grid", d: `M${left} ${at}H${width - right}` }, this.node);
      svg("text", { x: left - 8, y: at + 4, "text-anchor": "end" }, this.node, text(v));
    }
    const middle = (left + width - right) / 2;
    const under = { class: "title", x: middle, y: height - 8, "text-anchor": "middle" };
    svg("text", under, this.node, x.label);
    svg("text", { class: "title", x: 6, y: 16 }, this.node, y.label);
  }

  limit(axis, value, words) {
    const { width, height, left, right, top, bottom } = FRAME;
    const own = this[axis];
    if (value > own.high || value < own.low) return;
    const at = own.at(value);
    const d = axis === "x" ? `M${at} ${top}V${height - bottom}` : `M${left} ${at}H${width - right}`;
    svg("path", { class: "limit", d }, this.node);
    const place = axis === "x" ? { x: at - 6, y: top + 12 } : { x: width - right - 4, y: at - 6 };
    svg("text", { class: "limit-text halo", ...place, "text-anchor": "end" }, this.node, words);
  }

  /** The best that can be had with each amount of x. */
  stairs(x) {
    const [px, py] = [this.px, this.py];
    const next = (p) => (x.more ? `V${py[p]}H${px[p]}` : `H${px[p]}V${py[p]}`);
    return this.line.map((p, n) => (n ? next(p) : `M${px[p]} ${py[p]}`)).join("");
  }

  published(marks) {
    const { width, left, right } = FRAME;
    const used = [];
    const known = marks.filter((mark) => mark.y != null);
    for (const mark of [...known].sort((a, b) => b.y - a.y)) {
      const y = this.y.at(mark.y);
      let x = width - right;
      if (mark.x == null) {
        svg("path", { class: "mark-line", d: `M${left} ${y}H${x}` }, this.node);
      } else {
        x = this.x.at(mark.x);
        svg("path", { class: "mark", d: `M${x} ${y - 6}l6 6l-6 6l-6 -6z` }, this.node)
          .append(svg("title", {}, null, mark.source));
      }
      const end = x > width * 0.62;
      let at = mark.x == null ? y - 5 : y + 4;
      while (used.some((other) => Math.abs(other - at) < 14)) at += 14;
      used.push(at);
      const place = { x: mark.x == null ? x - 4 : x + (end ? -10 : 10), y: at };
      const style = { class: "mark-text halo", "text-anchor": end ? "end" : "start" };
      svg("text", { ...style, ...place }, this.node, mark.label);
    }
  }

  /** What changes with the pointer: the current point and the pinned ones. */
  point(current, pinned) {
    const { height, left, bottom } = FRAME;
    this.top.replaceChildren();
    if (current !== undefined) {
      const [cx, cy] = [this.px[current], this.py[current]];
      svg("path", { class: "cross", d: `M${left} ${cy}H${cx}V${height - bottom}` }, this.top);
      svg("circle", { class: "here", cx, cy, r: 6.5 }, this.top);
    }
    pinned.forEach((p, n) => {
      const [cx, cy] = [this.px[p], this.py[p]];
      svg("circle", { class: "pin", cx, cy, r: 8, fill: PINS[n] }, this.top);
      svg("text", { class: "pin-text", x: cx, y: cy + 4 }, this.top, letter(n));
    });
  }
}

function letter(n) {
  return String.fromCharCode(65 + n);
}

// -- The page -------------------------------------------------------------------------------------

const ROWS = 100; // of the table, until all are asked for

class Page {
  constructor(data) {
    this.data = data;
    this.figures = data.figures;
    for (const [name, figure] of Object.entries(this.figures)) Object.assign(figure, { name });
    this.limits = {};
    this.pinned = [];
    const linked = Number(location.hash.slice(1) || NaN); // front.html#12 opens with design 12
    this.current = linked in data.parts ? linked : data.knee;
    this.sorted = { name: "samples_per_s", down: true };
    this.rows = ROWS;
    this.axes = { ...data.axes, xlog: false, ylog: false };
    const acts = {
      onhover: (p) => this.look(p),
      onpick: (p) => this.pin(p ?? this.current),
      onstep: (step, line) => this.step(step, line),
    };
    this.plots = [new Plot(by("plot"), acts), new Plot(by("efficiency"), acts)];
    this.controls();
    this.sliders();
    for (const tile of document.querySelectorAll("[data-point]"))
      tile.addEventListener("click", () => this.look(Number(tile.dataset.point)));
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.pinned.length) this.unpin();
    });
    this.draw();
  }

  controls() {
    for (const axis of ["x", "y"]) {
      for (const [name, { label }] of Object.entries(this.figures)) {
        const selected = name === this.axes[axis] ? "" : undefined;
        by(axis).append(html("option", { value: name, selected }, label));
      }
      by(axis).addEventListener("change", (event) => {
        this.axes[axis] = event.target.value;
        this.draw();
      });
      by(`${axis}log`).addEventListener("change", (event) => {
        this.axes[`${axis}log`] = event.target.checked;
        this.draw();
      });
    }
    by("reset").addEventListener("click", () => {
      this.limits = {};
      this.sliders();
      this.draw();
    });
    by("only").addEventListener("change", () => this.table());
    by("more").addEventListener("click", () => { this.rows = Infinity; this.table(); });
    by("unpin").addEventListener("click", () => this.unpin());
  }

  /** A slider for each figure that differs; it moves from one point's value to the next. */
  sliders() {
    by("sliders").replaceChildren();
    for (const name of this.data.limited) {
      const figure = this.figures[name];
      const values = [...new Set(figure.values)].sort((a, b) => (figure.more ? a - b : b - a));
      if (values.length < 2) continue;
      const output = html("output", {}, "any");
      const input = html("input", { type: "range", min: 0, max: values.length - 1, value: 0 });
      input.addEventListener("input", () => {
        const value = values[Number(input.value)];
        const most = Number(input.value) === 0;
        if (most) delete this.limits[name];
        else this.limits[name] = value;
        const words = most ? "any" : `at ${figure.more ? "least" : "most"} ${text(value)}`;
        output.textContent = words;
        input.setAttribute("aria-valuetext", words);
        cancelAnimationFrame(this.waiting);
        this.waiting = requestAnimationFrame(() => this.draw());
      });
      by("sliders").append(html("label", {}, figure.label, output, input));
    }
  }

  axis(name, log) {
    return { ...this.figures[name], log };
  }

  marksFor(x, y) {
    return this.data.published
      .filter((work) => work[y] != null && (work[x] != null || y === "samples_per_s"))
      .map((work) => {
        const unknown = work[x] == null ? `: ${this.figures[x].label} not stated` : "";
        return { ...work, x: work[x], y: work[y], label: `${work.label}${unknown}` };
      });
  }

  draw() {
    const { data, axes } = this;
    const shown = within(data, this.limits);
    const limits = ["x", "y"]
      .filter((axis) => axes[axis] in data.device)
      .map((axis) => {
        const has = data.device[axes[axis]];
        return { axis, value: has, words: `${data.device.name} has ${text(has)}` };
      });
    this.plots[0].draw({
      x: this.axis(axes.x, axes.xlog),
      y: this.axis(axes.y, axes.ylog),
      shown,
      limits,
      marks: this.marksFor(axes.x, axes.y),
      knee: data.knee,
    });
    const [ceiling, words] = [data.ceiling, "a multiply-accumulate in each DSP and cycle"];
    this.plots[1].draw({
      x: this.axis("dsp", true),
      y: this.axis("gops_per_dsp", false),
      speed: this.figures.samples_per_s,
      shown,
      limits: [{ axis: "y", value: ceiling, words }],
      marks: this.marksFor("dsp", "gops_per_dsp"),
      knee: data.knee,
    });
    const all = data.parts.length;
    by("count").textContent =
      shown.length === all ? `${text(all)} designs` : `${text(shown.length)} of ${text(all)} designs`;
    by("none").hidden = shown.length > 0;
    this.look(this.current);
    this.table();
    this.compare();
  }

  look(position) {
    this.current = position;
    for (const plot of this.plots) plot.point(position, this.pinned);
    this.record(position);
    by("rows").querySelector(".current")?.classList.remove("current");
    by("rows").querySelector(`[data-row="${position}"]`)?.classList.add("current");
    const figures = [this.axes.y, this.axes.x].map((name) => this.figures[name]);
    const said = figures.map(({ label, values }) => `${text(values[position])} ${label}`);
    by("said").textContent = `Design ${position}: ${said.join(", ")}`;
  }

  step(step, line) {
    if (!line.length) return;
    const at = line.indexOf(this.current);
    if (step === "Home" || at < 0) this.look(line[0]);
    else if (step === "End") this.look(line.at(-1));
    else this.look(line[Math.min(line.length - 1, Math.max(0, at + step))]);
  }

  pin(position) {
    const at = this.pinned.indexOf(position);
    if (at >= 0) this.pinned.splice(at, 1);
    else this.pinned = [...this.pinned, position].slice(-PINS.length);
    this.look(position);
    this.table();
    this.compare();
  }

  unpin() {
    this.pinned = [];
    this.look(this.current);
    this.table();
    this.compare();
  }

  /** Everything about one point. */
  record(position) {
    const { data, figures } = this;
    const badges = [];
    if (position === 0) badges.push(html("span", { class: "badge" }, "fastest"));
    if (position === data.knee) badges.push(html("span", { class: "badge knee" }, "knee"));
    const head = html("h2", {}, `Design ${position}`, ...badges);
    const rows = Object.values(figures).map(({ name, label, values }) => {
      const has = data.device[name];
      const share = has ? `${Math.round((100 * values[position]) / has)} %` : "";
      const cell = html("td", { class: "dim" }, share);
      if (has) {
        const width = `width:${Math.min(100, (100 * values[position]) / has)}%`;
        cell.prepend(html("span", { class: "bar" }, html("i", { style: width })), " ");
      }
      return html("tr", {}, html("td", { class: "dim" }, label),
        html("td", { class: "n" }, text(values[position])), cell);
    });
    const folded = Array.isArray(data.parts[position][0]); // else numbers of words
    const parts = data.names.map((name, n) => {
      const part = data.parts[position][n];
      return html("tr", {}, html("td", {}, name),
        html("td", { class: folded ? undefined : "n" }, folded ? part.join(" × ") : text(part)),
        ...(folded ? [html("td", { class: "n" }, text(part.reduce((a, b) => a * b)))] : []));
    });
    const titles = html("tr", {}, html("th", {}, data.part), html("th", {}, data.chosen),
      ...(folded ? [html("th", { class: "n" }, "multipliers")] : []));
    const variant = data.variants[data.variant[position]].text;
    const pinned = this.pinned.includes(position);
    by("record").replaceChildren(
      head,
      html("table", {}, html("tbody", {}, ...rows)),
      html("table", {}, html("tbody", {}, titles, ...parts)),
      ...(variant ? [html("p", { class: "dim" }, variant)] : []),
      html("div", { class: "under" },
        html("button", { class: "plain", onclick: () => this.pin(position) },
          pinned ? "Unpin" : "Pin to compare"),
        html("button", { class: "plain", onclick: () => this.save(position) }, "Save design.json")),
      html("pre", { title: "builds the saved design" }, data.command),
    );
  }

  save(position) {
    const content = JSON.stringify(designOf(this.data, position), null, 2);
    const link = html("a", { download: "design.json" });
    link.href = URL.createObjectURL(new Blob([`${content}\n`], { type: "application/json" }));
    link.click();
    URL.revokeObjectURL(link.href);
  }

  table() {
    const { data, figures, sorted } = this;
    const line = new Set(this.plots[0].line);
    const only = by("only").checked;
    const { values } = figures[sorted.name];
    const sign = sorted.down ? -1 : 1;
    const positions = within(data, this.limits)
      .filter((p) => !only || line.has(p))
      .sort((a, b) => sign * (values[a] - values[b]) || a - b);
    const titles = Object.values(figures).map(({ name, label }) => {
      const sort = () => {
        this.sorted = { name, down: sorted.name === name ? !sorted.down : figures[name].more };
        this.table();
        by("titles").querySelector("[aria-sort] button").focus();
      };
      const order = sorted.down ? "descending" : "ascending";
      const arrow = sorted.name === name ? (sorted.down ? " ↓" : " ↑") : "";
      return html("th", { class: "n", "aria-sort": sorted.name === name ? order : undefined },
        html("button", { onclick: sort }, `${label}${arrow}`));
    });
    const several = data.variants.length > 1;
    by("titles").replaceChildren(html("th", {}, ""), html("th", { class: "n" }, ""), ...titles,
      ...(several ? [html("th", {}, "variant")] : []),
      ...data.names.map((name) => html("th", {}, name)));
    const rows = positions.slice(0, this.rows).map((p) => this.row(p, line, several));
    by("rows").replaceChildren(...rows);
    by("more").hidden = positions.length <= this.rows;
    by("more").textContent = `Show all ${text(positions.length)}`;
  }

  row(p, line, several) {
    const { data, figures } = this;
    const at = this.pinned.indexOf(p);
    const style = at < 0 ? undefined : `background:${PINS[at]};color:#fff`;
    const pinner = html("button", {
      class: "plain pinner", style, "aria-pressed": at >= 0, "aria-label": `Pin design ${p}`,
      onclick: () => {
        this.pin(p);
        by("rows").querySelector(`[data-row="${p}"] button`)?.focus();
      },
    }, at < 0 ? "+" : letter(at));
    const look = () => { if (this.current !== p) this.look(p); };
    const kind = `${line.has(p) ? "" : "beaten"}${p === this.current ? " current" : ""}`;
    return html("tr", { "data-row": p, class: kind, onpointerenter: look, onfocusin: look },
      html("td", {}, pinner),
      html("td", { class: "n dim" }, String(p)),
      ...Object.values(figures).map(({ values }) => html("td", { class: "n" }, text(values[p]))),
      ...(several ? [html("td", {}, data.variants[data.variant[p]].text)] : []),
      ...data.texts[p].map((chosen) => html("td", {}, String(chosen))));
  }

  /** Pinned points side by side; the best figure of each row stands out. */
  compare() {
    by("comparison").hidden = !this.pinned.length;
    const { data, figures, pinned } = this;
    const chip = (p, n) => html("span", { class: "chip", style: `background:${PINS[n]}` }, letter(n));
    const head = html("tr", {}, html("th", {}, ""),
      ...pinned.map((p, n) => html("th", { class: "n" }, chip(p, n), ` ${p}`)));
    const rows = Object.values(figures).map(({ label, values, more }) => {
      const own = pinned.map((p) => values[p]);
      const best = more ? Math.max(...own) : Math.min(...own);
      const top = (v) => (own.length > 1 && v === best ? "n top" : "n");
      return html("tr", {}, html("td", { class: "dim" }, label),
        ...own.map((v) => html("td", { class: top(v) }, text(v))));
    });
    const parts = data.names.map((name, n) => html("tr", {}, html("td", { class: "dim" }, name),
      ...pinned.map((p) => html("td", { class: "n" }, String(data.texts[p][n])))));
    by("compared").replaceChildren(html("table", {}, html("tbody", {}, head, ...rows, ...parts)));
  }
}

function by(id) {
  return document.getElementById(id);
}

if (typeof document !== "undefined") new Page(JSON.parse(by("data").textContent));
