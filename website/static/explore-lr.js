// A place on the curve of a sweep, and the training at the nearest rate: as `explore_lrs` of the notebook.
const root = start("lr", true), log = Math.log10;
const short = lr => lr.toExponential(1).replace(/e([+-])(\d)$/, "e$10$2");
const power = exponent => [10 ** exponent, exponent === 0 ? "1" : `1e${exponent}`];
const finite = DATA.losses.concat(DATA.smoothed).filter(Number.isFinite);
const start0 = DATA.smoothed[0], first = DATA.lrs[0], last = DATA.lrs[DATA.lrs.length - 1];
const exponents = [];
for (let e = Math.ceil(log(first)); e <= Math.floor(log(last)); e += 2) exponents.push(power(e));
const high = Math.min(Math.max(...finite), 4 * start0);
const curves = DATA.runs.flatMap(run => run.curve.map(([, loss]) => loss)).filter(loss => loss > 0);
const ends = DATA.runs.map(run => run.curve[run.curve.length - 1][0]);
const low = Math.min(...curves), most = Math.max(...curves), decades = [];
for (let e = Math.ceil(log(low)); e <= log(most); e += 1) decades.push([10 ** e, e < 0 ? (10 ** e).toFixed(-e) : String(10 ** e)]);
const sweep = chart({ x: [first, last], y: [0, high], log: "x", xlabel: "learning rate", ylabel: "loss",
  xticks: exponents, yticks: [0, high / 2, high].map(v => [v, v.toFixed(1)]) });
const run = chart({ x: [0, Math.max(...ends)], y: [low, most], log: "y", xlabel: "step (batches)",
  ylabel: "training loss (smoothed)", xticks: [0, Math.max(...ends) / 2, Math.max(...ends)].map(v => [v, String(Math.round(v))]),
  yticks: decades });
const said = h("p", { className: "ex-said" });
said.setAttribute("role", "status");

function draw(exponent) {
  const lr = 10 ** exponent;
  const distance = one => Math.abs(Math.log(one.lr) - Math.log(lr));
  const nearest = DATA.runs.reduce((best, one) => (distance(one) < distance(best) ? one : best));
  sweep.clear();
  sweep.line(DATA.lrs.map((x, i) => [x, DATA.losses[i]]), "ex-faint");
  sweep.line(DATA.lrs.map((x, i) => [x, DATA.smoothed[i]]), "ex-line");
  sweep.at(lr, "ex-chosen");
  run.clear();
  DATA.runs.forEach(one => one !== nearest && run.line(one.curve, "ex-faint"));
  run.line(nearest.curve, "ex-chosen");
  const words = nearest.title.replace("\n", ": ");
  said.textContent = words;
  sweep.says(`The loss of the sweep over the learning rate, with a line at ${short(lr)}.`);
  run.says(`The training loss of each step; ${words}.`);
}

const rate = slider("learning rate", { min: log(first), max: log(last), step: 0.02, value: log(DATA.lr) },
                    exponent => short(10 ** exponent), draw);
root.append(rate.box, h("div", { className: "ex-pair" }, sweep.svg, run.svg), said);
draw(rate.value);
