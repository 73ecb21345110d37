// Samples of processes as one block of numbers, which a worker gives away at no cost.

/** What a sample has at each place, under the names of the API. */
export const PLACES = ["pid", "start_ns", "cpu_percent", "rss_bytes", "threads", "fds", "read_bytes", "write_bytes", "state"];

const STATE = PLACES.indexOf("state");

/** What is not known is no number; of the state there is one letter. */
export function pack(samples) {
  const packed = new Float64Array(samples.length * PLACES.length);
  let at = 0;
  for (const sample of samples) {
    for (let place = 0; place < STATE; place += 1) packed[at + place] = sample[PLACES[place]] ?? NaN;
    packed[at + STATE] = sample.state ? sample.state.codePointAt(0) : NaN;
    at += PLACES.length;
  }
  return packed;
}
