// A worker that reads the text of a stream: what comes by the thousand would keep the page from being drawn.

import { Parser } from "./parser.js";
import { pack } from "./samples.js";

const decoder = new TextDecoder();
const parser = new Parser();

/** Answers each piece of the stream with what it completes: `others` as `[event, record]`, and `samples`. */
onmessage = ({ data: piece }) => {
  const others = [];
  const samples = [];
  for (const { event, data } of parser.push(decoder.decode(piece, { stream: true }))) {
    let record;
    try {
      record = JSON.parse(data);
    } catch {
      continue;
    }
    if (record.type === "sample") samples.push(record);
    else others.push([event, record]);
  }
  const packed = pack(samples);
  postMessage({ others, samples: packed }, [packed.buffer]);
};
