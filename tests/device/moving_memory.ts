/**
 * A process for device tests whose WebAssembly memory has to move when it grows, as the engine may
 * not reserve addresses for more. It prints what the tracker says then.
 *
 *     deno run -A moving_memory.ts METHOD
 *
 * @module
 */
import { readKernelText } from "../../ffi/file.ts";
import { type TrackingMethod, trackMemory } from "../../mod.ts";

/** Address space that is left: too little for what V8 reserves, enough for everything else. */
const LEFT = 300 << 20;

function limitAddresses(bytes: string): void {
  const args = ["--pid", `${Deno.pid}`, `--as=${bytes}:unlimited`];
  const { success } = new Deno.Command("prlimit", { args }).outputSync();
  if (!success) throw new Error("Cannot limit the address space");
}

const method = Deno.args[0] as TrackingMethod;
const [, used] = /^VmSize:\s+(\d+) kB$/m.exec(readKernelText("/proc/self/status"))!;
limitAddresses(`${Number(used) * 1024 + LEFT}`);
const memory = new WebAssembly.Memory({ initial: 1 });
limitAddresses("unlimited");

const tracker = await trackMemory(memory, { method });
new Uint8Array(memory.buffer)[0] = 1;
const before = (await tracker.dirty()).count;
memory.grow(100);
const errors: unknown[] = [];
for (let time = 0; time < 2; time++) {
  await tracker.dirty().catch(({ name, code, message }) => errors.push({ name, code, message }));
}
await tracker.close();
console.log(JSON.stringify({ before, errors }));
