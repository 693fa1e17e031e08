// Copies what is named; where there is no clipboard, as in some browsers for a file, it is selected to be copied by hand.
for (const button of document.querySelectorAll('[data-copy]')) {
  const told = button.nextElementSibling;
  button.addEventListener('click', async () => {
    const text = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(text.textContent);
      told.textContent = 'copied';
    } catch {
      text.closest('details')?.setAttribute('open', '');
      getSelection().selectAllChildren(text);
      text.focus();
      told.textContent = document.execCommand('copy') ? 'copied' : 'selected: press Ctrl-C';
    }
  });
}

// On paper everything is open.
const closed = () => document.querySelectorAll('details:not([open])');
let opened = [];
addEventListener('beforeprint', () => (opened = [...closed()]).forEach((one) => (one.open = true)));
addEventListener('afterprint', () => opened.forEach((one) => (one.open = false)));

// Under the pointer, or at the arrow keys: what was due in that slice of time.
const data = document.getElementById('slices');
if (data) {
  const chart = document.querySelector('.chart');
  const { seconds, slices } = JSON.parse(data.textContent);
  const marks = chart.querySelector('.marks');
  const said = document.querySelector('output');
  const cursor = marks.appendChild(document.createElement('i'));
  cursor.className = 'cursor';
  cursor.hidden = true;
  let index = -1;
  const show = (at, share) => {
    index = at;
    const [ok, failed, p50, p99, max] = slices[index];
    const time = (n) => ((n * seconds) / slices.length).toFixed(2);
    cursor.hidden = false;
    cursor.style.left = share * 100 + '%';
    const latency = ok ? `; p50 ${p50} ms, p99 ${p99} ms, max ${max} ms` : '';
    said.textContent = `${time(index)} to ${time(index + 1)} s: ${ok} ok, ${failed} failed${latency}`;
  };
  const hide = () => {
    cursor.hidden = true;
    said.textContent = '';
  };
  chart.addEventListener('pointermove', (event) => {
    const box = marks.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    if (share >= 0 && share < 1) show(Math.floor(share * slices.length), share);
  });
  chart.addEventListener('pointerleave', hide);
  chart.addEventListener('blur', hide);
  chart.addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -slices.length, End: slices.length }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = Math.min(Math.max(index + step, 0), slices.length - 1);
    show(at, (at + 0.5) / slices.length);
  });
}
