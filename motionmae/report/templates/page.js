"use strict";
// Charts as SVG, sliders, and tables that sort. Names reach the page as text alone, so that none of them is markup.
(() => {
  const COLOURS = ["#2f6fde", "#d9622b", "#2a9d63", "#a35fe0", "#c8324b", "#0e8a9e", "#c2911d", "#d45ba8", "#7c8a3a", "#8a6a55"];
  const DASHES = ["", "8 4", "2 3", "10 3 2 3"];
  const W = 460, H = 250, LEFT = 56, RIGHT = 26, TOP = 10, BOTTOM = 36;
  const off = new Set();
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const made = (name, words, kind) => {
    const node = document.createElement(name);
    if (words !== undefined) node.textContent = words;
    if (kind) node.className = kind;
    return node;
  };
  const short = value => {
    const size = Math.abs(value);
    return size && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : String(+value.toPrecision(4));
  };

  // Charts: one legend, one log axis and one smoothing for all that stand together; one colour a name on the page.
  const groups = all(".charts").map(box => ({box, charts: all(".chart", box), log: false, smooth: 0, lit: null}));
  all(".chart").filter(chart => !chart.closest(".charts")).forEach(chart => {
    const controls = made("div", undefined, "controls");
    chart.after(controls);
    groups.push({box: chart.parentNode, bar: controls, charts: [chart], log: false, smooth: 0, lit: null});
  });
  groups.forEach(group => group.charts.forEach(chart => { chart.data = JSON.parse(chart.dataset.chart); }));
  const trivial = name => name.startsWith("trivial");
  const names = [...new Set(groups.flatMap(group => group.charts.flatMap(chart => chart.data.series.map(line => line.name))))];
  const styles = new Map();
  names.filter(name => !trivial(name)).forEach((name, at) => styles.set(name,
    {colour: COLOURS[at % COLOURS.length], dash: DASHES[Math.floor(at / COLOURS.length) % DASHES.length]}));
  names.filter(trivial).forEach(name => styles.set(name, {colour: "#808690", dash: "5 4"}));
  const stroke = name => `stroke="${styles.get(name).colour}" stroke-dasharray="${styles.get(name).dash}"`;

  const ticks = (low, high, log) => {
    if (log && high - low >= 1) {
      const step = Math.ceil((high - low) / 6);
      return Array.from({length: Math.floor(high) - Math.ceil(low) + 1}, (_, at) => Math.ceil(low) + at).filter(tick => tick % step === 0);
    }
    const raw = (high - low) / 5, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map(part => part * power).find(part => part >= raw * 0.999);
    const found = [];
    for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-6; tick += step) found.push(tick);
    return found;
  };
  const smoothed = (values, weight) => {
    let mean = 0, share = 0;
    return values.map(value => {
      if (value === null) return null;
      mean = weight * mean + (1 - weight) * value;
      share = weight * share + 1 - weight;
      return mean / share;
    });
  };

  function draw(group, chart) {
    const scale = group.log ? Math.log10 : value => value;
    const lines = chart.data.series.filter(line => !off.has(line.name)).map(line => {
      const soft = group.smooth && !trivial(line.name) ? smoothed(line.y, group.smooth) : line.y;
      const points = line.x.map((x, at) => [x, soft[at], line.y[at]]).filter(p => p[1] !== null && (!group.log || p[1] > 0));
      return {name: line.name, points, raw: soft !== line.y};
    }).filter(line => line.points.length);
    const xs = lines.flatMap(line => line.points.map(p => p[0])), ys = lines.flatMap(line => line.points.map(p => scale(p[1])));
    const plot = chart.querySelector(".plot");
    if (!xs.length) { plot.textContent = "nothing is shown"; return; }
    const most = list => list.reduce((a, b) => Math.max(a, b)), least = list => list.reduce((a, b) => Math.min(a, b));
    let [x0, x1, y0, y1] = [Math.min(0, least(xs)), most(xs), least(ys), most(ys)];
    if (x1 === x0) x1 = x0 + 1;
    if (!group.log && y0 > 0 && y0 < 0.6 * y1) y0 = 0;
    const room = y1 > y0 ? (y1 - y0) * 0.05 : Math.abs(y1) * 0.1 || 0.5;
    y1 += room;
    if (y0 !== 0 || group.log) y0 -= room;
    const px = x => LEFT + (W - LEFT - RIGHT) * (x - x0) / (x1 - x0), py = y => TOP + (H - TOP - BOTTOM) * (y1 - scale(y)) / (y1 - y0);
    const at = number => number.toFixed(1);
    let svg = "";
    for (const tick of ticks(y0, y1, group.log)) {
      const value = group.log ? 10 ** tick : tick, y = at(py(value));
      svg += `<line x1="${LEFT}" x2="${W - RIGHT}" y1="${y}" y2="${y}" stroke="#8884"/><text x="${LEFT - 6}" y="${+y + 4}" text-anchor="end">${short(value)}</text>`;
    }
    for (const tick of ticks(x0, x1, false)) svg += `<text x="${at(px(tick))}" y="${H - BOTTOM + 18}" text-anchor="middle">${short(tick)}</text>`;
    for (const line of lines) {
      const faint = group.lit && group.lit !== line.name ? 0.15 : 1;
      const path = which => {
        const places = line.points.filter(p => p[which] !== null && (!group.log || p[which] > 0)).map(p => `${at(px(p[0]))} ${at(py(p[which]))}`);
        return "M" + places.join("L") + (places.length === 1 ? "h0" : "");
      };
      const look = `fill="none" ${stroke(line.name)} stroke-linejoin="round" stroke-linecap="${line.points.length === 1 ? "round" : "butt"}"`;
      if (line.raw) svg += `<path d="${path(2)}" ${look} stroke-width="1" opacity="${0.25 * faint}"/>`;
      svg += `<path d="${path(1)}" ${look} stroke-width="${line.points.length === 1 ? 6 : 2}" opacity="${faint}"/>`;
    }
    plot.innerHTML = `<svg viewBox="0 0 ${W} ${H}">${svg}<line class="ruler" y1="${TOP}" y2="${H - BOTTOM}" stroke="#8888" visibility="hidden"/></svg>`;
    const label = made("div", chart.data.x_label);
    label.style.cssText = "text-align:right;margin-top:-.3rem;padding-right:1.6rem;font-size:.75rem;line-height:1.1;opacity:.7";
    plot.append(label);
    follow(plot, lines, x0, x1, px, py, chart.data.x_label);
  }

  function follow(plot, lines, x0, x1, px, py, word) {
    const svg = plot.querySelector("svg"), ruler = plot.querySelector(".ruler"), tip = made("div", undefined, "tip");
    tip.hidden = true;
    plot.append(tip);
    const leave = () => { tip.hidden = true; ruler.setAttribute("visibility", "hidden"); };
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("pointermove", event => {
      const area = svg.getBoundingClientRect(), there = (event.clientX - area.left) / area.width * W, high = (event.clientY - area.top) / area.height * H;
      const x = x0 + (there - LEFT) / (W - LEFT - RIGHT) * (x1 - x0);
      const near = lines.map(line => {
        const point = line.points.reduce((best, p) => Math.abs(p[0] - x) < Math.abs(best[0] - x) ? p : best);
        return {name: line.name, x: point[0], y: point[1]};
      });
      const nearest = near.reduce((best, p) => Math.abs(p.x - x) < Math.abs(best.x - x) ? p : best);
      near.sort((a, b) => Math.abs(py(a.y) - high) - Math.abs(py(b.y) - high));
      const told = near.slice(0, 10).sort((a, b) => b.y - a.y);
      tip.replaceChildren(made("div", `${word} ${short(nearest.x)}`), ...told.map(p => {
        const row = made("div");
        row.append(key(p.name), made("b", short(p.y)), ` ${p.name}`);
        return row;
      }));
      if (near.length > told.length) tip.append(made("div", `and ${near.length - told.length} more`));
      tip.hidden = false;
      tip.style.left = there > W / 2 ? `${LEFT / W * 100 + 1}%` : "auto";
      tip.style.right = there > W / 2 ? "auto" : `${RIGHT / W * 100 + 1}%`;
      ruler.setAttribute("x1", px(nearest.x));
      ruler.setAttribute("x2", px(nearest.x));
      ruler.setAttribute("visibility", "visible");
    });
  }

  function key(name) {
    const node = made("span", undefined, "key");
    node.innerHTML = `<svg width="26" height="8"><line x1="1" x2="25" y1="4" y2="4" ${stroke(name)} stroke-width="2.5"/></svg>`;
    return node;
  }
  function legend(group, wanted) {
    const keys = made("div", undefined, "keys");
    for (const name of wanted) {
      const button = made("button");
      button.type = "button";
      button.dataset.name = name;
      button.append(key(name), name);
      button.setAttribute("aria-pressed", "true");
      button.addEventListener("click", () => {
        off.has(name) ? off.delete(name) : off.add(name);
        all(".keys button").filter(other => other.dataset.name === name).forEach(other => other.setAttribute("aria-pressed", String(!off.has(name))));
        groups.forEach(each => each.charts.forEach(chart => draw(each, chart)));
      });
      const light = lit => () => { group.lit = lit; group.charts.forEach(chart => draw(group, chart)); };
      button.addEventListener("pointerenter", light(name));
      button.addEventListener("pointerleave", light(null));
      keys.append(button);
    }
    return keys;
  }
  function control(words, type, change, settings) {
    const label = made("label"), input = made("input");
    Object.assign(input, {type, ...settings});
    input.addEventListener("input", () => change(input));
    label.append(words, input);
    return label;
  }
  for (const group of groups.filter(each => each.charts.length)) {
    const bar = group.bar || group.box.querySelector(".controls"), redraw = () => group.charts.forEach(chart => draw(group, chart));
    const of = chart => chart.data.series.map(line => line.name);
    const union = [...new Set(group.charts.flatMap(of))], shared = group.charts.length > 1 && group.charts.every(chart => 2 * of(chart).length >= union.length);
    if (shared) bar.append(legend(group, union));
    else group.charts.filter(chart => of(chart).length > 1 || of(chart)[0] !== "").forEach(chart => chart.append(legend(group, of(chart))));
    bar.append(control("log axis ", "checkbox", input => { group.log = input.checked; redraw(); }));
    bar.append(control("smoothing ", "range", input => { group.smooth = +input.value; redraw(); }, {min: 0, max: 0.98, step: 0.02, value: 0}));
    redraw();
  }

  // Pictures of one thing over time.
  for (const figure of all(".slider")) {
    const pictures = all("img", figure), told = figure.querySelector("output");
    figure.querySelector("input").addEventListener("input", event => {
      pictures.forEach((picture, at) => { picture.hidden = at !== +event.target.value; });
      told.textContent = pictures[+event.target.value].dataset.caption;
    });
  }

  // Confusions: a click lists the videos behind a pair of classes. An address is quoted where it is made.
  for (const figure of all(".heat")) {
    const names = JSON.parse(figure.dataset.names), wrong = JSON.parse(figure.dataset.wrong), listed = figure.querySelector(".listed");
    const tell = cell => {
      const [row, column] = cell.split(",").map(Number), list = made("ul"), videos = wrong[cell] || [];
      videos.forEach(([name, place]) => {
        const entry = made("li"), link = made("a", name);
        link.href = place;
        entry.append(link);
        list.append(entry);
      });
      const words = row === column ? "is recognised" : videos.length ? `taken for ${names[column]}:` : `no video is listed that was taken for ${names[column]}`;
      listed.replaceChildren(made("b", `${names[row]} `), words, list);
    };
    all("[data-cell]", figure).forEach(cell => {
      if (wrong[cell.dataset.cell]) cell.classList.add("has");
      cell.addEventListener("click", () => tell(cell.dataset.cell));
    });
    figure.querySelector("img")?.addEventListener("click", event => {
      const area = event.target.getBoundingClientRect(), place = part => Math.min(names.length - 1, Math.floor(part * names.length));
      tell(`${place((event.clientY - area.top) / area.height)},${place((event.clientX - area.left) / area.width)}`);
    });
  }

  // A map of many clips: pointing at a dot tells which it is.
  document.getElementById("map")?.addEventListener("pointerover", event => {
    const dot = event.target.closest("circle"), picture = document.getElementById("picture");
    if (!dot) return;
    document.getElementById("told").textContent = dot.textContent;
    picture.hidden = !dot.dataset.picture;
    if (dot.dataset.picture) picture.src = dot.dataset.picture;
  });

  // Tables: a click on a column's head sorts by it, as numbers where they are; empty cells stay last.
  const number = words => parseFloat(words.replace("\u2212", "-").replace(/[,\s]/g, ""));
  for (const table of all("table.sortable")) {
    const body = table.tBodies[0];
    if (body.rows.length < 2) continue;
    all("th", table).forEach((head, column) => {
      const sort = () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        all("th", table).forEach(other => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...body.rows].map(row => ({row, words: row.cells[column]?.textContent.trim() ?? ""}));
        const numbers = rows.every(each => !each.words || !isNaN(number(each.words)));
        rows.sort((a, b) => !a.words - !b.words || (up ? 1 : -1) * (numbers ? number(a.words) - number(b.words) : a.words.localeCompare(b.words)));
        body.append(...rows.map(each => each.row));
      };
      head.tabIndex = 0;
      head.title = "sort by this column";
      head.addEventListener("click", sort);
      head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
    });
  }
})();
