/* The sections that have figures, each with the tables of the same numbers. */

const MANY = 4; // figures of one kind at once: a filter chooses others
const WIDE = 9; // columns of a matrix that has a line of its own

const placeOf = row => `${row.task}, ${row.protocol}, on ${row.system}`;

function byPlace(rows) {
  const places = new Map();
  for (const row of rows) places.set(placeOf(row), [...(places.get(placeOf(row)) || []), row]);
  return [...places];
}

function more(all, what, shown = MANY) {
  if (all <= shown) return null;
  return quiet(`${shown} of ${count(all, what)} are drawn; a task, protocol or system chosen above shows another.`);
}

function frontFigure([place, rows]) {
  const fields = ['id', 'backbone', 'precision', 'score', 'low', 'high', 'p50', 'p50_low', 'p50_high', 'front'];
  const points = rows.map(row => ({
    ...Object.fromEntries(fields.map(key => [key, row[key]])), family: row.hue, told: told(row),
  }));
  const best = rows.filter(row => row.front).map(row => `${row.backbone} ${row.precision}`).join(', ');
  const alt = `Score over latency of ${count(rows.length, 'engine')}, ${place}. `
    + `On the front: ${best || 'none of these'}. Every number is in the table of rows.`;
  const [{ metric, unit, n, higher }] = rows;
  const caption = `${metric}${unit && `, ${unit}`}${higher ? '' : ', less is better'}; n = ${n}.`;
  return figure(place, chart('front', points, alt, { opens: true }), caption);
}

function frontSection(rows) {
  const ranked = rows.filter(row => row.rank != null && row.score != null && row.p50 != null);
  const places = byPlace(ranked);
  if (!places.length) {
    return [say('No verified engine to draw: accuracy and latency of one and the same file are needed.')];
  }
  const tables = page.costs.filter(table => places.some(([place]) => table.title.endsWith(`: ${place}`)));
  return [
    legend(ranked),
    el('div', { class: 'charts of-2' }, places.slice(0, MANY).map(frontFigure)),
    more(places.length, 'ranking'),
    quiet('Faster is to the left. The line is the Pareto front of all verified engines: nothing is both as good '
      + 'and as fast. Bars are 95 % intervals of the score and the spread of the latency. A point opens its evidence.'),
    ...tables.map(fold),
    tables.length ? quiet(page.legends.costs) : null,
  ];
}

function stepSaid(step) {
  const noise = step.told_apart ? '' : ' (within noise)';
  const what = `${step.backbone} ${step.precision}, ${step.task} ${step.protocol}`;
  return `${what}: ${digits(step.faster)} times as fast${noise}, ${signed(step.gained)} points`;
}

function ladderSection(rows) {
  const shown = new Set(rows.map(row => row.id));
  const steps = page.steps.filter(step => shown.has(step.id) && step.faster != null && step.gained != null);
  if (!steps.length) return [say('No lower precision stands beside its fp32 row on the same runtime.')];
  const faster = steps.filter(step => step.faster > 1 && step.told_apart).length;
  const alt = `What a lower precision gains over fp32: ${faster} of ${count(steps.length, 'engine')} are faster `
    + 'by more than noise. The numbers follow as a table.';
  const points = steps.map(step => ({ ...step, family: step.hue, told: stepSaid(step) }));
  return [
    legend(steps),
    el('div', { class: 'measure' }, chart('ladder', points, alt, { opens: true })),
    quiet('Right of the dashed line is faster than fp32, above it more accurate: each engine beside its own fp32 '
      + 'file on the same runtime.'),
    ...page.costs.filter(table => table.title === 'Precision ladders').map(fold),
  ];
}

function questionFigure(question, index, rows, place) {
  const order = distinct(rows.map(row => row.backbone));
  const answer = (row, [, score, low, high]) => ({
    id: row.id, backbone: row.backbone, family: row.hue, precision: row.precision, score, low, high,
    order: order.indexOf(row.backbone),
    told: `${row.backbone} ${row.precision}: ${digits(score)} (${span(low, high, digits)})`,
  });
  const given = ([asked, score]) => asked === index && score != null;
  const answers = rows.flatMap(row => row.asked.filter(given).map(asked => answer(row, asked)));
  if (!answers.length) return null;
  const better = question.higher_is_better ? 'more' : 'less';
  const caption = `${question.metric}${question.unit && `, ${question.unit}`}; ${better} is better`;
  const alt = `${question.question} (${caption}) of ${count(answers.length, 'engine')}, ${place}. `
    + 'The numbers follow as a table.';
  return figure(question.question, chart('question', answers, alt, { opens: true }), caption);
}

function gauntletSection(rows) {
  const places = byPlace(rows.filter(row => row.state === 'complete' && row.asked.length));
  if (!places.length) return [say('No further question was asked of these engines.')];
  const [[place, those]] = places;
  const tables = page.gauntlets.filter(table => places.some(([name]) => table.title.endsWith(`: ${name}`)));
  const drawn = page.questions.map((question, index) => questionFigure(question, index, those, place));
  return [
    el('p', { class: 'place' }, place),
    legend(those),
    el('div', { class: 'charts of-4' }, drawn),
    more(places.length, 'ranking', 1),
    ...tables.map(fold),
    quiet(page.legends.gauntlet),
  ];
}

function cells({ rows, columns, values }) {
  const cell = (row, order, column, place) => ({ row, column, value: values[order][place], order, place });
  return rows.flatMap((row, order) => columns.map((column, place) => cell(row, order, column, place)))
    .filter(({ value }) => value != null);
}

function matrix(board, name, title, what, caption) {
  const { columns } = board[name];
  const alt = `${board.title}: ${what}. The numbers are in the tables below.`;
  const drawn = chart(name, cells(board[name]), alt, { least: 230 + 34 * columns.length });
  return figure(title, drawn, caption, columns.length > WIDE);
}

function heatFigure(board) {
  const { rows, columns } = board.heat;
  const what = `z-scores of ${count(rows.length, 'backbone')} in ${count(columns.length, 'setting')}`;
  const caption = 'Blue is above the pool, orange below; the best backbone first.';
  return matrix(board, 'heat', `z-scores by ${board.by_group ? 'group' : 'setting'}`, what, caption);
}

function rankFigure(board) {
  const alt = `${board.title}: ranks of ${count(board.places.length, 'backbone')} with their 95 % intervals; `
    + `${board.places[0].backbone} is first. The numbers are in the tables below.`;
  const caption = 'Wide bar: 95 % with other settings like these. Thin line: any one setting left out.';
  return figure('Rank intervals', chart('ranks', board.places, alt), caption);
}

function agreementFigure(board) {
  const what = `Spearman correlation of ${count(board.agreement.rows.length, 'setting')}, two by two`;
  const caption = 'Spearman: 1 is the same order, 0 none, \u22121 reversed.';
  return matrix(board, 'agreement', 'How alike settings rank', what, caption);
}

function boardPart(board) {
  const drawn = [
    board.places.length ? heatFigure(board) : null,
    board.places.some(place => place.low != null) ? rankFigure(board) : null,
    board.agreement.values ? agreementFigure(board) : null,
  ];
  const cut = board.placed > board.places.length;
  return el('div', { class: 'board' },
    el('h3', {}, board.title),
    say(board.sentence),
    el('div', { class: 'charts of-2' }, drawn),
    cut ? quiet(`The first ${board.places.length} of ${board.placed} backbones are drawn.`) : null,
    board.tables.map(fold),
    list(board.notes, { class: 'quiet' }));
}

function boardSection() {
  const words = ['system', 'runtime', 'precision'];
  const boards = page.boards.filter(board => !board.engines || passes(board.engines, words));
  if (!boards.length) return [say('A standing needs three backbones in two settings on one kind of engine.')];
  return [...boards.slice(0, MANY).map(boardPart), more(boards.length, 'standing'), quiet(page.legends.standing)];
}
