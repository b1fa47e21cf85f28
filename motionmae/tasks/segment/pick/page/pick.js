"use strict";
// The page of `segment video --pick`. What is drawn is kept as shapes in pixels of the video; the server makes the masks.

const $ = id => document.getElementById(id);
const canvas = $("canvas"), pen = canvas.getContext("2d");
const layer = document.createElement("canvas"), ink = layer.getContext("2d");
const picture = new Image(), bases = new Map();

let facts, drawing, tool = "box", object = 1, now = 0, shape = null, held = null, run = { run: 0 }, seen = -1;
let past = [], future = [], saving = null;

const colour = label => `rgb(${facts.palette[label].join(",")})`;
const pointColour = number => colour(number % 254 + 1);
const copy = value => JSON.parse(JSON.stringify(value));
const framed = () => drawing.frames[now] ??= { base: null, shapes: [] };
const isLabelled = frame => frame && (frame.base !== null || frame.shapes.length > 0);

async function ask(path, content) {
  const sent = content === undefined ? {} : { method: "POST", body: JSON.stringify(content) };
  const answer = await fetch(path, sent);
  const text = await answer.text();
  let value;
  try { value = JSON.parse(text); } catch { throw new Error(text); }
  if (!answer.ok) throw new Error(value.error);
  return value;
}

// ---- what is drawn ------------------------------------------------------------------------------------------------

function change(work) {  // each change can be undone
  past.push(copy(drawing));
  if (past.length > 200) past.shift();
  future = [];
  work();
  changed();
}

function changed() {
  for (const [number, frame] of Object.entries(drawing.frames)) if (!isLabelled(frame)) delete drawing.frames[number];
  object = Math.min(object, drawing.names.length);
  listed();
  draw();
  clearTimeout(saving);
  saving = setTimeout(() => ask("draw", drawing).catch(told), 300);
}

function travel(from, to) {
  if (!from.length) return;
  to.push(copy(drawing));
  drawing = from.pop();
  changed();
}

function put(made) {
  change(() => {
    const frame = framed();
    // A correction starts from all that was found in the frame: the other objects stay as they are.
    if (!isLabelled(frame) && run.run > 0 && !run.running && run.files.includes("masks.zip")) frame.base = run.run;
    frame.shapes.push(made);
  });
}

function base(number, version) {
  const name = `base/${number}/${version}`;
  if (!bases.has(name)) {
    const image = new Image();
    image.onload = draw;
    image.src = name;
    bases.set(name, image);
  }
  return bases.get(name);
}

function trace(to, each) {
  const [first, ...rest] = each.points;
  to.fillStyle = to.strokeStyle = colour(each.object);
  to.globalCompositeOperation = each.kind === "erase" ? "destination-out" : "source-over";
  to.beginPath();
  if (each.kind === "box") {
    const [last] = rest;
    to.fillRect(first[0], first[1], last[0] - first[0], last[1] - first[1]);
  } else if (each.kind === "polygon") {
    each.points.forEach(([x, y]) => to.lineTo(x + .5, y + .5));
    to.fill();
  } else {
    to.lineWidth = each.width;
    to.lineCap = to.lineJoin = "round";
    to.moveTo(first[0] + .5, first[1] + .5);
    (rest.length ? rest : [first]).forEach(([x, y]) => to.lineTo(x + .5, y + .5));
    to.stroke();
  }
  to.globalCompositeOperation = "source-over";
}

function draw() {
  pen.clearRect(0, 0, canvas.width, canvas.height);
  if (picture.complete && picture.naturalWidth) pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  ink.clearRect(0, 0, layer.width, layer.height);
  const frame = drawing.frames[now];
  if (frame) {
    const ground = frame.base === null ? null : base(now, frame.base);
    if (ground && ground.complete && ground.naturalWidth) ink.drawImage(ground, 0, 0);
    frame.shapes.forEach(each => trace(ink, each));
  }
  if (shape && shape.kind !== "polygon") trace(ink, shape);
  pen.globalAlpha = .55;
  pen.drawImage(layer, 0, 0);
  pen.globalAlpha = 1;
  const unit = Math.max(1, canvas.width / canvas.clientWidth);
  if (shape && shape.kind === "polygon") {
    pen.beginPath();
    shape.points.forEach(([x, y]) => pen.lineTo(x + .5, y + .5));
    if (shape.next) pen.lineTo(shape.next[0] + .5, shape.next[1] + .5);
    pen.strokeStyle = colour(shape.object);
    pen.lineWidth = 2 * unit;
    pen.stroke();
  }
  drawing.points.forEach((point, number) => {
    if (!point[now]) return;
    const [x, y] = point[now];
    pen.beginPath();
    pen.arc(x + .5, y + .5, 5 * unit, 0, 7);
    pen.fillStyle = pointColour(number);
    pen.strokeStyle = "#fff";
    pen.lineWidth = 1.5 * unit;
    pen.fill();
    pen.stroke();
  });
  $("undo").disabled = !past.length;
  $("redo").disabled = !future.length;
  const labelled = isLabelled(frame), based = labelled && frame.base !== null && frame.base > 0;
  $("hint").textContent = based ? "— correcting what was found" : labelled ? "— labelled" : "";
}

// ---- the mouse ----------------------------------------------------------------------------------------------------

function place(event) {
  const around = canvas.getBoundingClientRect();
  const x = (event.clientX - around.left) / around.width * facts.width;
  const y = (event.clientY - around.top) / around.height * facts.height;
  return [Math.min(Math.max(x, 0), facts.width), Math.min(Math.max(y, 0), facts.height)];
}

const pixel = ([x, y]) => [Math.min(Math.floor(x), facts.width - 1), Math.min(Math.floor(y), facts.height - 1)];
const corner = at => at.map(Math.round);

function nearest(at) {
  const reach = 10 * canvas.width / canvas.clientWidth;
  return drawing.points.findIndex(point => point[now] && Math.hypot(point[now][0] - at[0], point[now][1] - at[1]) < reach);
}

canvas.addEventListener("pointerdown", event => {
  if (event.button !== 0) return;
  const at = place(event);
  canvas.setPointerCapture(event.pointerId);
  if (tool === "point") {
    held = nearest(at);
    if (held < 0 && chosenPoint !== null) held = chosenPoint;
    change(() => {
      if (held < 0) held = drawing.points.push({}) - 1;
      drawing.points[held][now] = pixel(at);
    });
    chosenPoint = null;
  } else if (tool === "polygon") {
    if (!shape) shape = { object, kind: "polygon", points: [] };
    shape.points.push(pixel(at));
    shape.next = null;
  } else if (tool === "box") {
    shape = { object, kind: "box", points: [corner(at), corner(at)] };
  } else {
    shape = { object, kind: tool, points: [pixel(at)], width: Number($("width").value) };
  }
  draw();
});

canvas.addEventListener("pointermove", event => {
  const at = place(event);
  if (held !== null && tool === "point") drawing.points[held][now] = pixel(at);
  else if (!shape) return;
  else if (shape.kind === "polygon") shape.next = pixel(at);
  else if (shape.kind === "box") shape.points[1] = corner(at);
  else {
    const [x, y] = shape.points.at(-1), [u, v] = pixel(at);
    if (Math.hypot(x - u, y - v) >= Math.max(1, shape.width / 8)) shape.points.push([u, v]);
  }
  draw();
});

canvas.addEventListener("pointerup", () => {
  if (held !== null) { held = null; changed(); return; }
  if (!shape || shape.kind === "polygon") return;
  const made = shape;
  shape = null;
  if (made.kind === "box") {
    const [[a, b], [c, d]] = made.points;
    made.points = [[Math.min(a, c), Math.min(b, d)], [Math.max(a, c), Math.max(b, d)]];
    if (a === c || b === d) { draw(); return; }
  }
  put(made);
});

function close() {
  if (!shape || shape.kind !== "polygon") return;
  const made = { object: shape.object, kind: "polygon", points: shape.points };
  const apart = made.points.filter((each, n) => n === 0 || String(each) !== String(made.points[n - 1]));
  shape = null;
  made.points = apart;
  if (apart.length > 2) put(made); else draw();
}

canvas.addEventListener("dblclick", close);

document.addEventListener("keydown", event => {
  if (event.target.matches("input[type=text]")) return;
  const key = event.key.toLowerCase();
  if ((event.ctrlKey || event.metaKey) && key === "z") {
    event.preventDefault();
    if (event.shiftKey) travel(future, past); else travel(past, future);
  } else if (event.ctrlKey || event.metaKey || event.altKey) return;
  else if (key === "enter") close();
  else if (key === "escape") { shape = null; draw(); }
  else if (key === "arrowleft" && event.target !== $("slider")) go(now - 1);
  else if (key === "arrowright" && event.target !== $("slider")) go(now + 1);
  else choose({ b: "box", p: "polygon", s: "stroke", e: "erase", t: "point" }[key] ?? tool);
});

// ---- the lists and the slider -------------------------------------------------------------------------------------

let chosenPoint = null;

function make(kind, about, ...inside) {
  const made = Object.assign(document.createElement(kind), about);
  made.append(...inside);
  return made;
}

function chip(shade) {
  const made = make("span", { className: "chip" });
  made.style.background = shade;
  return made;
}

function listed() {
  $("objects").replaceChildren(...drawing.names.map((name, index) => {
    const label = index + 1;
    const pick = make("input", { type: "radio", name: "object", checked: label === object, ariaLabel: `Draw ${name}` });
    pick.onchange = () => { object = label; };
    const called = make("input", { type: "text", value: name, maxLength: 100, ariaLabel: `Name of object ${label}` });
    called.onfocus = () => { object = label; pick.checked = true; };
    called.onchange = () => change(() => { drawing.names[index] = called.value.trim() || `object ${label}`; });
    return make("div", {}, pick, chip(colour(label)), called);
  }));
  $("points").replaceChildren(...drawing.points.map((point, number) => {
    const times = Object.keys(point).join(", ");
    const move = make("button", { textContent: "Place in this frame" });
    move.onclick = () => { choose("point"); chosenPoint = number; told(`Click where point ${number + 1} is in frame ${now}.`, false); };
    const drop = make("button", { textContent: "Remove" });
    drop.onclick = () => change(() => drawing.points.splice(number, 1));
    return make("div", {}, chip(pointColour(number)), `point ${number + 1}, frame ${times}`, move, drop);
  }));
  const marks = new Set(Object.keys(drawing.frames).filter(number => isLabelled(drawing.frames[number])));
  drawing.points.forEach(point => Object.keys(point).forEach(number => marks.add(number)));
  $("marks").replaceChildren(...[...marks].map(number => {
    const mark = make("i", { title: `frame ${number} is labelled` });
    mark.style.left = `${100 * number / Math.max(1, facts.count - 1)}%`;
    mark.onclick = () => go(Number(number));
    return mark;
  }));
}

function choose(name) {
  tool = name;
  if (shape && shape.kind !== name) { shape = null; draw(); }
  document.querySelectorAll("[data-tool]").forEach(each => {
    each.setAttribute("role", "radio");
    each.setAttribute("aria-checked", each.dataset.tool === tool);
  });
}

function go(number) {
  close();
  now = Math.min(Math.max(number, 0), facts.count - 1);
  $("slider").value = now;
  $("where").textContent = `${now} of ${facts.count - 1}  ${facts.seconds[now].toFixed(2)} s`;
  picture.src = `frame/${now}`;
  show();
  draw();
}

function show() {
  $("found").src = run.run ? `found/${now}?${run.run}-${run.running ? run.done : "all"}` : `frame/${now}`;
  $("nothing").hidden = run.run > 0;
}

// ---- the run ------------------------------------------------------------------------------------------------------

function told(message, bad = true) {
  $("state").textContent = message instanceof Error ? message.message : message;
  $("state").classList.toggle("bad", bad && Boolean(message));
}

async function follow() {
  clearTimeout(saving);
  try { heard(await ask("start", drawing)); watch(); } catch (error) { told(error); }
}

function heard(state) {
  const ended = run.running && !state.running;
  run = state;
  $("run").disabled = run.running;
  $("stop").hidden = $("progress").hidden = !run.running;
  $("progress").max = run.total;
  $("progress").value = run.done;
  if (run.running) told(`${run.text}, ${Math.floor(100 * run.done / run.total)} %${run.left && `, ${run.left} left`}`, false);
  else if (run.error) told(run.error, run.error !== "stopped");
  else if (run.run) told(`done; the results are in ${run.out}`, false);
  $("files").replaceChildren(...run.files.map(name => make("a", { href: `file/${name}`, download: name, textContent: name })));
  $("again").hidden = !run.command;
  $("command").textContent = run.command;
  if (ended || run.running && Date.now() - seen > 2000) { seen = Date.now(); show(); }
}

async function watch() {
  try {
    heard(await ask("state"));
  } catch (error) {
    told("the program does not answer any more");
    return;
  }
  if (run.running) setTimeout(watch, 400);
}

async function begin() {
  facts = await ask("facts");
  drawing = facts.drawing;
  canvas.width = layer.width = facts.width;
  canvas.height = layer.height = facts.height;
  $("title").textContent = document.title = facts.video;
  $("about").textContent = `${facts.count} frames of ${facts.width} × ${facts.height}, followed by ${facts.model}`;
  $("slider").max = facts.count - 1;
  picture.onload = draw;
  $("slider").oninput = () => go(Number($("slider").value));
  $("back").onclick = () => go(now - 1);
  $("on").onclick = () => go(now + 1);
  $("undo").onclick = () => travel(past, future);
  $("redo").onclick = () => travel(future, past);
  $("clear").onclick = () => change(() => { delete drawing.frames[now]; drawing.points.forEach(point => delete point[now]); drawing.points = drawing.points.filter(point => Object.keys(point).length); });
  $("add").onclick = () => change(() => { object = drawing.names.push(`object ${drawing.names.length + 1}`); });
  $("run").onclick = follow;
  $("stop").onclick = () => ask("stop", {}).catch(told);
  $("copy").onclick = () => navigator.clipboard.writeText(run.command);
  $("finish").onclick = () => ask("finish", {}).then(() => { document.body.textContent = "Finished: this page can be closed."; }).catch(told);
  document.querySelectorAll("[data-tool]").forEach(each => { each.onclick = () => choose(each.dataset.tool); });
  window.onresize = draw;
  choose("box");
  listed();
  const first = [...Object.keys(drawing.frames), ...drawing.points.flatMap(point => Object.keys(point))][0];
  go(Number(first ?? 0));
  await watch();
  show();
}

begin().catch(told);
