// The page that names photographs: asks the computer that serves it (course app), or a network in the browser itself
// (course export --to page). What is asked for comes back the same: probabilities, evidence at each place, distance.
"use strict";
const place = id => document.getElementById(id);
const el = (tag, attributes = {}, ...children) => { const one = Object.assign(document.createElement(tag), attributes); one.append(...children); return one; };
const percent = value => `${(100 * value).toFixed(value > 0.995 || value < 0.005 ? 1 : 0)} %`;
const say = (words, alarm = false) => { place("said").textContent = words; place("said").className = alarm ? "alarm" : ""; };
const MEGAPIXELS = 25;
let about = null, session = null;

async function fetched(name, kind) {
  const answer = await fetch(name).catch(() => null);
  if (!answer || !answer.ok) throw new Error(location.protocol === "file:"
    ? "A page that was opened as a file may load nothing. Put this folder on a web server; on your computer: python -m http.server"
    : `${name} is not beside this page. Export it again: course export --to page.`);
  return answer[kind]();
}

// ---- In the browser

async function network() {
  if (session) return session;
  await new Promise((done, failed) => {
    const script = el("script", { src: "ort.wasm.min.js", onload: done });
    script.onerror = () => failed(new Error("ort.wasm.min.js, which runs the network, is not beside this page."));
    document.head.append(script);
  });
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = new URL("./", location.href).href;
  session = await ort.InferenceSession.create(new Uint8Array(await fetched("model.onnx", "arrayBuffer")));
  return session;
}

// A picture as the decoder gives it, white where it is transparent; only what is very large is made smaller first.
function pixelsOf(picture) {
  const shrink = Math.min(1, Math.sqrt(MEGAPIXELS * 1e6 / (picture.width * picture.height)));
  const width = Math.max(1, Math.round(picture.width * shrink)), height = Math.max(1, Math.round(picture.height * shrink));
  const canvas = el("canvas", { width, height }), context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(picture, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height), rgb = new Uint8Array(3 * width * height);
  for (let i = 0, j = 0; i < data.length; i += 4) { rgb[j++] = data[i]; rgb[j++] = data[i + 1]; rgb[j++] = data[i + 2]; }
  return { canvas, tensor: new ort.Tensor("uint8", rgb, [height, width, 3]) };
}

function squared(source) {
  const size = 320, canvas = el("canvas", { width: size, height: size }), context = canvas.getContext("2d");
  const { width, height } = source, side = Math.min(width, height), scale = size / Math.max(width, height);
  context.fillStyle = "rgb(124, 116, 104)";
  context.fillRect(0, 0, size, size);
  if (about.resize_mode === "squash") context.drawImage(source, 0, 0, size, size);
  else if (about.resize_mode === "pad") context.drawImage(source, (size - width * scale) / 2, (size - height * scale) / 2, width * scale, height * scale);
  else context.drawImage(source, (width - side) / 2, (height - side) / 2, side, side, 0, 0, size, size);
  return canvas;
}

async function askHere(file) {
  const run = await network();
  const picture = await createImageBitmap(file).catch(() => { throw new Error("This file is no image that this browser reads."); });
  const { canvas, tensor } = pixelsOf(picture);
  const out = await run.run({ image: tensor }), probabilities = Array.from(out.probabilities.data);
  const best = probabilities.indexOf(Math.max(...probabilities));
  let evidence = null;
  if (out.evidence) {
    const [, rows, columns] = out.evidence.dims, from = best * rows * columns;
    evidence = Array.from({ length: rows }, (_, r) => Array.from(out.evidence.data.slice(from + r * columns, from + (r + 1) * columns)));
  }
  return { probabilities, evidence, distance: out.distance ? out.distance.data[0] : null, picture: squared(canvas) };
}

// ---- On the computer that serves the page

async function askServer(file) {
  const answer = await fetch("ask", { method: "POST", body: file, headers: { "Content-Type": file.type || "image/unknown" } })
    .catch(() => { throw new Error("The program that serves this page has ended. Start it again: course app"); });
  const said = await answer.json().catch(() => ({ problem: "The program that serves this page gave no answer." }));
  if (said.problem) throw new Error(said.problem);
  const picture = el("img", { src: said.picture });
  await picture.decode();
  return { ...said, picture: squared(picture) };
}

// ---- What is shown

function heated(picture, evidence) {
  const canvas = el("canvas", { width: 320, height: 320 }), context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  const most = Math.max(...evidence.flat());
  if (!(most > 0)) return canvas;
  const rows = evidence.length, columns = evidence[0].length, small = el("canvas", { width: columns, height: rows }), layer = small.getContext("2d");
  const colours = layer.createImageData(columns, rows);
  evidence.flat().forEach((value, i) => colours.data.set([255, 26, 0, Math.round(178 * value / most)], 4 * i));
  layer.putImageData(colours, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, 320, 320);
  return canvas;
}

function show({ probabilities, evidence, distance, picture }, seconds) {
  const order = probabilities.map((_, i) => i).sort((a, b) => probabilities[b] - probabilities[a]).slice(0, 5);
  const [best] = order, unfamiliar = about.limit !== null && distance !== null && distance > about.limit;
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", "Your photograph, as the network saw it");
  const figures = [el("figure", {}, picture, el("figcaption", { textContent: "What the network saw" }))];
  if (evidence) {
    const map = heated(picture, evidence);
    map.setAttribute("role", "img");
    map.setAttribute("aria-label", `Where the evidence for ${about.classes[best]} lies`);
    figures.push(el("figure", {}, map, el("figcaption", { textContent: `Red: evidence for “${about.classes[best]}” (Grad-CAM)` })));
  }
  const bars = el("ol", { className: "bars" }, ...order.map(i => {
    const bar = el("i");
    bar.style.width = `${100 * probabilities[i]}%`;
    return el("li", {}, el("span", {}, el("b", { textContent: about.classes[i] }), el("span", { textContent: percent(probabilities[i]) })), bar);
  }));
  place("result").replaceChildren(...figures, el("div", {}, bars));
  place("result").hidden = false;
  if (unfamiliar) say(`Perhaps none of my classes: this photograph is far from all training images. The likeliest would be ${about.classes[best]}, ${percent(probabilities[best])}.`, true);
  else say(`Most likely: ${about.classes[best]}, ${percent(probabilities[best])}. It took ${seconds.toFixed(1)} s.`);
}

let last = Promise.resolve();
function ask(file) {
  last = last.then(async () => {
    if (file.size > about.megabytes * 1e6) throw new Error(`This file has ${(file.size / 1e6).toFixed(0)} MB; at most ${about.megabytes} MB are taken.`);
    say("Looking at it …");
    const begun = performance.now();
    show(await (about.server ? askServer : askHere)(file), (performance.now() - begun) / 1000);
  }).catch(error => { place("result").hidden = true; say(error.message, true); });
  return last;
}

async function start() {
  about = await fetched("about.json", "json");
  document.title = about.title;
  place("about").textContent = `${about.title}: ${about.classes.slice(0, 8).join(", ")}${about.classes.length > 8 ? ` and ${about.classes.length - 8} more` : ""}. `
    + (about.calibrated ? "Probabilities are calibrated on validation images." : "Probabilities are not calibrated.");
  place("foot").textContent = (about.server ? "Your photograph goes to the program on this computer, and no further; it keeps nothing. "
    : "The network runs in your browser: your photograph is sent nowhere. ") + `Files of up to ${about.megabytes} MB.` + (about.runtime ? ` It runs by ${about.runtime}.` : "");
  place("file").addEventListener("change", () => { const [file] = place("file").files; place("file").value = ""; if (file) ask(file); });
  const drop = place("drop");
  for (const kind of ["dragover", "dragleave", "drop"]) drop.addEventListener(kind, event => { event.preventDefault(); drop.classList.toggle("over", kind === "dragover"); });
  drop.addEventListener("drop", event => { const [file] = event.dataTransfer.files; if (file) ask(file); });
  document.body.dataset.ready = "yes";
}
start().catch(error => say(error.message, true));
