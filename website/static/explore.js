// What all explorers share: elements, sliders, and a small chart. website/explorers.py puts it before each of them.
function h(tag, properties = {}, ...inside) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...inside);
  return element;
}

function s(tag, attributes = {}, ...inside) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...inside);
  return element;
}

// The place of an explorer, emptied. The picture that the notebook saved in the same cell shows no more than it does.
let room = 420;  // how wide a chart may be, so that its letters are of the page's size

function start(name, pictured) {
  const root = document.querySelector(`[data-explorer="${name}"]`);
  const wide = root.clientWidth - 34;
  room = Math.max(260, Math.min(room, wide < 540 ? wide : wide / 2 - 12));
  root.replaceChildren();
  const cell = pictured && root.closest(".cell");
  if (cell) for (const picture of cell.querySelectorAll("img")) picture.hidden = true;
  return root;
}

// A labelled slider; `shown` puts its value into words.
function slider(label, { min, max, step, value }, shown, moved) {
  const input = h("input", { type: "range", min, max, step, value });
  input.value = value;
  const output = h("output", { textContent: shown(Number(input.value)) });
  const set = () => {
    output.textContent = shown(Number(input.value));
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.addEventListener("input", () => { set(); moved(Number(input.value)); });
  set();
  const box = h("label", { className: "ex-slider" }, h("span", { textContent: label }), input, output);
  return { box, input, set value(to) { input.value = to; set(); }, get value() { return Number(input.value); } };
}

function choice(label, names, moved) {
  const select = h("select", {}, ...names.map(name => h("option", { value: name, textContent: name.replaceAll("_", " ") })));
  select.addEventListener("change", () => moved(select.value));
  return { box: h("label", { className: "ex-choice" }, h("span", { textContent: label }), select), select };
}

// Axes with names, as an SVG that grows with the page. Logarithmic where `log` names the axis.
function chart({ x, y, xlabel, ylabel, log = "", xticks, yticks, width = room, height = 260 }) {
  const left = 58, right = 18, top = 10, bottom = 44;
  const place = (range, isLog, from, to) => value => {
    const f = isLog ? Math.log10 : v => v;
    const part = (f(value) - f(range[0])) / (f(range[1]) - f(range[0]));
    return from + Math.min(Math.max(part, 0), 1) * (to - from);
  };
  const px = place(x, log.includes("x"), left, width - right), py = place(y, log.includes("y"), height - bottom, top);
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", class: "ex-chart" });
  svg.style.maxWidth = `${width + 60}px`;
  const frame = s("g", { class: "ex-axes" }), drawn = s("g");
  frame.append(s("path", { d: `M${left} ${top}V${height - bottom}H${width - right}` }));
  for (const [at, name] of xticks) frame.append(
    s("path", { d: `M${px(at)} ${height - bottom}v5` }),
    s("text", { x: px(at), y: height - bottom + 18, "text-anchor": "middle" }, name));
  for (const [at, name] of yticks) frame.append(
    s("path", { d: `M${left} ${py(at)}h-5` }),
    s("text", { x: left - 8, y: py(at) + 4, "text-anchor": "end" }, name));
  frame.append(
    s("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, xlabel),
    s("text", { x: -(top + height - bottom) / 2, y: 14, "text-anchor": "middle", transform: "rotate(-90)" }, ylabel));
  svg.append(frame, drawn);
  return {
    svg,
    clear() { drawn.replaceChildren(); },
    says(words) { svg.setAttribute("aria-label", words); },
    line(points, kind) {
      drawn.append(s("path", { class: kind, d: "M" + points.map(([a, b]) => `${px(a).toFixed(1)} ${py(b).toFixed(1)}`).join("L") }));
    },
    at(value, kind) { drawn.append(s("path", { class: kind, d: `M${px(value)} ${top}V${height - bottom}` })); },
    dot(a, b, kind) { drawn.append(s("circle", { class: kind, cx: px(a), cy: py(b), r: 5 })); },
    note(a, b, words, anchor = "start") {
      drawn.append(s("text", { x: px(a) + (anchor === "start" ? 7 : -7), y: py(b) - 6, "text-anchor": anchor }, words));
    },
  };
}
