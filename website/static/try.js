// Names a photograph, and trains a head on a few of them, in the browser. Nothing is loaded before the first photograph
// is chosen, and nothing leaves the computer.
const SIZE = 224, FOLDER = document.currentScript.src.replace(/[^/]*$/, "");
const percent = value => `${(100 * value).toFixed(value > 0.995 || value < 0.005 ? 1 : 0)} %`;
const status = () => { const one = h("p", { className: "try-said" }); one.setAttribute("role", "status"); return one; };

// ---- The network, in a worker, so that the page stays awake

const network = {
  start() {
    this.started ??= new Promise((done, failed) => {
      const script = h("script", { src: FOLDER + "try-lite0.js", onload: done });
      script.onerror = () => { this.started = null; script.remove(); failed(new Error("The network could not be loaded. Try again.")); };
      document.head.append(script);
    }).then(() => {
      const answer = `let run; onmessage = ({ data }) => {
        if (data.layers) { run = makeNetwork(data); return; }
        const begun = performance.now(), { features, scores } = run(data.image, data.size);
        postMessage({ features, scores, seconds: (performance.now() - begun) / 1000 });
      };`;
      this.worker = new Worker(URL.createObjectURL(new Blob([makeNetwork.toString(), ";\n", answer])));
      const { layers, bytes } = window.courseNetwork;
      const data = Uint8Array.from(atob(bytes), letter => letter.charCodeAt(0));
      window.courseNetwork.bytes = "";
      this.worker.postMessage({ layers, bytes: data }, [data.buffer]);
    });
    return this.started;
  },
  // One photograph after the other: 1280 features, and a probability for each of a thousand names.
  ask(canvas) {
    this.last = (this.last ?? Promise.resolve()).catch(() => {}).then(() => this.start()).then(() => new Promise((done, failed) => {
      this.worker.onmessage = ({ data }) => done({ ...data, probabilities: softmax(data.scores) });
      this.worker.onerror = event => failed(new Error(`The network stopped: ${event.message}`));
      this.worker.postMessage({ image: pixels(canvas), size: SIZE });
    }));
    return this.last;
  },
};

function softmax(scores) {
  const most = Math.max(...scores), powers = Array.from(scores, one => Math.exp(one - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map(one => one / sum);
}

// The middle of a picture as a square of 224 pixels, as lesson 1 prepares it.
function square(picture) {
  const wide = picture.videoWidth || picture.naturalWidth || picture.width;
  const high = picture.videoHeight || picture.naturalHeight || picture.height, side = Math.min(wide, high);
  const canvas = h("canvas", { width: SIZE, height: SIZE }), context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, SIZE, SIZE);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, (wide - side) / 2, (high - side) / 2, side, side, 0, 0, SIZE, SIZE);
  canvas.setAttribute("role", "img");
  return canvas;
}

function pixels(canvas) {
  const { data } = canvas.getContext("2d").getImageData(0, 0, SIZE, SIZE), image = new Float32Array(SIZE * SIZE * 3);
  for (let p = 0; p < SIZE * SIZE; p += 1)
    for (let c = 0; c < 3; c += 1) image[3 * p + c] = data[4 * p + c] / 127.5 - 1;
  return image;
}

async function opened(address, name) {
  const picture = new Image();
  picture.src = address;
  try { await picture.decode(); } catch { throw new Error(`${name} is no picture that this browser can read. Choose a JPEG or a PNG file.`); }
  return square(picture);
}

async function openedFile(file) {
  const address = URL.createObjectURL(file);
  try { return await opened(address, file.name); } finally { URL.revokeObjectURL(address); }
}

// ---- Parts of the page

// A field to drop pictures on, or to choose them with the keyboard.
function dropZone(words, multiple, take) {
  const input = h("input", { type: "file", accept: "image/*", multiple });
  const label = h("label", { className: "try-drop" }, h("span", { textContent: words }), input);
  input.addEventListener("change", () => { take([...input.files]); input.value = ""; });
  label.addEventListener("dragover", event => { event.preventDefault(); label.classList.add("over"); });
  label.addEventListener("dragleave", () => label.classList.remove("over"));
  label.addEventListener("drop", event => {
    event.preventDefault();
    label.classList.remove("over");
    take([...event.dataTransfer.files].slice(0, multiple ? Infinity : 1));
  });
  return label;
}

const button = (words, pressed) => {
  const one = h("button", { type: "button", textContent: words });
  one.addEventListener("click", () => pressed(one));
  return one;
};

// Names with their probabilities, the largest first.
function bars(names, probabilities, count) {
  const order = names.map((_, i) => i).sort((a, b) => probabilities[b] - probabilities[a]).slice(0, count);
  return h("ol", { className: "try-bars" }, ...order.map(i => h("li", {},
    h("span", { textContent: names[i] }), h("meter", { min: 0, max: 1, value: probabilities[i], ariaHidden: "true" }),
    h("span", { className: "try-number", textContent: percent(probabilities[i]) }))));
}

// ---- Name a photograph

function startNaming(root) {
  const said = status(), place = h("div", { className: "try-result" });
  async function name(open, credit = "") {
    said.textContent = network.worker ? "The network looks at it …" : "The network is being loaded (7 MB, once) …";
    try {
      await network.start();
      const canvas = await open(), { probabilities, seconds } = await network.ask(canvas);
      const names = window.courseNetwork.names, best = probabilities.indexOf(Math.max(...probabilities));
      canvas.setAttribute("aria-label", "Your photograph, cut to a square");
      place.replaceChildren(h("figure", {}, canvas, h("figcaption", { textContent: credit })), bars(names, probabilities, 5));
      said.textContent = `Most likely: ${names[best]}, ${percent(probabilities[best])}. It took ${seconds.toFixed(1)} s on this computer.`;
    } catch (error) { said.textContent = error.message; }
  }
  root.replaceChildren(
    dropZone("Drop a photograph here, or choose one", false, ([file]) => file && name(() => openedFile(file))),
    h("p", {}, button("Use an example", () => name(() => opened(window.courseNetwork.example.picture, "The example"),
                                                   "Photograph: danielbuechele, CC BY 2.0"))),
    said, place);
}

// ---- Train a head

// Softmax regression on centred features, by gradient descent with momentum: lesson 5's head, on all images at once.
function trainHead(features, targets, classes, steps = 80, lr = 0.5, momentum = 0.9) {
  const n = features.length, d = features[0].length, mean = new Float64Array(d);
  for (const one of features) for (let i = 0; i < d; i += 1) mean[i] += one[i] / n;
  const centred = one => Float64Array.from(one, (value, i) => value - mean[i]);
  const length = features.reduce((sum, one) => sum + Math.hypot(...centred(one)) / n, 1e-12);
  const ready = one => centred(one).map(value => value / length);
  const x = features.map(ready), w = Array.from({ length: classes }, () => new Float64Array(d + 1));
  const speed = w.map(row => new Float64Array(row.length));
  const scores = one => w.map(row => one.reduce((sum, value, i) => sum + value * row[i], row[d]));
  const losses = [];
  return {
    losses,
    predict: one => softmax(scores(ready(one))),
    step() {
      const slope = w.map(row => new Float64Array(row.length));
      let loss = 0;
      x.forEach((one, k) => {
        const p = softmax(scores(one));
        loss -= Math.log(Math.max(p[targets[k]], 1e-12)) / n;
        p.forEach((value, c) => {
          const error = (value - (c === targets[k])) / n;
          for (let i = 0; i < d; i += 1) slope[c][i] += error * one[i];
          slope[c][d] += error;
        });
      });
      slope.forEach((row, c) => row.forEach((value, i) => {
        speed[c][i] = momentum * speed[c][i] - lr * value;
        w[c][i] += speed[c][i];
      }));
      losses.push(loss);
      return losses.length < steps;
    },
  };
}

// How many photographs are named rightly by heads that were trained without them: ten parts, each left out once.
async function heldOut(features, targets, classes) {
  const parts = Math.min(10, features.length);
  let right = 0;
  for (let part = 0; part < parts; part += 1) {
    const seen = features.map((_, k) => k).filter(k => k % parts !== part);
    const head = trainHead(seen.map(k => features[k]), seen.map(k => targets[k]), classes);
    while (head.step());
    features.forEach((one, k) => {
      const p = k % parts === part && head.predict(one);
      if (p && p.indexOf(Math.max(...p)) === targets[k]) right += 1;
    });
    await new Promise(done => setTimeout(done));  // the page may draw
  }
  return right;
}

function startTraining(root) {
  const kinds = ["first class", "second class"].map(name => ({ name, shots: [] }));
  const said = status(), plotted = h("div"), asked = h("div", { className: "try-result" }), heard = status();
  let waiting = 0, head = null;

  async function add(kind, open) {
    waiting += 1;
    tell();
    try {
      await network.start();
      const canvas = await open(), { features } = await network.ask(canvas);
      kind.shots.push(features);
      canvas.setAttribute("aria-label", `Photograph ${kind.shots.length} of ${kind.name}`);
      kind.thumbs.append(canvas);
    } catch (error) { kind.trouble = error.message; }
    waiting -= 1;
    tell();
  }

  function tell() {
    const enough = kinds.every(kind => kind.shots.length >= 2), count = kinds.map(kind => `${kind.name}: ${kind.shots.length}`);
    train.disabled = waiting > 0 || !enough;
    const trouble = kinds.map(kind => kind.trouble).filter(Boolean).join(" ");
    said.textContent = [waiting ? `${waiting} still to be looked at.` : "", `${count.join(", ")}.`, trouble,
                        enough ? "" : "Each class needs at least two photographs."].filter(Boolean).join(" ");
    kinds.forEach(kind => { kind.trouble = ""; });
  }

  const train = button("Train the head", async () => {
    const features = [], targets = [], most = Math.max(...kinds.map(kind => kind.shots.length));
    for (let k = 0; k < most; k += 1)  // in turns, so that every part that is left out has all classes
      kinds.forEach((kind, c) => { if (k < kind.shots.length) { features.push(kind.shots[k]); targets.push(c); } });
    train.disabled = true;
    head = trainHead(features, targets, kinds.length);
    const plot = chart({ x: [0, 80], y: [0, 0.75], xlabel: "step", ylabel: "training loss",
      xticks: [[0, "0"], [40, "40"], [80, "80"]], yticks: [[0, "0"], [0.35, "0.35"], [0.7, "0.7"]] });
    plotted.replaceChildren(plot.svg);
    for (let more = true; more;) {
      more = head.step();
      plot.clear();
      plot.line(head.losses.map((loss, i) => [i + 1, loss]), "ex-chosen");
      await new Promise(done => requestAnimationFrame(done));
    }
    const last = head.losses[head.losses.length - 1];
    plot.says(`The training loss falls from ${head.losses[0].toFixed(2)} to ${last.toFixed(2)} in ${head.losses.length} steps.`);
    const right = await heldOut(features, targets, kinds.length);
    said.textContent = `The training loss fell from ${head.losses[0].toFixed(2)} to ${last.toFixed(2)}. Heads that were trained `
      + `without them name ${right} of ${features.length} photographs rightly; always the commonest class: ${most} of ${features.length}.`;
    train.disabled = false;
    ask.hidden = false;
  });

  const ask = h("div", { hidden: true }, h("h3", { textContent: "Ask your head" }),
    dropZone("Drop a photograph that it has not seen", false, async ([file]) => {
      if (!file) return;
      heard.textContent = "The network looks at it …";
      try {
        const canvas = await openedFile(file), { features } = await network.ask(canvas), p = head.predict(features);
        canvas.setAttribute("aria-label", "Your photograph, cut to a square");
        asked.replaceChildren(h("figure", {}, canvas), bars(kinds.map(kind => kind.name), p, kinds.length));
        const best = p.indexOf(Math.max(...p));
        heard.textContent = `Most likely: ${kinds[best].name}, ${percent(p[best])}.`;
      } catch (error) { heard.textContent = error.message; }
    }), heard, asked);

  async function photograph(kind) {
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ video: true });
      const video = h("video", { srcObject: stream, muted: true, playsInline: true, className: "try-video" });
      await video.play();
      const stop = button("Close the camera", () => {
        stream.getTracks().forEach(track => track.stop());
        kind.camera.replaceChildren(button("Use the camera", () => photograph(kind)));
      });
      kind.camera.replaceChildren(video, button("Take a photograph", () => add(kind, async () => square(video))), stop);
    } catch { said.textContent = "There is no camera that this page may use."; }
  }

  const boxes = kinds.map((kind, c) => {
    const name = h("input", { type: "text", value: kind.name, maxLength: 40 });
    name.addEventListener("input", () => { kind.name = name.value.trim() || `class ${c + 1}`; tell(); });
    kind.field = name;
    kind.thumbs = h("div", { className: "try-thumbs" });
    kind.camera = h("div", {}, ...(navigator.mediaDevices ? [button("Use the camera", () => photograph(kind))] : []));
    return h("fieldset", {}, h("legend", { textContent: `Class ${c + 1}` }),
      h("label", { className: "try-name" }, "Its name ", name),
      dropZone("Drop photographs of it here, or choose them", true, files => files.forEach(file => add(kind, () => openedFile(file)))),
      kind.camera, kind.thumbs);
  });

  function empty() {
    kinds.forEach(kind => { kind.shots = []; kind.thumbs.replaceChildren(); });
    head = null;
    ask.hidden = true;
    plotted.replaceChildren();
    tell();
  }

  const cells = button("Use twenty solar cells of the course", async () => {
    said.textContent = "The network is being loaded (7 MB, once) …";
    try { await network.start(); } catch (error) { said.textContent = error.message; return; }
    empty();
    Object.entries(window.courseNetwork.cells).forEach(([name, pictures], c) => {
      kinds[c].name = kinds[c].field.value = name;
      pictures.forEach(picture => add(kinds[c], () => opened(picture, "A solar cell")));
    });
  });
  root.replaceChildren(h("div", { className: "try-classes" }, ...boxes), h("p", { className: "try-buttons" }, cells, train,
    button("Start again", empty)), said, plotted, ask);
  tell();
}

startNaming(document.querySelector("[data-try=name]"));
startTraining(document.querySelector("[data-try=train]"));
