/** A part of a group that a host has: what is served of it is that part, and no other. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { close } from "../../ffi/file.ts";
import { openLibc } from "../../ffi/libc.ts";
import { recv, send, socketpair } from "../../ffi/socket.ts";
import { UsageError } from "../backend/errors.ts";
import { openMemory } from "../backend/memory.ts";
import { COMMAND, SIZE } from "../nbd/constants.ts";
import { encodeDisconnect, setRequestHeader } from "../nbd/request_header.ts";
import { BackendHost } from "./host.ts";
import { HostedPart } from "./hosted_part.ts";

openLibc();

const BYTES = 10_000;

Deno.test("what the kernel's NBD client writes to a part is in that part alone", async () => {
  const [first, second] = [openMemory({ size: BYTES }), openMemory({ size: BYTES })];
  const parts = [{ name: "first", backend: first }, { name: "second", backend: second }];
  const host = await BackendHost.startSeeded({ parts }, { chunkSize: 4096, group: true });
  const { parts: found = [] } = host.facts;
  assertEquals(found.map(({ name, size }) => ({ name, size })), [
    { name: "first", size: BYTES },
    { name: "second", size: BYTES },
  ]);
  let closed = 0;
  const part = new HostedPart(host, found[1]!, () => Promise.resolve(void closed++));
  assertEquals([part.facts.size, part.facts.readOnly], [BYTES, false]);
  const [ours, theirs] = socketpair();
  const detached = Promise.withResolvers<void>();
  await part.serveNbd(theirs, 0, detached.resolve);
  const content = new Uint8Array(300).fill(7), request = new Uint8Array(SIZE.REQUEST + 300);
  const header = { command: COMMAND.WRITE, flags: 0, offset: BYTES - 300, length: 300 };
  setRequestHeader(new DataView(request.buffer), 0, header, 0, 1);
  request.set(content, SIZE.REQUEST);
  assertEquals(send(ours, request), request.length);
  assertEquals(send(ours, encodeDisconnect()), SIZE.REQUEST);
  await detached.promise;
  const reply = new Uint8Array(100);
  // What was answered before the other end was closed is still to be read.
  assert(recv(ours, reply) > 0);
  assertEquals(new DataView(reply.buffer).getUint32(4), 0, "It succeeded");
  close(ours);
  const expected = new Uint8Array(BYTES);
  assertEquals(first.memory.bytes, expected);
  expected.set(content, BYTES - 300);
  assertEquals(second.memory.bytes, expected);
  await part.close();
  assertEquals(closed, 1);
  assertThrows(() => void part.startAnother(), UsageError, "several Workers");
  await host.close();
  for (const memory of [first, second]) memory.close();
});

Deno.test("a part that is not there, or of what is no group, is not served", async () => {
  await using host = await BackendHost.start("memory:1MiB");
  const [ours, theirs] = socketpair();
  await assertRejects(() => host.serveNbd(theirs, 0, () => {}, "first"), UsageError, "name first");
  for (const fd of [ours, theirs]) close(fd);
});
