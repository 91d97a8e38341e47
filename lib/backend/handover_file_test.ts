import { assertEquals, assertThrows } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { FencedError, IntegrityError } from "./errors.ts";
import { HandoverFile, handoverPath, readHandover } from "./handover_file.ts";
import {
  HANDOVER_BYTES,
  handoverSlotOffset,
  type HandoverState,
  UNRECORDED,
} from "./handover_record.ts";
import { parseLocalUrl } from "./local_url.ts";
import { openLocal } from "./open_local.ts";

openLibc();

const LEECH = "ab".repeat(16);

async function withDirectory(run: (path: string) => void | Promise<void>): Promise<void> {
  const path = Deno.makeTempDirSync({ prefix: "telemap-test-" });
  try {
    await run(path);
  } finally {
    Deno.removeSync(path, { recursive: true });
  }
}

function record(state: HandoverState, epoch = 1) {
  return { state, epoch, leech: LEECH, peer: "telemap://there" };
}

Deno.test("what was recorded last is what is found", () =>
  withDirectory((path) => {
    using file = HandoverFile.lock(`${path}/r.handover`);
    assertEquals(file.record, UNRECORDED);
    for (const state of ["receiving", "confirming", "taken", "owner"] as const) {
      file.write(record(state, 7));
      const { state: found, epoch, leech, peer } = readHandover(`${path}/r.handover`);
      assertEquals([found, epoch, leech, peer], [state, 7, LEECH, "telemap://there"]);
    }
  }));

Deno.test("a write that is torn leaves what was recorded before", () =>
  withDirectory((path) => {
    const name = `${path}/r.handover`;
    using file = HandoverFile.lock(name);
    file.write(record("confirming"));
    const before = Deno.readFileSync(name);
    file.write(record("given"));
    const after = Deno.readFileSync(name);
    const slot = after.findIndex((byte, at) => byte !== before[at]) >= handoverSlotOffset(1)
      ? 1
      : 0;
    for (let cut = 0; cut < 512; cut += 7) {
      const at = handoverSlotOffset(slot) + cut;
      const torn = after.slice();
      torn.set(before.subarray(at, handoverSlotOffset(slot) + 512), at);
      Deno.writeFileSync(name, torn);
      const { state } = readHandover(name);
      assertEquals(["confirming", "given"].includes(state), true);
      assertEquals(state === "given", torn.every((byte, index) => byte === after[index]));
    }
  }));

Deno.test("a record that is damaged as a whole is an error, not an owner", () =>
  withDirectory((path) => {
    const name = `${path}/r.handover`;
    Deno.writeFileSync(name, new Uint8Array(HANDOVER_BYTES).fill(7));
    assertThrows(() => readHandover(name), IntegrityError, name);
  }));

Deno.test("only what is owned here is opened to be written, and what was given away to be read", () =>
  withDirectory(async (path) => {
    const expected: Record<HandoverState, [boolean, boolean]> = {
      owner: [true, true],
      receiving: [false, false],
      confirming: [false, false],
      taken: [false, false],
      given: [false, true],
      released: [false, true],
    };
    for (const scheme of ["file", "dir"]) {
      const url = `${scheme}:${path}/${scheme}?size=8192`;
      await openLocal(url)!.close();
      using file = HandoverFile.lock(handoverPath(parseLocalUrl(url))!);
      for (const [state, [written, read]] of Object.entries(expected)) {
        file.write(record(state as HandoverState));
        for (const [suffix, allowed] of [["", written], ["&readonly", read]] as const) {
          const open = () => openLocal(url + suffix)!.close();
          if (allowed) await open();
          else assertThrows(open, FencedError, "Cannot open", `${url} ${state}`);
        }
      }
    }
  }));

Deno.test("the record lies beside the file, whatever name leads there", () =>
  withDirectory((path) => {
    openLocal(`file:${path}/region?size=4096`)!.close();
    Deno.symlinkSync(`${path}/region`, `${path}/link`);
    const real = Deno.realPathSync(path);
    for (const name of ["region", "link"]) {
      assertEquals(handoverPath(parseLocalUrl(`file:${path}/${name}`)), `${real}/region.handover`);
    }
    assertEquals(handoverPath(parseLocalUrl(`file:${path}/new`)), `${real}/new.handover`);
    const missing = `${path}/no/new`;
    assertEquals(handoverPath(parseLocalUrl(`file:${missing}`)), `${missing}.handover`);
    assertEquals(handoverPath(parseLocalUrl("memory:1MiB")), undefined);
  }));
