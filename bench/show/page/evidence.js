/* Evidence: all that stands behind one row. */

function facts(entries) {
  const known = entries.filter(([, value]) => value != null && value !== '');
  return el('dl', {}, known.flatMap(([name, value]) => [el('dt', {}, name), el('dd', {}, kept(String(value)))]));
}

function versions(system) {
  const tools = ['bobrt', 'torch', 'timm', 'onnx', 'onnxruntime', 'tensorrt', 'tensorrt_rtx', 'modelopt', 'numpy', 'cuda'];
  const threads = system.threads ? `, ${count(system.threads, 'thread')} used` : '';
  return [['CPU', `${system.cpu}, ${count(system.cores, 'core')}${threads}`], ['memory', `${system.memory_gb} GB`],
    ['GPU', system.gpu ? `${system.gpu}, driver ${system.driver}` : 'none'],
    ['system', `${system.os}, Python ${system.python}`],
    ['versions', tools.filter(tool => system[tool]).map(tool => `${tool} ${system[tool]}`).join(', ')],
    ['commit', system.git_commit && `${system.git_commit}${system.git_dirty ? ', with changes' : ''}`]];
}

function caveatList(names) {
  const said = known => (known ? `: ${known.text}. Remedy: ${known.remedy}.` : '');
  return el('ul', { class: 'caveats' }, names.map(name => el('li', {}, el('strong', {}, name), said(page.caveats[name]))));
}

function histogramPart(row) {
  const { histogram } = row;
  if (!histogram) return [quiet(`No histogram: ${row.no_histogram}.`)];
  const { start, step, counts, beyond, longest } = histogram;
  const bars = counts.map((n, index) => ({ low: start + index * step, high: start + (index + 1) * step, n }));
  const calls = count(counts.reduce((sum, n) => sum + n, beyond), 'call');
  const tail = digits(row.p99) || 'not known';
  const alt = `Histogram of ${calls}: median ${digits(row.p50)} ms, 99th percentile ${tail} ms.`;
  const note = `${calls}, in bins to the 99th percentile; ${beyond} beyond, up to ${digits(longest)} ms.`;
  return [chart('histogram', bars, alt, { first: true }), quiet(note)];
}

function measured(row) {
  const both = value => fixed(value, 2);
  const score = () => `${both(row.score)} ${row.unit} (${span(row.low, row.high, both)}), n = ${row.n}`;
  const percentiles = [['p50', row.p50], ['p90', row.p90], ['p99', row.p99]].filter(([, value]) => value != null);
  const answer = ([asked, value, low, high]) => {
    const { question, metric, unit } = page.questions[asked];
    if (value == null) return [question, 'could not be asked'];
    return [question, `${metric} ${digits(value)} ${unit} (${span(low, high, digits)})`];
  };
  return facts([
    ['rank', row.rank],
    [row.metric, row.score == null ? null : score()],
    ['drop', row.drop == null ? null : `${signed(row.drop)} points below fp32 PyTorch`],
    ['latency', percentiles.map(([name, value]) => `${name} ${digits(value)} ms`).join(', ')],
    ['rounds', row.evidence.rounds_ms?.map(value => `${digits(value)} ms`).join(', ')],
    ['images/s', digits(row.images_per_s)],
    ['memory', row.peak_mb && `${digits(row.peak_mb)} MB at its peak`],
    ['energy', row.mj_per_image && `${digits(row.mj_per_image)} mJ per image`],
    ...row.asked.map(answer),
  ]);
}

function theFile({ evidence }) {
  const share = value => (value == null ? null : `${(100 * value).toFixed(0)} %`);
  return facts([
    ['kind', evidence.kind],
    ['path', evidence.path],
    ['sha256', evidence.sha256],
    ['size', evidence.bytes && `${evidence.bytes.toLocaleString('en')} bytes`],
    ['built in', evidence.build_s == null ? null : `${digits(evidence.build_s)} s`],
    ['at the precision', share(evidence.precision_share)],
    ['computed at it', share(evidence.realised_share)],
    ['agreement with fp32', share(evidence.agreement)],
    ['largest difference', digits(evidence.max_abs)],
    ['input', evidence.input && `${evidence.input} px`],
  ]);
}

function theRecord({ id, evidence }) {
  return facts([
    ['cell', id],
    ['record', evidence.record || 'not where the store files it'],
    ['seal', evidence.seal],
    ['raw times', evidence.samples?.file],
    ['their sha256', evidence.samples?.sha256],
    ['started', evidence.started],
    ['took', `${digits(evidence.seconds)} s`],
    ['drift of the machine', evidence.drift == null ? null : `${fixed(100 * evidence.drift)} %`],
    ['test images', evidence.limit && `the first ${evidence.limit}`],
    ['log', evidence.log],
    ['notes', evidence.notes?.join('; ')],
  ]);
}

function renderEvidence() {
  const dialog = byId('evidence');
  const row = rowById.get(state.row);
  if (!row) return dialog.close();
  dialog.replaceChildren(...[
    el('form', { method: 'dialog' }, el('button', { 'aria-label': 'Close the evidence' }, 'Close')),
    el('h2', { id: 'evidence-title' }, `${row.backbone} ${row.precision} on ${row.runtime}`),
    quiet(`${placeOf(row)}; weights ${row.weights}, batch ${row.batch}, seed ${row.seed}`),
    row.reason && el('p', { class: 'warnings' }, `Not ranked: ${row.reason}`), measured(row),
    el('h3', {}, 'Latency, call by call'), ...histogramPart(row),
    el('h3', {}, 'Caveats'), row.caveats.length ? caveatList(row.caveats) : el('p', {}, 'None.'),
    el('h3', {}, 'The file'), theFile(row), el('h3', {}, 'The record'), theRecord(row),
    el('h3', {}, 'Versions'), facts(versions(page.systems[row.evidence.system])),
  ].filter(Boolean));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function openRow(id) {
  writeAddress({ row: id });
  renderEvidence();
  drawQueue();
}

function closed() {
  const { row } = state;
  writeAddress({ row: '' });
  [...document.querySelectorAll('[data-row]')].find(node => node.dataset.row === row)?.focus();
}
