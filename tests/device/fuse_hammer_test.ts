import { assert, assertEquals } from "@std/assert";
import { closeAsync, O, openAsync } from "../../ffi/file.ts";
import { openLibc } from "../../ffi/libc.ts";
import { MADV, MAP, Mapping } from "../../ffi/mman.ts";
import { probeFuse } from "../../lib/device/fuse.ts";
import { requires, requiresAll, requiresThat, withReason } from "../requires.ts";
import { shell } from "./command.ts";
import { COUNT } from "./counted_backend.ts";
import { serveFile } from "./served_file.ts";

openLibc();

/** How long to hammer, in seconds. */
const SECONDS = Number(Deno.env.get("TELEMAP_HAMMER_SECONDS") ?? 3);
const SIZE = 64 << 20;
const PAGE = 4096;
const PAGES = SIZE / PAGE;

const probe = probeFuse();
const needs = requiresAll(requires("root"), requiresThat(probe.available, probe.reason));

for (const manner of ["at once", "out of order"] as const) {
  Deno.test({
    name: withReason(`fuse: a mapping is touched under garbage collection, ${manner}`, needs),
    ignore: needs.ignore,
    fn: () => hammer(manner),
  });
}

/**
 * Touches pages of a shared mapping, each of which may stop this thread until the server answers,
 * while most of what is allocated here is garbage at once, so that collections fall into such stops.
 */
async function hammer(manner: "at once" | "out of order"): Promise<void> {
  await using served = await serveFile({ size: SIZE, manner });
  const fd = await openAsync(served.device.path, O.RDWR);
  using mapping = Mapping.map({ length: SIZE, flags: MAP.SHARED, fd });
  const { bytes } = mapping;
  const model = new Uint8Array(PAGES);
  const garbage: unknown[] = new Array(1000);
  const end = performance.now() + SECONDS * 1000;
  let touched = 0;
  for (let seed = 1; performance.now() < end; touched++) {
    seed = seed * 48271 % 0x7fff_ffff;
    const page = seed % PAGES;
    assertEquals(bytes[page * PAGE], model[page]!, `page ${page} after ${touched} touches`);
    model[page] = seed;
    bytes[page * PAGE] = seed;
    garbage[touched % garbage.length] = Array.from(
      { length: 200 },
      (_, index) => ({ index, page }),
    );
    if (touched % 2000 === 0) {
      // Written back and dropped from the page cache, so that the next touches fault again.
      mapping.sync();
      mapping.advise(MADV.DONTNEED);
      await shell(`dd if=${served.device.path} iflag=nocache count=0 2>&1`);
    }
  }
  assert(await mapping.syncAsync());
  await closeAsync(fd);
  const { counters } = served.server;
  console.log(`${touched} touches, ${counters[COUNT.READ]} reads, ${counters[COUNT.WRITE]} writes`);
  assert(counters[COUNT.READ]! > 10 && counters[COUNT.WRITE]! > 10);
}
