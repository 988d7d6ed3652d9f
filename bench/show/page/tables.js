/* Tables and lists: every row, what is not ranked, machines, and how to read it. */

const scroller = (title, table) => el('div', { class: 'scroll', role: 'region', tabindex: '0', 'aria-label': title }, table);
const unfolded = new Set(); // titles of tables that were opened: they stay so when a filter changes

/** A table that opens when it is asked for, and is made only then. */
function fold(table) {
  const node = el('details', {}, el('summary', {}, table.title));
  node.fill = () => node.children.length === 1 && node.append(textTable(table));
  node.addEventListener('toggle', () => {
    unfolded[node.open ? 'add' : 'delete'](table.title);
    node.fill();
  });
  node.open = unfolded.has(table.title);
  return node;
}

function textTable({ title, header, rows, right, of = rows.length }) {
  const cut = of > rows.length ? `: the first ${rows.length} of ${of} rows` : '';
  const side = index => (right.includes(index) ? 'number' : null);
  return scroller(title, el('table', {}, el('caption', {}, title + cut),
    el('thead', {}, el('tr', {}, header.map((name, index) => el('th', { scope: 'col', class: side(index) }, name)))),
    el('tbody', {}, rows.map(row => el('tr', {}, row.map((cell, index) => el('td', { class: side(index) }, cell)))))));
}

const varies = word => distinct(page.rows.map(row => row[word])).length > 1;

function scoreTitle() {
  const metrics = distinct(page.rows.map(row => row.metric));
  return `${metrics.length === 1 ? metrics[0] : 'score'}${page.rows.some(row => row.unit) ? ' %' : ''}`;
}

const COLUMNS = [
  { key: 'rank', number: true },
  { key: 'backbone', head: true },
  ...['task', 'protocol', 'system', 'runtime'].filter(varies).map(key => ({ key })),
  { key: 'precision' },
  ...['batch', 'seed', 'weights'].filter(varies).map(key => ({ key })),
  { key: 'score', number: true, title: scoreTitle(), text: row => fixed(row.score) },
  { key: 'low', number: true, title: '95 %', text: row => span(row.low, row.high, fixed) },
  { key: 'drop', number: true, text: row => signed(row.drop) },
  { key: 'p50', number: true, title: 'p50 ms', text: row => digits(row.p50) },
  { key: 'p50_low', number: true, title: 'p50 bar', text: row => span(row.p50_low, row.p50_high, digits) },
  { key: 'p99', number: true, title: 'p99 ms', text: row => digits(row.p99) },
  { key: 'images_per_s', number: true, title: 'images/s', text: row => digits(row.images_per_s) },
  { key: 'mb', number: true, title: 'file MB', text: row => fixed(row.mb, 2) },
  { key: 'caveats', look: 'small', text: row => (row.state === 'complete' ? row.caveats.join(' ') : row.state) },
];

const shownIn = (row, column) => (column.text ? column.text(row) : String(row[column.key] ?? ''));

/** Rows in the order that was asked for; what was not measured is last, whichever way. */
function sorted(rows) {
  const column = COLUMNS.find(entry => entry.key === (state.sort || '').replace(/^-/, ''));
  if (!column) return rows;
  const sign = state.sort.startsWith('-') ? -1 : 1;
  const value = row => (column.number ? row[column.key] ?? null : shownIn(row, column) || null);
  const compare = (x, y) => (column.number ? x - y : x.localeCompare(y, 'en', { numeric: true }));
  const order = (x, y) => (x === null || y === null ? (x === null) - (y === null) : sign * compare(x, y));
  return rows.map(row => [row, value(row)]).sort(([, x], [, y]) => order(x, y)).map(([row]) => row);
}

function headCell(column) {
  const current = (state.sort || '').replace(/^-/, '') === column.key;
  const down = current && state.sort.startsWith('-');
  const direction = down ? 'descending' : 'ascending';
  const sort = () => {
    set({ sort: current && !down ? `-${column.key}` : column.key });
    document.querySelector(`[data-sort="${column.key}"]`).focus();
  };
  const arrow = el('span', { class: 'arrow', 'aria-hidden': 'true' }, current ? (down ? '\u2193' : '\u2191') : '');
  return el('th', { scope: 'col', class: column.number ? 'number' : null, 'aria-sort': current ? direction : null },
    el('button', { type: 'button', 'data-sort': column.key, onclick: sort }, column.title || column.key, arrow));
}

function rowCell(row, column) {
  const look = column.number ? 'number' : column.look;
  if (!column.head) return el('td', { class: look }, shownIn(row, column));
  const open = { type: 'button', class: 'open', 'data-row': row.id, onclick: () => openRow(row.id) };
  const tag = row.front ? el('span', { class: 'tag' }, 'front') : null;
  return el('th', { scope: 'row' }, el('button', open, row.backbone), tag);
}

function rowsSection(rows) {
  if (!page.rows.length) return [say('No results yet: bobrt bench makes some.')];
  if (!rows.length) return [say('No row passes the filters.')];
  const words = ['task', 'protocol', 'system', 'runtime', 'batch', 'seed', 'weights'];
  const same = words.filter(word => !varies(word)).map(word => `${word} ${page.rows[0][word]}`);
  const table = el('table', { id: 'table', class: 'rows' },
    el('caption', {}, `${count(rows.length, 'row')}; a heading sorts, a name opens the evidence`),
    el('thead', {}, el('tr', {}, COLUMNS.map(headCell))),
    el('tbody', {}, sorted(rows).map(row => el('tr', {}, COLUMNS.map(column => rowCell(row, column))))));
  return [same.length ? quiet(`The same in every row: ${same.join(', ')}.`) : null, scroller('Every row', table)];
}

function acrossSection() {
  return page.across.length ? page.across.map(textTable) : [say('There is one seed of each cell, on one machine.')];
}

function unrankedSection(rows) {
  const those = rows.filter(row => row.rank == null);
  const words = row => [row.backbone, `${row.task} ${row.protocol}`, row.runtime, row.precision, row.reason];
  const table = {
    title: `${count(those.length, 'cell')} without a rank`, right: [],
    header: ['backbone', 'task', 'runtime', 'precision', 'reason'], rows: those.map(words),
  };
  const none = page.rows.length ? 'Every cell is ranked.' : 'There is nothing to rank.';
  const asked = page.not_asked.length ? [el('h3', {}, 'Not asked'), list(page.not_asked)] : [];
  return [those.length ? textTable(table) : say(none), ...asked];
}

function machinesSection() {
  if (!page.systems.length) return [say('There are no records, so there is no machine.')];
  return distinct(page.systems.map(system => system.id)).map(id => {
    const states = page.systems.filter(system => system.id === id);
    const note = `Versions or settings differ between its rows, in ${states.length} states: these are the first row's, `
      + "each row's own are in its evidence.";
    return el('div', {}, el('h3', {}, id), facts(versions(states[0])), states.length > 1 ? quiet(note) : null);
  });
}

function readingSection() {
  const lines = [
    'Speed is that of the very file whose accuracy stands beside it; a row without both is not ranked.',
    'Rank is 1 + the rows whose whole accuracy interval is better; rows of one rank are tied, the fastest first.',
    'p50 bar: the lowest and highest median of three or more rounds, each in a process of its own; else the '
      + 'block-bootstrap interval.',
    'Drop: points below the same checkpoint in fp32 PyTorch. images/s: the best batch.',
    'A number that is missing was not measured, or its sample cannot support it; nothing is made up.',
  ];
  const named = distinct(page.rows.flatMap(row => row.caveats));
  return [list(lines), ...(named.length ? [el('h3', {}, 'Caveats'), caveatList(named)] : [])];
}
