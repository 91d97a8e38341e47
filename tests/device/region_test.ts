/**
 * `registerRegion`: memory of a Deno program that `telemap uffd` pages in, through the death of the
 * handler.
 *
 * @module
 */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { ConnectionError, registerRegion, serveUserfault, UsageError } from "../../mod.ts";
import { requiresAll, requiresThat, withReason } from "../requires.ts";
import { probeUserfault, UFFD_FEATURE } from "../../ffi/userfault_open.ts";
import { TelemapProcess } from "../telemap_process.ts";
import { temporaryDirectory } from "./command.ts";
import { readBy } from "./read_by.ts";
import { LineProcess } from "./uffd_client.ts";

openLibc();

const { features } = probeUserfault();
const needs = requiresThat(features !== 0, "userfaultfd is not permitted");
const poisonNeeds = requiresAll(
  needs,
  requiresThat((features & UFFD_FEATURE.POISON) !== 0, "the kernel cannot poison"),
);
const PAGE = 4096;
/** Not whole pages. */
const SIZE = 512 * PAGE + 100;
const PROGRAM = new URL("./region_program.ts", import.meta.url).pathname;

/** A file of random bytes, and a socket for handlers of it. */
class Stage implements Disposable {
  readonly #directory = temporaryDirectory();
  readonly socket = `${this.#directory.path}/socket`;
  readonly file = `${this.#directory.path}/file`;

  constructor() {
    const content = new Uint8Array(SIZE);
    for (let at = 0; at < SIZE; at += 65536) {
      crypto.getRandomValues(content.subarray(at, at + 65536));
    }
    Deno.writeFileSync(this.file, content);
  }

  /** A handler that listens. */
  async handler(): Promise<TelemapProcess> {
    const args = ["uffd", `file:${this.file}`, "--socket", this.socket, "--json"];
    const handler = new TelemapProcess([...args, "--fault-around", "4KiB"]);
    assertEquals((await handler.next())["event"], "listening");
    return handler;
  }

  /** A program with memory from an offset on. */
  program(policy: string, offset = 0): LineProcess {
    const args = [this.socket, this.file, `${offset}`, `${SIZE - offset}`, policy];
    return new LineProcess(Deno.execPath(), [
      ...["run", "--quiet", "--no-check", "--allow-all", PROGRAM, ...args],
    ]);
  }

  [Symbol.dispose](): void {
    this.#directory[Symbol.dispose]();
  }
}

/** Waits until a program found its handler again and its bytes right, in either order. */
async function untilEqual(program: LineProcess): Promise<void> {
  const seen: string[] = [];
  while (seen.length < 2) {
    const line = await program.next();
    // The reason changes while there is no socket.
    if (!/ is lost /.test(line)) seen.push(line.replace(/^The handler at \S+ /, ""));
  }
  assertEquals(seen.sort(), ["equal", "is there again: paging in goes on"]);
}

Deno.test({
  name: withReason("a region is paged in, from an offset too, and let go when it is closed", needs),
  ignore: needs.ignore,
  async fn() {
    using stage = new Stage();
    await using handler = await stage.handler();
    for (const offset of [0, 3 * PAGE]) {
      await using program = stage.program("wait", offset);
      assertEquals(await program.next(), "attached");
      const { pid, bytes } = await handler.next();
      assertEquals([pid, bytes], [program.pid, 513 * PAGE - offset]);
      assertEquals(await program.ask(`check 0 ${SIZE - offset} 1`), "equal");
      assertEquals(await program.ask("close"), "0 0 closed closed");
      assertEquals((await handler.next())["reason"], "its connection ended");
      assertEquals((await program.end()).code, 0);
    }
  },
});

Deno.test({
  name: withReason("a region waits for the next handler when one is killed, and says so", needs),
  ignore: needs.ignore,
  async fn() {
    using stage = new Stage();
    await using before = await stage.handler();
    await using program = stage.program("wait");
    assertEquals(await program.next(), "attached");
    assertEquals(await program.ask(`check 0 ${SIZE / 4} 1000`), "equal");
    before.kill("SIGKILL");
    assertMatch(await program.next(), /^The handler at .* is lost \(.*\): missing pages wait/);
    // The program's isolate stops at a missing page until there is a handler again.
    await program.send(`check 0 ${SIZE} 1`);
    await using _after = await stage.handler();
    await untilEqual(program);
    assertEquals(await program.ask("state"), "attached lost,attached");
  },
});

Deno.test({
  name: withReason("a fault that a handler took with it is resolved by the next one", needs),
  ignore: needs.ignore,
  async fn() {
    using stage = new Stage();
    const asked = Promise.withResolvers<void>();
    const backend = readBy(SIZE, () => {
      asked.resolve();
      return new Promise<void>(() => {});
    });
    const silent = await serveUserfault(backend, { socket: stage.socket });
    await using program = stage.program("wait");
    assertEquals(await program.next(), "attached");
    await program.send(`check 0 ${SIZE} 1`);
    await asked.promise;
    await silent.close();
    assertMatch(await program.next(), /is lost/);
    await using _after = await stage.handler();
    await untilEqual(program);
  },
});

Deno.test({
  name: withReason("a region that poisons ends its program by SIGBUS", poisonNeeds),
  ignore: poisonNeeds.ignore,
  async fn() {
    using stage = new Stage();
    await using handler = await stage.handler();
    await using program = stage.program("poison");
    assertEquals(await program.next(), "attached");
    assertEquals(await program.ask(`check 0 ${PAGE} 1`), "equal");
    handler.kill("SIGKILL");
    assertMatch(await program.next(), /is lost \(.*\): a touch of a missing page is SIGBUS/);
    assertEquals(await program.ask(`check 0 ${PAGE} 1`), "equal");
    assertEquals(await program.ask("state"), "poisoned poisoned");
    await program.send(`check ${SIZE - PAGE} ${SIZE} 1`);
    const { code, signal } = await program.end();
    assertEquals({ code, signal }, { code: 128 + 7, signal: "SIGBUS" });
  },
});

Deno.test({
  name: withReason("a region without a handler, or that a handler refuses, is an error", needs),
  ignore: needs.ignore,
  async fn() {
    using stage = new Stage();
    const { socket } = stage;
    const absent = await assertRejects(() => registerRegion({ size: 1, socket }), ConnectionError);
    assertMatch(absent.message, /ENOENT; telemap uffd is such a handler$/);
    await using _handler = await stage.handler();
    const refused = await assertRejects(
      () => registerRegion({ size: 514 * PAGE, socket }),
      ConnectionError,
    );
    assertMatch(refused.message, /refused: The region .* ends at offset 2105344 of a backend/);
    for (const wrong of [{ size: 0 }, { size: 0.5 }, { size: 1, offset: 1 }]) {
      await assertRejects(() => registerRegion({ ...wrong, socket }), UsageError);
    }
  },
});

Deno.test({
  name: withReason("a region says what answers it that is no handler", needs),
  ignore: needs.ignore,
  async fn() {
    using stage = new Stage();
    const { socket } = stage;
    using listener = Deno.listen({ transport: "unix", path: socket });
    const silent = registerRegion({ size: 1, socket, answerMs: 20 });
    using _first = await listener.accept();
    const late = await assertRejects(() => silent, ConnectionError);
    assertMatch(late.message, /did not answer within 0.02 s/);
    const talking = registerRegion({ size: 1, socket });
    using second = await listener.accept();
    await second.write(new TextEncoder().encode("HTTP/1.1 400 Bad Request\r\n"));
    const strange = await assertRejects(() => talking, ConnectionError);
    assertMatch(strange.message, /did not answer as telemap's does/);
    assert(strange.message.length < 300);
  },
});
