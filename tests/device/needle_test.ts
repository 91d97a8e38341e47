/**
 * A needle in a region of 4 GiB, which a process finds without moving more of it than it touches.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { probeUserfault } from "../../ffi/userfault_open.ts";
import { openLibc } from "../../ffi/libc.ts";
import { requires, requiresAll, requiresThat, withReason } from "../requires.ts";
import type { TelemapProcess } from "../telemap_process.ts";
import { temporaryDirectory } from "./command.ts";
import { startServer } from "./served_region.ts";

openLibc();

const MIB = 1 << 20;
const SIZE = 4 * 2 ** 30;
const PROGRAM = new URL("./needle.ts", import.meta.url).pathname;

const probe = probeUserfault();
const needs = requiresThat(probe.features !== 0, probe.ways.at(-1)?.reason ?? "");

/** A sparse file with a needle near its end, in hay that cannot be compressed. */
async function hide(path: string, needle: string, offset: number): Promise<void> {
  using file = await Deno.open(path, { create: true, write: true });
  await file.truncate(SIZE);
  const hay = new Uint8Array(MIB);
  for (const start of [0, SIZE - MIB]) {
    for (let at = 0; at < MIB; at += 65536) crypto.getRandomValues(hay.subarray(at, at + 65536));
    if (start === 0) new DataView(hay.buffer).setBigUint64(0, BigInt(offset), true);
    else hay.set(new TextEncoder().encode(`${needle}\0`), offset - start);
    await file.seek(start, Deno.SeekMode.Start);
    assertEquals(await file.write(hay), MIB);
  }
}

/** Hides a needle in a directory's region, and serves that. */
async function serveHay(
  directory: string,
): Promise<{ needle: string; offset: number; url: string; process: TelemapProcess }> {
  const needle = `needle ${crypto.randomUUID()}`, offset = SIZE - 123_456;
  await hide(`${directory}/region`, needle, offset);
  return { needle, offset, ...await startServer(`file:${directory}/region?readonly`) };
}

Deno.test({
  name: withReason("a needle in 4 GiB is found by two faults and less than 1 MiB", needs),
  ignore: needs.ignore,
  async fn() {
    using directory = temporaryDirectory();
    const { needle, offset, url, process } = await serveHay(directory.path);
    await using _server = process;
    const args = ["run", "--quiet", "--no-check", "--allow-all", PROGRAM, url, "--json"];
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
    assertEquals([code, new TextDecoder().decode(stderr)], [0, ""]);
    const { wire, readBytes, ...found } = JSON.parse(new TextDecoder().decode(stdout));
    assertEquals(found, { needle, offset, size: SIZE, faults: 2 });
    const { sentBytes, receivedBytes } = wire;
    console.log(`${sentBytes} bytes sent, ${receivedBytes} received`);
    assert(receivedBytes >= readBytes, "what was touched came over the wire");
    assert(sentBytes + receivedBytes < MIB, "more came than was asked for");
  },
});

for (const device of ["userfault", "fuse"]) {
  const all = requiresAll(needs, requires("root", "/dev/fuse", "prlimit", "setpriv"));
  Deno.test({
    name: withReason(`a slice by ${device} is larger than the memory that may be locked`, all),
    ignore: all.ignore,
    async fn() {
      using directory = temporaryDirectory();
      const { needle, url, process } = await serveHay(directory.path);
      await using _server = process;
      // Root may lock what it wants, but for this.
      const limits = ["--inh-caps=-ipc_lock", "--bounding-set=-ipc_lock", "prlimit", "--memlock=0"];
      const run = [Deno.execPath(), "run", "--quiet", "--no-check", "--allow-all", PROGRAM];
      const args = [...limits, ...run, url, "--device", device];
      const { code, stdout, stderr } = await new Deno.Command("setpriv", { args }).output();
      assertEquals([code, new TextDecoder().decode(stderr)], [0, ""]);
      assertEquals(new TextDecoder().decode(stdout), `${needle}\n`);
    },
  });
}
