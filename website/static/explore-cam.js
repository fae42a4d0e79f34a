// Grad-CAM at five layers: the earlier the layer, the finer the map and the less it knows of what is there.
const root = start("cam"), SIZE = 336;
const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
const canvas = h("canvas", { width: SIZE, height: SIZE, className: "ex-photo" });
canvas.setAttribute("role", "img");
const context = canvas.getContext("2d"), said = h("p", { className: "ex-said" });
said.setAttribute("role", "status");
const photographs = DATA.pictures.map(one => Object.assign(new Image(), { src: one.picture }));
let chosen = 0;

// A map as a picture of its own size, in one colour. It grows with the square of the evidence: weak evidence is nearly
// everywhere, and would hide the cell.
function coloured(values, { rows, columns }) {
  const small = h("canvas", { width: columns, height: rows }), pixels = new ImageData(columns, rows);
  values.forEach((value, i) => pixels.data.set([255, 120, 0, (value * value) / 255], 4 * i));
  small.getContext("2d").putImageData(pixels, 0, 0);
  return small;
}

async function draw() {
  const one = DATA.pictures[chosen], k = layer.value, size = DATA.layers[k];
  await photographs[chosen].decode();
  context.imageSmoothingEnabled = true;
  context.globalAlpha = 1;
  context.drawImage(photographs[chosen], 0, 0, SIZE, SIZE);
  context.globalAlpha = strength.value;
  context.drawImage(coloured(bytes(one.maps[k]), size), 0, 0, SIZE, SIZE);
  const words = `Is ${one.is}; the network says ${one.said}. Evidence for ${one.is} at layer ${k + 1} of ${DATA.layers.length}: `
    + `a map of ${size.rows} × ${size.columns} places.`;
  said.textContent = words;
  canvas.setAttribute("aria-label", `A solar cell under a map. ${words}`);
}

const layer = slider("layer", { min: 0, max: DATA.layers.length - 1, step: 1, value: DATA.layers.length - 1 },
                     k => `${k + 1} of ${DATA.layers.length}: ${DATA.layers[k].rows} × ${DATA.layers[k].columns} places`, draw);
const strength = slider("strength of the map", { min: 0, max: 1, step: 0.05, value: 0.7 },
                        value => `${Math.round(100 * value)} %`, draw);
const cells = choice("cell", DATA.pictures.map((one, k) => `${k + 1}: ${one.is}, ${one.is === one.said ? "recognised" : "missed"}`),
                     name => { chosen = Number(name.split(":")[0]) - 1; draw(); });
root.append(cells.box, layer.box, strength.box, canvas, said);
draw();
