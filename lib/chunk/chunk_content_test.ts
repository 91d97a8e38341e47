import { assertEquals, assertRejects } from "@std/assert";
import type { Backend } from "../backend/backend.ts";
import { writeChunks } from "./chunk_content.ts";

Deno.test("a write that fails at once leaves no other one that nobody waits for", async () => {
  const held = Promise.withResolvers<void>();
  const calls: string[] = [];
  const backend: Backend = {
    ...{ size: 1 << 20, blockSize: 1, durable: true, readOnly: false },
    readAt() {},
    writeAt(bytes, offset) {
      calls.push(`write ${offset}+${bytes.length}`);
      return held.promise;
    },
    zero(offset, length) {
      calls.push(`zero ${offset}+${length}`);
      throw new Error("At once");
    },
    flush() {},
    close() {},
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
  const content = new Uint8Array(12_288).fill(1).fill(0, 4096, 8192);
  const failed = assertRejects(() => writeChunks(backend, content, 0, 4096), Error, "Later");
  assertEquals(calls, ["write 0+4096", "zero 4096+4096", "write 8192+4096"]);
  held.reject(new Error("Later"));
  await failed;
});
