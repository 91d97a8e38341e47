/**
 * A program whose memory moves to another process while it writes at a given rate, over and over,
 * the first 64 MiB of it: `moved_program.ts SIZE RATE`, in bytes and MiB a second. It prints where
 * its seeder listens, takes commands line by line, and prints an answer to each:
 *
 * - `speed`: pages a second that it could write, for a second without a limit;
 * - `go`: nothing, and writes at its rate from then on, until it is suspended;
 * - `stop`: nothing, and writes no more.
 *
 * @module
 */
import { TextLineStream } from "@std/streams";
import { Seeder } from "../mod.ts";

const PAGE = 4096, WORKING_SET = 64 << 20;
const [size = 0, rate = 0] = Deno.args.map(Number);

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

let writing: Promise<void> = Promise.resolve(), going = false, page = 0, count = 1;

for await (
  const line of Deno.stdin.readable.pipeThrough(new TextDecoderStream())
    .pipeThrough(new TextLineStream())
) {
  if (line === "go") {
    going = true;
    writing = write();
    console.log("ok");
  } else if (line === "stop") {
    await suspend();
    console.log("ok");
  } else if (line === "speed") {
    console.log(speed());
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
  words[page * (PAGE / 4)] = count++;
  page = (page + 1) % (WORKING_SET / PAGE);
}

async function write(): Promise<void> {
  const start = performance.now();
  for (let written = 0; going;) {
    const due = (performance.now() - start) / 1000 * rate * (1 << 20) / PAGE;
    for (; written < due; written++) touch();
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

async function suspend(): Promise<void> {
  going = false;
  await writing;
}

function speed(): number {
  const start = performance.now();
  let touched = 0;
  for (; performance.now() - start < 1000; touched += 1000) {
    for (let index = 0; index < 1000; index++) touch();
  }
  return touched / (performance.now() - start) * 1000;
}
