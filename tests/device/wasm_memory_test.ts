/**
 * A WebAssembly instance on memory that pages in from a server in another process.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { probeUserfault } from "../../ffi/userfault_open.ts";
import { openMemory } from "../../lib/backend/memory.ts";
import { pageInMemory, SystemError, UsageError } from "../../mod.ts";
import { requiresThat, withReason } from "../requires.ts";
import { instantiateChecksum } from "./checksum_wasm.ts";
import { startServer } from "./served_region.ts";

openLibc();

const PAGE = 65536;
const SIZE = 8 << 20;

interface ServedContent extends AsyncDisposable {
  url: string;
  path: string;
  content: Uint8Array<ArrayBuffer>;
}

/** Random content in a file that another process serves. */
async function serveContent(size: number): Promise<ServedContent> {
  const content = new Uint8Array(size);
  for (let at = 0; at < size; at += 65536) {
    crypto.getRandomValues(content.subarray(at, Math.min(at + 65536, size)));
  }
  const path = await Deno.makeTempFile();
  await Deno.writeFile(path, content);
  const { process, url } = await startServer(`file:${path}`);
  const dispose = async () => {
    await process[Symbol.asyncDispose]();
    await Deno.remove(path);
  };
  return { url, path, content, [Symbol.asyncDispose]: dispose };
}

async function sumOf(content: Uint8Array): Promise<bigint> {
  const memory = new WebAssembly.Memory({ initial: Math.ceil(content.length / PAGE) });
  new Uint8Array(memory.buffer).set(content);
  return (await instantiateChecksum(memory)).sum(0, content.length);
}

const open = probeUserfault().ways.some(({ available }) => available);
const userfault = requiresThat(open, "userfaultfd is not permitted");

function test(name: string, fn: () => Promise<void>): void {
  Deno.test({ name: withReason(name, userfault), ignore: userfault.ignore, fn });
}

for (const shared of [false, true]) {
  const kind = shared ? "shared WebAssembly memory" : "WebAssembly memory";

  test(`a checksum over ${kind} that pages in from a server is the local one`, async () => {
    await using served = await serveContent(SIZE);
    const pages = SIZE / PAGE;
    const memory = new WebAssembly.Memory({ initial: pages, maximum: 2 * pages, shared });
    const instance = await instantiateChecksum(memory);
    await using region = await pageInMemory(memory, { backend: served.url });
    assertEquals((await region.statistics()).copiedPages, 0);
    assertEquals(instance.sum(0, SIZE), await sumOf(served.content));
    assert((await region.statistics()).faults > 0);
  });
}

test("what an instance stores goes back, and nothing else does", async () => {
  await using served = await serveContent(SIZE);
  const memory = new WebAssembly.Memory({ initial: SIZE / PAGE });
  const instance = await instantiateChecksum(memory);
  await using region = await pageInMemory(memory, { backend: served.url });
  instance.store(5 << 20, 0x01020304);
  instance.store(7, 0x05060708);
  instance.sum(0, 1 << 20);
  await region.sync();
  const view = new DataView(served.content.buffer);
  view.setUint32(5 << 20, 0x01020304, true);
  view.setUint32(7, 0x05060708, true);
  assertEquals(await Deno.readFile(served.path), served.content);
  assertEquals((await region.statistics()).pushedBytes, 2 * 4096);
});

test("memory that is paged in grows, and what is new is the instance's own", async () => {
  await using served = await serveContent(SIZE);
  const memory = new WebAssembly.Memory({ initial: SIZE / PAGE, maximum: 4 * SIZE / PAGE });
  const instance = await instantiateChecksum(memory);
  await using region = await pageInMemory(memory, { backend: served.url });
  instance.store(SIZE - 4, 1);
  memory.grow(SIZE / PAGE);
  instance.store(SIZE + 4096, 2);
  assertEquals(new Uint8Array(memory.buffer).subarray(SIZE, SIZE + 4096), new Uint8Array(4096));
  await region.sync();
  assertEquals((await region.statistics()).pushedBytes, 4096);
  new DataView(served.content.buffer).setUint32(SIZE - 4, 1, true);
  assertEquals(instance.sum(0, SIZE), await sumOf(served.content));
});

test("memory whose region is closed keeps all of it, without its server", async () => {
  const memory = new WebAssembly.Memory({ initial: SIZE / PAGE });
  const instance = await instantiateChecksum(memory);
  let content: Uint8Array;
  {
    await using served = await serveContent(SIZE - 1000);
    const region = await pageInMemory(memory, { backend: served.url });
    instance.sum(4096, 8192);
    await region.close();
    content = served.content;
  }
  assertEquals(new Uint8Array(memory.buffer, 0, content.length), content);
  assertEquals(new Uint8Array(memory.buffer, content.length), new Uint8Array(1000));
  instance.store(0, 1);
});

test("memory that cannot be paged in is refused, and stays as it is", async () => {
  const memory = new WebAssembly.Memory({ initial: 1 });
  new Uint8Array(memory.buffer)[100] = 1;
  await using backend = openMemory({ size: 4096 });
  await assertRejects(() => pageInMemory(memory, { backend }), UsageError, "object");
  const tooLarge = () => pageInMemory(memory, { backend: "memory:128KiB" });
  await assertRejects(tooLarge, UsageError, "2 pages of 64 KiB");
  await assertRejects(() => pageInMemory(memory, { backend: "memory:0" }), UsageError);
  const faultAround = { backend: "memory:64KiB", faultAround: 5000 };
  await assertRejects(() => pageInMemory(memory, faultAround), UsageError, "multiple");
  assertEquals(new Uint8Array(memory.buffer)[100], 1);
  await using region = await pageInMemory(memory, { backend: "memory:64KiB" });
  assertEquals(region.size, PAGE);
  const again = await assertRejects(() => pageInMemory(memory, { backend: "memory:64KiB" }));
  assert(again instanceof SystemError && again.code === "EBUSY");
});
