/**
 * Line charts as SVG: pure text, which needs nothing to be seen but a browser.
 *
 * @module
 */

/** A line of a chart. */
export interface Series {
  /** Its name in the legend. */
  name: string;
  /** Where it goes, from left to right, each value 0 or more. */
  points: readonly (readonly [x: number, y: number])[];
}

/** What a chart shows. */
export interface LineChart {
  /** What stands above it. */
  title: string;
  /** What is on the x axis, with its unit. */
  x: string;
  /** What is on the y axis, with its unit. */
  y: string;
  /** The lines, up to four. */
  series: readonly Series[];
}

/** How a value becomes a place, along one axis from 0 to `end`. */
interface Axis {
  readonly ticks: readonly number[];
  place(value: number): number;
}

const WIDTH = 720, HEIGHT = 420;
const FRAME = { left: 72, right: WIDTH - 24, top: 72, bottom: HEIGHT - 56 } as const;
const COLOURS = ["#b2182b", "#2166ac", "#1b7837", "#762a83"] as const;
const INTERVALS = 5;
const LEGEND_WIDTH = 150;

/** Draws a chart. Both axes begin at 0 and are linear. */
export function lineChart({ title, x, y, series }: LineChart): string {
  const points = series.flatMap(({ points }) => points);
  const across = axis(Math.max(...points.map(([x]) => x)), FRAME.left, FRAME.right);
  const up = axis(Math.max(...points.map(([, y]) => y)), FRAME.bottom, FRAME.top);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" ` +
    `font-family="sans-serif" font-size="13">`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>`,
    text(title, WIDTH / 2, 26, `text-anchor="middle" font-size="16"`),
    ...up.ticks.flatMap((value) => acrossAt(up.place(value), value)),
    ...across.ticks.flatMap((value) => upAt(across.place(value), value)),
    text(x, (FRAME.left + FRAME.right) / 2, HEIGHT - 14, `text-anchor="middle"`),
    text(y, FRAME.left, FRAME.top - 32, `text-anchor="start"`),
    ...series.flatMap((line, index) => drawLine(line, COLOURS[index]!, across, up)),
    ...series.flatMap(({ name }, index) =>
      legendEntry(name, COLOURS[index]!, index - series.length)
    ),
    "</svg>",
    "",
  ].join("\n");
}

function axis(most: number, from: number, to: number): Axis {
  const step = roundStep(most / INTERVALS);
  const intervals = Math.max(Math.ceil(most / step), 1);
  const end = intervals * step;
  return {
    ticks: Array.from({ length: intervals + 1 }, (_, index) => index * step),
    place: (value) => Math.round((from + (to - from) * value / end) * 10) / 10,
  };
}

/** The next 1, 2, 2.5 or 5 times a power of ten. */
function roundStep(least: number): number {
  if (!(least > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(least));
  return power * ([1, 2, 2.5, 5].find((factor) => factor * power >= least) ?? 10);
}

function acrossAt(y: number, value: number): string[] {
  return [
    `<path d="M${FRAME.left} ${y}H${FRAME.right}" stroke="#ddd"/>`,
    text(`${value}`, FRAME.left - 8, y + 4, `text-anchor="end"`),
  ];
}

function upAt(x: number, value: number): string[] {
  return [
    `<path d="M${x} ${FRAME.bottom}v6" stroke="#888"/>`,
    text(`${value}`, x, FRAME.bottom + 20, `text-anchor="middle"`),
  ];
}

/** A line with its marks. */
function drawLine({ points }: Series, colour: string, across: Axis, up: Axis): string[] {
  const places = points.map(([x, y]) => [across.place(x), up.place(y)] as const);
  return [
    `<polyline points="${places.map((place) => place.join(",")).join(" ")}" fill="none" ` +
    `stroke="${colour}" stroke-width="2"/>`,
    ...places.map(([x, y]) => `<circle cx="${x}" cy="${y}" r="3.5" fill="${colour}"/>`),
  ];
}

/** What a colour stands for; places count back from the right. */
function legendEntry(name: string, colour: string, place: number): string[] {
  const x = FRAME.right + LEGEND_WIDTH * place, y = FRAME.top - 36;
  return [
    `<path d="M${x} ${y}h24" stroke="${colour}" stroke-width="2"/>`,
    text(name, x + 30, y + 4, ""),
  ];
}

function text(content: string, x: number, y: number, attributes: string): string {
  return `<text x="${x}" y="${y}" ${attributes}>${escapeText(content)}</text>`;
}

function escapeText(content: string): string {
  return content.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
