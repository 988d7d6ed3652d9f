/* Figures: each is drawn when its turn comes, by Vega, and has a text alternative. */

const SHAPES = {
  circle: 'M5 1a4 4 0 1 0 .01 0z', square: 'M1.5 1.5h7v7h-7z', diamond: 'M5 .5 9 5 5 9.5 1 5z',
  'triangle-up': 'M5 1 9 8.5H1z', 'triangle-down': 'M5 9 1 1.5h8z',
  cross: 'M3.5 1h3v2.5H9v3H6.5V9h-3V6.5H1v-3h2.5z',
};
const OPTIONS = {
  actions: false, renderer: 'svg', defaultStyle: false, tooltip: { disableDefaultStyle: true },
  ast: true, // expressions are interpreted: the page's policy lets nothing be compiled
  config: { ...page.config, legend: { disable: true } }, // one legend stands above all figures of a section
};

const charts = new Map(); // by what is in them, so that a filter draws only what it changes
let queue = [];
let drawing = false;

/** A figure that is drawn when its turn comes. */
function chart(name, rows, alt, { opens = false, least = 0, first = false } = {}) {
  const key = JSON.stringify([name, alt, rows]);
  const node = charts.get(key) || el('div', { class: 'chart', role: 'img', 'aria-label': alt }, el('div'));
  charts.set(key, node);
  if (least) node.style.minWidth = `${least}px`;
  if (!node.dataset.done) queue[first ? 'unshift' : 'push']({ name, rows, node, opens });
  return el('div', { class: 'scroll' }, node);
}

/** The same as `figures.filled` does for a file: as tall as its names need, without layers that have no row. */
function filled(name, rows) {
  const spec = page.figures[name];
  const names = field => distinct(rows.map(row => row[field])).length;
  const height = spec.usermeta.per.reduce((product, field) => product * names(field), spec.height);
  const empty = ({ transform }) => transform && !rows.some(row => row[transform[0].filter.replace('datum.', '')]);
  return { ...spec, height, layer: spec.layer.filter(layer => !empty(layer)), datasets: { rows } };
}

async function draw({ name, rows, node, opens }) {
  node.dataset.done = 'yes';
  try {
    const { view } = await vegaEmbed(node.firstChild, filled(name, rows), OPTIONS);
    if (opens) view.addEventListener('click', (event, item) => item?.datum?.id && openRow(item.datum.id));
  } catch (error) {
    node.textContent = `This figure cannot be drawn: ${error.message}`;
    console.error(error);
  }
}

async function drawQueue() {
  if (drawing) return; // what draws goes on to what was added
  drawing = true;
  for (let job = queue.shift(); job; job = queue.shift()) await draw(job);
  drawing = false;
  document.documentElement.dataset.drawn = 'yes';
}

function icon(shape, colour) {
  const [svg, path] = ['svg', 'path'].map(name => document.createElementNS('http://www.w3.org/2000/svg', name));
  svg.setAttribute('viewBox', '0 0 10 10');
  svg.setAttribute('aria-hidden', 'true');
  svg.setAttribute('class', 'icon');
  path.setAttribute('d', SHAPES[shape]);
  path.setAttribute('fill', colour);
  svg.append(path);
  return svg;
}

function told(row) {
  const score = `${fixed(row.score)} ${row.unit} (${span(row.low, row.high, fixed)})`;
  return kept(`${row.backbone} ${row.precision} on ${row.runtime}: ${score}, ${digits(row.p50)} ms`);
}

function legend(rows) {
  const colour = name => page.palette[Math.min(page.families.indexOf(name), page.palette.length - 1)];
  const families = page.families.filter(name => rows.some(row => row.hue === name));
  const precisions = Object.keys(page.precisions).filter(name => rows.some(row => row.precision === name));
  return el('p', { class: 'legend' },
    families.map(name => el('span', {}, icon('circle', colour(name)), name)), el('span'),
    precisions.map(name => el('span', {}, icon(page.precisions[name], 'currentColor'), name)));
}

function figure(title, body, caption, wide = false) {
  return el('figure', { class: wide ? 'wide' : null }, el('h3', {}, title), body, el('figcaption', {}, caption));
}
