// The threshold from which on there is an alarm, and what its mistakes cost on the recorded validation images.
const root = start("costs"), total = DATA.risk.length, ill = DATA.defective.reduce((a, b) => a + b, 0);
const found = [0];  // defective cells among the first 0, 1, 2, ... images, the riskiest first
DATA.defective.forEach((one, i) => found.push(found[i] + one));

function counted(threshold) {
  let alarms = 0;
  while (alarms < total && DATA.risk[alarms] >= threshold) alarms += 1;
  const hits = found[alarms];
  return { alarms, hits, misses: ill - hits, falseAlarms: alarms - hits };
}

const cost = (one, miss) => (100 * (miss * one.misses + one.falseAlarms)) / total;  // per 100 cells

// The cheapest border between two images, as `best_threshold` of lesson 6 finds it.
function cheapest(miss) {
  let best = 0, least = Infinity;
  for (let alarms = 0; alarms <= total; alarms += 1) {
    if (alarms > 0 && alarms < total && DATA.risk[alarms] === DATA.risk[alarms - 1]) continue;
    const price = miss * (ill - found[alarms]) + (alarms - found[alarms]);
    if (price < least) { least = price; best = alarms; }
  }
  if (best === 0) return 1;
  return best === total ? DATA.risk[total - 1] : (DATA.risk[best - 1] + DATA.risk[best]) / 2;
}

const grid = Array.from({ length: 201 }, (_, i) => i / 200);
const place = h("div"), table = h("tbody");
const said = h("p", { className: "ex-said" });
said.setAttribute("role", "status");
const rate = (a, b) => (b ? `${Math.round((100 * a) / b)} %` : "–");

function draw() {
  const miss = price.value, t = threshold.value, one = counted(t), now = cost(one, miss);
  const curve = grid.map(x => [x, cost(counted(x), miss)]);
  const always = cost(counted(0), miss), never = cost(counted(2), miss), best = cheapest(miss);
  const most = Math.max(always, ...curve.map(([, y]) => y));
  const plot = chart({ x: [0, 1], y: [0, 1.05 * most], xlabel: "threshold: alarm from this probability on",
    ylabel: "cost per 100 cells", xticks: [0, 0.25, 0.5, 0.75, 1].map(v => [v, String(v)]),
    yticks: [0, most / 2, most].map(v => [v, String(Math.round(v))]) });
  plot.line([[0, always], [1, always]], "ex-dashed");
  plot.note(1, always, "always an alarm", "end");
  plot.line(curve, "ex-line");
  plot.at(t, "ex-chosen");
  plot.dot(t, now, "ex-dot");
  plot.says(`Cost per 100 cells over the threshold. At ${t.toFixed(2)} it is ${now.toFixed(0)}; an alarm at every cell costs ${always.toFixed(0)}.`);
  place.replaceChildren(plot.svg);
  const row = (...cells) => h("tr", {}, h("th", { scope: "row", textContent: cells[0] }),
                              ...cells.slice(1).map(text => h("td", { textContent: text })));
  table.replaceChildren(row("defective", one.hits, one.misses),
                        row("functional", one.falseAlarms, total - ill - one.falseAlarms));
  said.textContent = `At ${t.toFixed(2)}: recall ${rate(one.hits, ill)}, precision ${rate(one.hits, one.alarms)}, `
    + `cost ${now.toFixed(0)} per 100 cells. Always an alarm: ${always.toFixed(0)}. Never: ${never.toFixed(0)}. `
    + `Cheapest on these images: ${cost(counted(best), miss).toFixed(0)}, from ${best.toFixed(2)} on.`;
}

const price = slider("a missed defect costs as many false alarms as", { min: 1, max: 30, step: 1, value: 10 }, String, draw);
const threshold = slider("alarm from a probability of", { min: 0, max: 1, step: "any", value: 0.5 },
                         value => value.toFixed(2), draw);
const button = h("button", { type: "button", textContent: "Move to the cheapest threshold" });
button.addEventListener("click", () => { threshold.value = cheapest(price.value); draw(); });
root.append(price.box, threshold.box, h("p", {}, button), h("div", { className: "ex-pair" }, place, h("div", {},
  h("table", { className: "ex-table" }, h("caption", { textContent: `${total} validation images` }),
    h("thead", {}, h("tr", {}, ...["the cell is", "alarm", "no alarm"].map(text => h("th", { scope: "col", textContent: text })))),
    table), said)));
draw();
