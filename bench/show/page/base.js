/* The data, the view that the address holds, and small things: what the other scripts are made of.

   Whatever comes from records is set as text, never as markup. The view (filters, order, opened row) is kept in
   the address's fragment, so that a link restores it. */

const page = JSON.parse(document.getElementById('page-data').textContent);
const WORDS = ['task', 'protocol', 'system', 'runtime', 'precision', 'family'];
const FILTERS = [...WORDS, 'q'];
const rowById = new Map(page.rows.map(row => [row.id, row]));
let state = {};

/** An element with attributes (`onclick` and the like are listeners) and children; texts stay texts. */
function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (value !== false && value != null) node.setAttribute(key, value === true ? '' : value);
  }
  node.append(...children.flat().filter(child => child != null));
  return node;
}

const byId = id => document.getElementById(id);
const say = text => el('p', {}, text);
const quiet = text => el('p', { class: 'quiet' }, text);
const list = (lines, attributes = {}) => el('ul', attributes, lines.map(line => el('li', {}, line)));
const count = (n, word) => `${n.toLocaleString('en')} ${word}${n === 1 ? '' : 's'}`;
const distinct = values => [...new Set(values.filter(value => value != null && value !== ''))].sort();
/** A number stays on a line with its unit. */
const kept = text => text.replace(/ (%|ms)/g, '\u00a0$1');

/** Three significant digits, no exponent: as in the table of the command line. */
function digits(value) {
  if (value == null) return '';
  if (value === 0) return '0';
  const rounded = Number(value.toPrecision(3));
  return rounded.toFixed(Math.min(12, Math.max(0, 2 - Math.floor(Math.log10(Math.abs(rounded))))));
}

const fixed = (value, places = 1) => (value == null ? '' : value.toFixed(places));
const signed = value => (value == null ? '' : (value > 0 ? '+' : '') + value.toFixed(1).replace('-0.0', '0.0'));
const span = (low, high, text) => (low == null || high == null ? '' : `${text(low)}\u2013${text(high)}`);

function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  state = {};
  for (const key of [...FILTERS, 'sort', 'row']) if (asked.get(key)) state[key] = asked.get(key);
}

function writeAddress(changes) {
  state = { ...state, ...changes };
  for (const key of Object.keys(state)) if (!state[key]) delete state[key];
  const text = new URLSearchParams(state).toString();
  history.replaceState(null, '', text ? `#${text}` : location.pathname + location.search);
}

function set(changes) {
  writeAddress(changes);
  render();
}

/** Whether something passes the filters of `words`; a word it does not have lets it pass. */
function passes(entry, words = WORDS) {
  return words.every(word => !state[word] || entry[word] === undefined || entry[word] === state[word]);
}

/** Whether a row has every word that was typed. */
function found(row) {
  const all = [row.backbone, row.weights, row.state, ...row.caveats, ...WORDS.map(word => row[word])];
  const text = all.join(' ').toLowerCase();
  return (state.q || '').toLowerCase().split(/\s+/).every(part => text.includes(part));
}
