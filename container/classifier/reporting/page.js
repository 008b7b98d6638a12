"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);
const themes = JSON.parse(document.getElementById("themes").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const charts = [...document.querySelectorAll(".chart")];
const FONT = getComputedStyle(document.body).fontFamily;

// "@accent" → the theme's colour, everywhere in a figure.
function coloured(value, theme) {
  if (typeof value === "string") return value[0] === "@" && theme[value.slice(1)] || value;
  if (Array.isArray(value)) return value.map(one => coloured(one, theme));
  if (value && typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, coloured(one, theme)]));
  return value;
}

// The confusion matrix comes as its cells that are not empty.
function laidOut(trace) {
  if (!trace.cells) return trace;
  const { cells, names, ...rest } = trace;
  const empty = content => names.map(() => names.map(() => content));
  const [z, text, customdata] = [empty(null), empty(""), empty("")];
  for (const [row, column, value, count, share] of cells) {
    z[row][column] = value;
    text[row][column] = count;
    const what = row === column ? "labelled right" : `taken for ${names[column]}`;
    customdata[row][column] = `${names[row]}<br>${what}: ${count} photos, ${(100 * share).toFixed(1)} %`;
  }
  return { ...rest, z, text, customdata, hoverongaps: false };
}

function merged(base, over) {
  const result = { ...base };
  for (const [key, value] of Object.entries(over))
    result[key] = value && typeof value === "object" && !Array.isArray(value) ? merged(base[key] || {}, value) : value;
  return result;
}

function layoutOf(figure, chart, theme, width) {
  const axis = { gridcolor: theme.line, linecolor: theme.line, zeroline: false, automargin: true, fixedrange: width < 600,
                 title: { standoff: 10, font: { size: 12, color: theme.quiet } }, tickfont: { color: theme.quiet } };
  const base = {
    width, height: chart.clientHeight || parseInt(chart.style.height), autosize: false,
    font: { family: FONT, size: 12, color: theme.ink }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 48, r: 12, t: 28, b: 42 }, hovermode: "x unified", dragmode: width < 600 ? false : "zoom",
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", font: { size: 11.5, color: theme.quiet } },
    hoverlabel: { bgcolor: theme.card, bordercolor: theme.line, font: { color: theme.ink, family: FONT, size: 12 } },
    xaxis: axis, yaxis: axis,
  };
  return merged(base, coloured(figure.layout, theme));
}

function draw(theme, widthOf) {
  for (const chart of charts) {
    const figure = figures[chart.dataset.figure];
    const traces = figure.traces.map(trace => coloured(laidOut(trace), theme));
    Plotly.react(chart, traces, layoutOf(figure, chart, theme, widthOf(chart)), { displayModeBar: false });
  }
}

const current = () => themes[dark.matches ? "dark" : "light"];
const onScreen = () => draw(current(), chart => chart.clientWidth);
// On paper: its own colours, and the width of A4 between its margins.
const onPaper = () => draw(themes.light, chart => chart.closest(".pair") ? 330 : 680);

onScreen();
dark.addEventListener("change", onScreen);
addEventListener("beforeprint", onPaper);
addEventListener("afterprint", onScreen);
let waiting = 0;
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  clearTimeout(waiting);
  waiting = setTimeout(onScreen, 120);
});

function sortBy(button) {
  const heading = button.closest("th");
  const body = heading.closest("table").tBodies[0];
  const isNumber = button.dataset.kind === "number";
  const was = heading.getAttribute("aria-sort");
  const up = was ? was !== "ascending" : !isNumber;
  const valueOf = row => {
    const cell = row.cells[heading.cellIndex];
    return isNumber ? parseFloat(cell.dataset.value) : cell.textContent.trim();
  };
  const compare = isNumber ? (a, b) => valueOf(a) - valueOf(b)
                           : (a, b) => valueOf(a).localeCompare(valueOf(b), undefined, { numeric: true });
  const rows = [...body.rows].sort((a, b) => (up ? 1 : -1) * compare(a, b));
  for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", up ? "ascending" : "descending");
  body.append(...rows);
}
for (const button of document.querySelectorAll(".sortable th button")) button.addEventListener("click", () => sortBy(button));
