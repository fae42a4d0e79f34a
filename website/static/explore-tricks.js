// Three photographs of a batch before and after a trick, at a few strengths: the playground of the notebook, recorded.
const root = start("tricks", true), names = Object.keys(DATA.tricks);
const picture = (shown, words) => h("figure", { className: "ex-strip" },
  h("img", { src: shown.picture, alt: `${words}: ${shown.targets.join("; ").replaceAll("\n", ", ")}` }),
  h("figcaption", {}, ...shown.targets.map(target => h("span", { textContent: target }))));
const place = h("div"), options = h("div");
let current = "cutmix", trick, kind;

function draw(k) {
  const step = trick.steps[k], what = current.replaceAll("_", " ");
  const words = step.strength === undefined ? `${what}, draw ${k + 1}` : `${what}, ${kind} ${step.strength}`;
  place.replaceChildren(h("p", { className: "ex-title", textContent: "before" }), picture(DATA.before, "before"),
                        h("p", { className: "ex-title", textContent: words }), picture(step, words));
}

function choose(name) {
  current = name;
  trick = DATA.tricks[name];
  kind = trick.strength.split(" ")[0];
  const usual = Math.max(trick.steps.findIndex(step => step.strength === trick.usual), 0);
  const shown = k => (kind ? String(trick.steps[k].strength) + (k === usual ? " (usual)" : "") : `draw ${k + 1}`);
  const strength = slider(kind || "random numbers", { min: 0, max: trick.steps.length - 1, step: 1, value: usual }, shown, draw);
  options.replaceChildren(strength.box);
  draw(usual);
}

const tricks = choice("trick", names, choose);
tricks.select.value = current;
root.append(tricks.box, options, place);
choose(current);
