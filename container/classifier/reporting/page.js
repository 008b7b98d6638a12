"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);
const themes = JSON.parse(document.getElementById("themes").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const charts = [...document.querySelectorAll(".chart")];

// Replaces "@accent" by the theme's color, everywhere in a figure.
function colored(value, colors) {
  if (typeof value === "string") return value[0] === "@" && colors[value.slice(1)] || value;
  if (Array.isArray(value)) return value.map(item => colored(item, colors));
  if (value && typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, colored(item, colors)]));
  return value;
}

// Expands the confusion matrix, which is stored as its non-empty cells.
function expanded(trace) {
  if (!trace.cells) return trace;
  const { cells, names, ...rest } = trace;
  const filled = content => names.map(() => names.map(() => content));
  const [z, text, customdata] = [filled(null), filled(""), filled("")];
  for (const [row, column, value, count, share] of cells) {
    z[row][column] = value;
    text[row][column] = count;
    const outcome = row === column ? "correct" : `predicted as ${names[column]}`;
    customdata[row][column] = `${names[row]}<br>${outcome}: ${count} photos, ${(100 * share).toFixed(1)} %`;
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
  const axis = { fixedrange: width < 600 };
  const base = merged(theme.layout, {
    width, height: chart.clientHeight || parseInt(chart.style.height), autosize: false,
    margin: { l: 48, r: 12, t: 28, b: 42 }, hovermode: "x unified", dragmode: width < 600 ? false : "zoom",
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom",
              font: { size: 11.5, color: theme.colors.quiet } },
    xaxis: axis, yaxis: axis,
  });
  return merged(base, colored(figure.layout, theme.colors));
}

function draw(theme, widthOf) {
  for (const chart of charts) {
    const figure = figures[chart.dataset.figure];
    const traces = figure.traces.map(trace => colored(expanded(trace), theme.colors));
    Plotly.react(chart, traces, layoutOf(figure, chart, theme, widthOf(chart)), { displayModeBar: false });
  }
}

const current = () => themes[dark.matches ? "dark" : "light"];
const onScreen = () => draw(current(), chart => chart.clientWidth);
// On paper: the light theme, and the width of A4 between the margins.
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
