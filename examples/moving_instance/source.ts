/**
 * The process in which the program begins: it computes for ever, prints where it can be taken over,
 * and tells what it did last: `source.ts SEED`.
 *
 * @module
 */
import { seedInstance } from "../../mod.ts";
import { instantiate, Program } from "./program.ts";

const instance = await instantiate(), program = new Program(instance);
program.sow(Number(Deno.args[0] ?? 1));
program.finish(program.add("begin to compute in one process"));
program.add("go on in another one");

let isGoing = true;
const stopped = Promise.withResolvers<void>();
const began = Date.now();

const seeded = await seedInstance(instance, {
  listen: "telemap://127.0.0.1:0",
  state: () => ({ process: Deno.pid, began }),
  hooks: {
    async onSuspend() {
      isGoing = false;
      await stopped.promise;
    },
  },
});
console.log(JSON.stringify({ event: "listening", url: seeded.url }));

// Whoever asks for the instance is heard between generations.
while (isGoing) {
  program.step();
  await new Promise((resolve) => setTimeout(resolve));
}
console.log(JSON.stringify({ event: "suspended", generation: program.generation }));
stopped.resolve();
await seeded.released;
await seeded.close();
