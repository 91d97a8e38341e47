/**
 * What was written to a direct mount without a sync is at its backend, and flushed there, once the
 * mount is closed.
 */
import { assert, assertEquals } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { mountDirect, type MountOptions } from "../../mod.ts";
import { requires, withReason } from "../requires.ts";
import { temporaryDirectory } from "./command.ts";
import { COUNT, makeCounters } from "./counted_backend.ts";

openLibc();

const SIZE = 4 << 20, AT = 1 << 20, LENGTH = 300_000;
const COUNTED = new URL("../vm/inside/counted_module.ts", import.meta.url).href;
const needs = requires("root", "/dev/fuse", "/dev/userfaultfd", "/dev/loop-control");

type Form = Required<Pick<MountOptions, "as" | "device">>;

const FORMS: Form[] = [
  { as: "file", device: "fuse" },
  { as: "file", device: "loop" },
  { as: "slice", device: "fuse" },
  { as: "slice", device: "userfault" },
];

for (const form of FORMS) {
  const what = `a ${form.as} by ${form.device}`;
  Deno.test({
    name: withReason(`${what} writes back, and flushes, as it is closed`, needs),
    ignore: needs.ignore,
    async fn() {
      using directory = temporaryDirectory();
      const path = `${directory.path}/region`, bytes = new Uint8Array(LENGTH).fill(7);
      await write(`file:${path}?size=${SIZE}`, form, bytes);
      const expected = new Uint8Array(SIZE);
      expected.set(bytes, AT);
      assertEquals(await Deno.readFile(path), expected);
    },
  });
}

// A process of its own, as serves slices of devices, shares no counters.
for (const form of FORMS.filter(({ as, device }) => as === "file" || device === "userfault")) {
  Deno.test({
    name: withReason(`a ${form.as} by ${form.device} that is closed flushes its backend`, needs),
    ignore: needs.ignore,
    async fn() {
      const counters = makeCounters();
      const module = { module: COUNTED, options: { size: SIZE, counters } };
      await write(module, form, new Uint8Array(LENGTH).fill(7));
      assert(Atomics.load(counters, COUNT.WRITE) > 0);
      assert(Atomics.load(counters, COUNT.FLUSH) > 0, "nothing was flushed");
    },
  });
}

async function write(
  backend: Parameters<typeof mountDirect>[0]["backend"],
  form: Form,
  bytes: Uint8Array,
): Promise<void> {
  await using mount = await mountDirect({ backend, ...form });
  if (form.as === "slice") return mount.bytes.set(bytes, AT);
  await mount.file.seek(AT, Deno.SeekMode.Start);
  for (let done = 0; done < bytes.length;) {
    done += await mount.file.write(bytes.subarray(done));
  }
}
