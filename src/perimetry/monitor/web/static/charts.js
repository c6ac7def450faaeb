"use strict";
// Charts are comfort: the tables hold the same numbers.
const charts = [];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

function axis(label) {
  const grid = { stroke: () => colour("rule"), width: 1 };
  return { label, stroke: () => colour("muted"), grid, ticks: grid, font: "12px system-ui", labelFont: "12px system-ui", labelSize: 20, size: 46 };
}

function draw(place, options, data) {
  place.hidden = false;
  const size = () => ({ width: Math.max(240, place.clientWidth), height: place.clientHeight });
  const plot = new uPlot({ ...size(), legend: { show: false }, cursor: { show: false }, ...options }, data, place);
  charts.push(plot);
  new ResizeObserver(() => plot.setSize(size())).observe(place);
  place.parentElement.querySelector("details").open = false;
  return plot;
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((plot) => plot.redraw()));

// Counts of bins, the line where they would be if p were uniform, and the band around it.
function histogramData(bins) {
  const n = bins.reduce((sum, one) => sum + one, 0);
  const even = n / bins.length;
  const half = 1.96 * Math.sqrt(even * (1 - 1 / bins.length));
  const all = (value) => bins.map(() => value);
  return [bins.map((_, k) => (k + 0.5) / bins.length), bins, all(even), all(Math.max(0, even - half)), all(even + half)];
}

function histogram(place, bins) {
  const hidden = { stroke: () => "transparent", points: { show: false } };
  const options = {
    scales: { x: { time: false, range: [0, 1] }, y: { range: (_, low, high) => [0, Math.max(1, high * 1.08)] } },
    axes: [axis("p-value"), axis("prompts")],
    series: [
      {},
      { fill: () => colour("bar"), stroke: () => colour("card"), width: 1, paths: uPlot.paths.bars({ size: [1, Infinity] }), points: { show: false } },
      { stroke: () => colour("bad"), width: 2, points: { show: false } },
      hidden,
      hidden,
    ],
    bands: [{ series: [4, 3], fill: () => colour("bad") + "22" }],
  };
  return draw(place, options, histogramData(bins));
}

function shares(place, series, alpha) {
  const options = {
    scales: { y: { range: (_, low, high) => [0, Math.max(2 * alpha, high * 1.1)] } },
    axes: [axis("hour"), { ...axis("flagged"), values: (_, ticks) => ticks.map((tick) => number(100 * tick, 3) + " %") }],
    series: [
      {},
      { stroke: () => colour("bar"), width: 2, points: { show: true, size: 7, fill: () => colour("bar") } },
      { stroke: () => colour("bad"), width: 2, points: { show: false } },
    ],
  };
  const share = series.map((one) => (one.n ? one.flagged / one.n : null));
  return draw(place, options, [series.map((one) => one.at), share, series.map(() => alpha)]);
}
