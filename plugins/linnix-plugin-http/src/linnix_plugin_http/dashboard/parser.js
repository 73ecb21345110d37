// The text of server-sent events, wherever the network cuts it.

/** Splits what comes into events `{event, data}`. */
export class Parser {
  #rest = "";

  push(chunk) {
    const found = [];
    const parts = (this.#rest + chunk).split("\n\n");
    this.#rest = parts.pop();
    for (const part of parts) {
      let event = "message";
      let data = "";
      for (const line of part.split("\n")) {
        if (line.startsWith("event:")) event = line.slice(6).trim();
        else if (line.startsWith("data:")) data += line.slice(5);
      }
      if (data) found.push({ event, data });
    }
    return found;
  }
}
