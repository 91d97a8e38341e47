/**
 * Moves a WebAssembly program from one process to another while it computes: a to-do list beside an
 * automaton. It starts in a process of its own, and goes on in this one: `demo.ts [SEED]`.
 *
 * @module
 */
import { TextLineStream } from "@std/streams";
import { migrateInstance } from "../../mod.ts";
import { instantiate, Program } from "./program.ts";

/** Generations that are computed here. */
const HERE = 30;

const seed = Number(Deno.args[0] ?? 1);
const { pathname } = new URL("./source.ts", import.meta.url);
const child = new Deno.Command(Deno.execPath(), {
  args: ["run", "--quiet", "-A", pathname, `${seed}`],
  stdout: "piped",
}).spawn();
const events = child.stdout.pipeThrough(new TextDecoderStream()).pipeThrough(new TextLineStream())
  .pipeThrough(
    new TransformStream<string, { url: string; generation: number }>({
      transform: (line, controller) => controller.enqueue(JSON.parse(line)),
    }),
  ).getReader();

async function next(): Promise<{ url: string; generation: number }> {
  const { value } = await events.read();
  if (value === undefined) throw new Error("The process in which the program began has ended");
  return value;
}

const { url } = await next();
console.log(`The program computes in process ${child.pid}, at ${url}`);
const moved = await migrateInstance({ source: url, instantiate });
const { generation } = await next();
const program = new Program(moved.instance);
console.log(
  `It was suspended there in generation ${generation}, and goes on here, in process ${Deno.pid}, ` +
    `in generation ${program.generation}`,
);
console.log(`It stood still for ${moved.downtimeMs.toFixed(1)} ms`);
console.log(`What was told beside its memory: ${JSON.stringify(moved.state)}`);

program.finish(1);
while (program.generation < generation + HERE) program.step();

const expected = new Program(await instantiate());
expected.sow(seed);
while (expected.generation < program.generation) expected.step();
const isEqual = program.cells.every((cell, at) => cell === expected.cells[at]);
console.log(
  `Generation ${program.generation} is ${isEqual ? "" : "NOT "}what one process alone makes of it`,
);
for (const line of program.list()) console.log(line);
await child.status;
if (!isEqual || program.list().some((line) => line.startsWith("[ ]"))) Deno.exit(1);
