// Under the pointer: what was due in that slice of time.
const chart = document.querySelector('.chart');
const { seconds, slices } = JSON.parse(document.getElementById('slices').textContent);
const marks = chart.querySelector('.marks');
const said = document.querySelector('output');
const cursor = marks.appendChild(document.createElement('i'));
cursor.className = 'cursor';
cursor.hidden = true;
chart.addEventListener('pointermove', (event) => {
  const box = marks.getBoundingClientRect();
  const share = (event.clientX - box.left) / box.width;
  if (share < 0 || share >= 1) return;
  const index = Math.floor(share * slices.length);
  const [ok, failed, p50, p99, max] = slices[index];
  const at = (n) => ((n * seconds) / slices.length).toFixed(2);
  cursor.hidden = false;
  cursor.style.left = share * 100 + '%';
  const latency = ok ? `; p50 ${p50} ms, p99 ${p99} ms, max ${max} ms` : '';
  said.textContent = `${at(index)} to ${at(index + 1)} s: ${ok} ok, ${failed} failed${latency}`;
});
chart.addEventListener('pointerleave', () => {
  cursor.hidden = true;
  said.textContent = '';
});
