/* The page: its filters and sections, put together. */

function renderFilters() {
  const form = byId('filters');
  form.addEventListener('submit', event => event.preventDefault());
  if (!page.rows.length) return;
  for (const word of WORDS.filter(varies)) {
    const options = distinct(page.rows.map(row => row[word]));
    const select = el('select', { id: `filter-${word}`, onchange: event => set({ [word]: event.target.value }) },
      el('option', { value: '' }, 'all'), options.map(option => el('option', { value: option }, option)));
    form.append(el('label', {}, el('span', {}, word), select));
  }
  let waiting;
  const typed = event => {
    clearTimeout(waiting);
    waiting = setTimeout(() => set({ q: event.target.value.trim() }), 150);
  };
  const field = { id: 'filter-q', type: 'search', placeholder: 'name, caveat, state', autocomplete: 'off', oninput: typed };
  const clear = () => {
    byId('filter-q').value = '';
    set(Object.fromEntries(FILTERS.map(key => [key, ''])));
    byId('filter-q').focus();
  };
  form.append(el('label', {}, el('span', {}, 'text'), el('input', field)),
    el('button', { type: 'button', id: 'clear', onclick: clear }, 'Clear'));
}

function showFilters(shown) {
  for (const word of FILTERS) {
    const field = byId(`filter-${word}`);
    const typing = word === 'q' && field === document.activeElement;
    if (field && !typing) field.value = state[word] || '';
  }
  byId('clear')?.toggleAttribute('disabled', !FILTERS.some(word => state[word]));
  const matched = `${shown} of ${count(page.rows.length, 'row')} pass the filters. `
    + 'Ranks, fronts and sentences are over all verified engines.';
  byId('matched').textContent = shown === page.rows.length ? '' : matched;
}

const SECTIONS = [
  ['front', 'Accuracy and latency', frontSection], ['ladder', 'What precision costs', ladderSection],
  ['gauntlet', 'The gauntlet', gauntletSection], ['standing', 'Standing', boardSection],
  ['across', 'Seeds and machines', acrossSection], ['rows', 'Every row', rowsSection],
  ['unranked', 'Not ranked', unrankedSection], ['machines', 'Machines', machinesSection],
  ['reading', 'How to read it', readingSection],
];

/** Go to a section; the fragment is the view's. */
function go(event, id) {
  event.preventDefault();
  byId(`${id}-title`).scrollIntoView();
  byId(`${id}-title`).focus({ preventScroll: true });
}

/** The answer where no ranking gives one. */
function nobody() {
  if (page.answers.length) return 'No ranking passes the filters.';
  if (page.unanswered) return page.unanswered;
  const cells = count(page.counts.cells, 'cell');
  if (page.rows.length) return `No engine is ranked: of ${cells} none has an accuracy and a latency of the same file.`;
  return page.boards.length ? page.boards[0].sentence : 'No results yet: bobrt bench makes some.';
}

function renderAnswers() {
  const [first, ...others] = page.answers.filter(answer => passes(answer)).map(answer => kept(answer.text));
  byId('answer').textContent = first || kept(nobody());
  byId('answers').replaceChildren(...list(others).children);
}

function renderTheme() {
  const root = document.documentElement.dataset;
  const dark = () => (root.theme || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark';
  const show = () => byId('theme').setAttribute('aria-pressed', dark());
  byId('theme').addEventListener('click', () => { root.theme = dark() ? 'light' : 'dark'; show(); });
  show();
}

function renderShell() {
  const { ranked, cells, backbones, tasks, systems } = page.counts;
  const counts = `${count(ranked, 'verified engine')} of ${count(cells, 'cell')}: ${count(backbones, 'backbone')}, `
    + `${count(tasks, 'task')}, ${count(systems, 'machine')}; the newest of ${page.newest?.slice(0, 10)}.`;
  const link = ([id, title]) => el('a', { href: `#${id}`, onclick: event => go(event, id) }, title);
  const section = ([id, title]) => el('section', { id, 'aria-labelledby': `${id}-title` },
    el('h2', { id: `${id}-title`, tabindex: '-1' }, title), el('div', { class: 'body' }));
  byId('counts').textContent = page.rows.length ? counts : '';
  byId('warnings').append(...list([page.bounded, ...page.problems].filter(Boolean)).children);
  byId('foot').textContent = `Made by bobrt ${page.bobrt}. The address holds the filters: a copy of it shows this view.`;
  byId('sections').append(...SECTIONS.map(link));
  byId('main').append(...SECTIONS.map(section));
  byId('skip').addEventListener('click', event => go(event, 'rows'));
  byId('evidence').addEventListener('close', closed);
  addEventListener('hashchange', () => { readAddress(); render(); });
  addEventListener('beforeprint', () => document.querySelectorAll('details').forEach(node => {
    node.fill();
    node.open = true;
  }));
}

function render() {
  const rows = page.rows.filter(row => passes(row) && found(row));
  delete document.documentElement.dataset.drawn;
  queue = [];
  renderAnswers();
  showFilters(rows.length);
  for (const [id, , section] of SECTIONS) byId(id).querySelector('.body').replaceChildren(...section(rows).filter(Boolean));
  renderEvidence();
  drawQueue();
}

readAddress();
renderShell();
renderTheme();
renderFilters();
render();
