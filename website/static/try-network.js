// EfficientNet-Lite0 in plain JavaScript: the forward pass of lesson 2's network, layer by layer, on the processor.
// Most weights are one byte each, with a scale for each output; all others, and the sums, have 32 bits. An image, and every
// map between two layers, is a Float32Array with the channels of a place side by side.
function makeNetwork({ layers, bytes }) {
  let at = 0;
  const take = (Kind, count) => {  // copied, because the file does not keep to multiples of four bytes
    const part = bytes.slice(at, at + count * Kind.BYTES_PER_ELEMENT);
    at += part.length;
    return new Kind(part.buffer);
  };
  // The weights of one tap of a kernel beside each other, for all outputs.
  const byTap = (weights, outputs, each, area) => {
    const taps = new Float32Array(weights.length);
    for (let o = 0; o < outputs; o += 1)
      for (let i = 0; i < each; i += 1)
        for (let k = 0; k < area; k += 1) taps[(k * each + i) * outputs + o] = weights[(o * each + i) * area + k];
    return taps;
  };
  const parts = layers.map(({ exact, ...layer }) => {
    const { kind, inputs, outputs, kernel = 1 } = layer, area = kernel * kernel;
    const each = kind === "depthwise" ? 1 : inputs, count = outputs * each * area;
    const bias = take(Float32Array, outputs), scale = exact ? null : take(Float32Array, outputs);
    const given = exact ? take(Float32Array, count)
      : Float32Array.from(take(Int8Array, count), (one, i) => one * scale[Math.floor(i / each)]);
    return { ...layer, bias, weights: kind === "pointwise" ? given : byTap(given, outputs, each, area) };
  });
  const rows = count => 4 * Math.ceil(count / 4);

  // A layer that mixes the channels of each place: four places and four outputs at a time.
  function pointwise(x, places, { inputs: n, outputs, weights: w, bias, clip }) {
    const out = new Float32Array(rows(places) * outputs);
    for (let p = 0; p < places; p += 4) {
      for (let o = 0; o < outputs; o += 4) {
        let a0 = bias[o], a1 = bias[o + 1], a2 = bias[o + 2], a3 = bias[o + 3];
        let b0 = a0, b1 = a1, b2 = a2, b3 = a3, c0 = a0, c1 = a1, c2 = a2, c3 = a3, d0 = a0, d1 = a1, d2 = a2, d3 = a3;
        const x0 = p * n, x1 = x0 + n, x2 = x1 + n, x3 = x2 + n, w0 = o * n, w1 = w0 + n, w2 = w1 + n, w3 = w2 + n;
        for (let i = 0; i < n; i += 1) {
          const a = x[x0 + i], b = x[x1 + i], c = x[x2 + i], d = x[x3 + i];
          const e = w[w0 + i], f = w[w1 + i], g = w[w2 + i], h = w[w3 + i];
          a0 += a * e; a1 += a * f; a2 += a * g; a3 += a * h;
          b0 += b * e; b1 += b * f; b2 += b * g; b3 += b * h;
          c0 += c * e; c1 += c * f; c2 += c * g; c3 += c * h;
          d0 += d * e; d1 += d * f; d2 += d * g; d3 += d * h;
        }
        const t = p * outputs + o, u = t + outputs, v = u + outputs, z = v + outputs;
        out[t] = a0; out[t + 1] = a1; out[t + 2] = a2; out[t + 3] = a3;
        out[u] = b0; out[u + 1] = b1; out[u + 2] = b2; out[u + 3] = b3;
        out[v] = c0; out[v + 1] = c1; out[v + 2] = c2; out[v + 3] = c3;
        out[z] = d0; out[z + 1] = d1; out[z + 2] = d2; out[z + 3] = d3;
      }
    }
    if (clip) for (let i = 0; i < out.length; i += 1) out[i] = Math.min(Math.max(out[i], 0), 6);
    return out;
  }

  // A layer that looks at neighbouring places: one channel by itself (depthwise), or all of them (the first layer).
  function spatial(x, size, { kind, inputs, outputs, kernel, stride, weights: taps, bias, clip }) {
    const to = Math.ceil(size / stride), before = Math.max((to - 1) * stride + kernel - size, 0) >> 1;
    const out = new Float32Array(rows(to * to) * outputs), area = kernel * kernel;
    for (let r = 0; r < to; r += 1) for (let c = 0; c < to; c += 1) {
      const t = (r * to + c) * outputs;
      for (let o = 0; o < outputs; o += 1) out[t + o] = bias[o];
      for (let k = 0; k < area; k += 1) {
        const row = r * stride - before + Math.floor(k / kernel), column = c * stride - before + (k % kernel);
        if (row < 0 || column < 0 || row >= size || column >= size) continue;
        const from = (row * size + column) * inputs;
        if (kind === "depthwise") for (let o = 0; o < outputs; o += 1) out[t + o] += x[from + o] * taps[k * outputs + o];
        else for (let i = 0; i < inputs; i += 1) {
          const value = x[from + i], w = (k * inputs + i) * outputs;
          for (let o = 0; o < outputs; o += 1) out[t + o] += value * taps[w + o];
        }
      }
      if (clip) for (let o = t; o < t + outputs; o += 1) out[o] = Math.min(Math.max(out[o], 0), 6);
    }
    return [out, to];
  }

  // From a square image (size * size * 3 numbers from -1 to 1) to 1280 features and 1000 scores.
  return (image, size) => {
    let x = image, kept = null;
    for (const part of parts.slice(0, -1)) {
      if (part.keep) kept = x;
      if (part.kind === "pointwise") x = pointwise(x, size * size, part);
      else [x, size] = spatial(x, size, part);
      if (part.add) for (let i = 0; i < x.length; i += 1) x[i] += kept[i];
    }
    const last = parts[parts.length - 1], features = new Float32Array(4 * last.inputs);
    for (let p = 0; p < size * size; p += 1)
      for (let i = 0; i < last.inputs; i += 1) features[i] += x[p * last.inputs + i] / (size * size);
    return { features: features.slice(0, last.inputs), scores: pointwise(features, 1, last).slice(0, last.outputs) };
  };
}
