/**
 * A program whose memory moves to another process while it writes at a given rate, over and over,
 * the beginning of it: `moved_program.ts SIZE WRITTEN RATE`, in bytes and MiB a second. It prints
 * where its seeder listens, takes commands line by line, and prints an answer to each:
 *
 * - `speed MS`: pages a second that it can write without a limit, for so many milliseconds;
 * - `go`: nothing, and writes at its rate from then on, until it is suspended;
 * - `written`: how often it has written a page since then.
 *
 * @module
 */
import { setImmediate } from "node:timers";
import { TextLineStream } from "@std/streams";
import { Seeder } from "../mod.ts";

const PAGE = 4096;
/** How long it keeps its event loop waiting at a time, in ms: that is needed to follow it. */
const TURN_MS = 1;
const [size = 0, workingSet = 0, rate = 0] = Deno.args.map(Number);

const seeder = await Seeder.open({
  backend: `memory:${size}`,
  as: "slice",
  device: "userfault",
  listen: "telemap://127.0.0.1:0",
  hooks: { onSuspend: () => suspend() },
});
const { bytes } = seeder.mount, words = new Uint32Array(bytes.buffer, bytes.byteOffset, size / 4);
for (let at = 0; at < size; at += PAGE) fillPage(at, at + 1);
await seeder.mount.sync();
console.log(seeder.url);

let writing: Promise<void> = Promise.resolve(), going = false, page = 0, count = 1, written = 0;

for await (
  const line of Deno.stdin.readable.pipeThrough(new TextDecoderStream())
    .pipeThrough(new TextLineStream())
) {
  const [command, milliseconds] = line.split(" ");
  if (command === "go") {
    going = true;
    writing = write();
    console.log("ok");
  } else if (command === "written") {
    console.log(written);
  } else if (command === "speed") {
    console.log(await speed(Number(milliseconds)));
  }
}
await seeder.close();

/** No two pages are alike, and none is compressed to nothing. */
function fillPage(at: number, seed: number): void {
  let value = seed | 1;
  for (let word = at / 4, end = word + PAGE / 4; word < end; word++) {
    value ^= value << 13;
    value ^= value >>> 17;
    value ^= value << 5;
    words[word] = value;
  }
}

/** Changes the next page of the working set. */
function touch(): void {
  words[page * (PAGE / 4)] = count;
  // Stays of the kind that the compiler has seen: otherwise all of this is half as fast later on.
  count = (count + 1) | 0;
  page = (page + 1) % (workingSet / PAGE);
}

async function write(): Promise<void> {
  const start = performance.now();
  while (going) {
    const due = (performance.now() - start) / 1000 * rate * (1 << 20) / PAGE;
    for (; written < due; written++) touch();
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

async function suspend(): Promise<void> {
  going = false;
  await writing;
}

async function speed(milliseconds: number): Promise<number> {
  const start = performance.now();
  let touched = 0, now = start;
  while (now - start < milliseconds) {
    for (const turn = now; now - turn < TURN_MS; now = performance.now()) {
      for (let index = 0; index < 1000; index++) touch();
      touched += 1000;
    }
    await new Promise((resolve) => setImmediate(resolve));
    now = performance.now();
  }
  return touched / (now - start) * 1000;
}
