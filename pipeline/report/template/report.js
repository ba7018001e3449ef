"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  function theme() {
    const [ink, muted, line] = ["ink", "muted", "line"].map(colour);
    const series = [1, 2, 3, 4, 5, 6, 7].map((number) => colour(`c${number}`));
    return {
      background: "transparent",
      font: getComputedStyle(document.body).fontFamily,
      autosize: { type: "fit-x", contains: "padding" },
      view: { stroke: null },
      axis: {
        labelColor: muted, titleColor: muted, titleFontWeight: "normal", titleFontSize: 12, labelFontSize: 12,
        gridColor: line, domainColor: line, tickColor: line, titlePadding: 8,
      },
      axisY: { domain: false, ticks: false },
      legend: { labelColor: ink, titleColor: muted, titleFontWeight: "normal", labelFontSize: 12, orient: "top", columns: innerWidth < 700 ? 2 : 4, labelLimit: 200 },
      bar: { color: series[0] }, point: { color: series[0] }, tick: { color: series[0] }, rule: { color: series[0] },
      errorbar: { rule: { color: series[0] } },
      style: { baseline: { color: ink, stroke: ink } },
      range: { category: series },
    };
  }

  async function draw() {
    for (const place of document.querySelectorAll("[data-chart]")) {
      const options = { renderer: "svg", actions: false, ast: true, config: theme(), tooltip: { theme: "custom" } };
      await window.drawChart(place, charts[place.dataset.chart], options);
    }
    document.documentElement.dataset.drawn = "yes";
  }

  for (const place of document.querySelectorAll(".compare")) {
    const input = place.querySelector("input");
    const show = () => place.style.setProperty("--at", `${input.value}%`);
    input.addEventListener("input", show);
    place.addEventListener("pointermove", (event) => {
      if (event.pointerType !== "mouse") return;
      const box = place.getBoundingClientRect();
      input.value = String(Math.round((100 * (event.clientX - box.left)) / box.width));
      show();
    });
  }

  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
