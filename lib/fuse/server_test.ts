import { assert, assertEquals } from "@std/assert";
import { EventFd } from "../../ffi/epoll.ts";
import { ERRNO, errno } from "../../ffi/errno.ts";
import { close, Iovec } from "../../ffi/file.ts";
import { addressOf, openLibc } from "../../ffi/libc.ts";
import { readv, socketpair, writev } from "../../ffi/socket.ts";
import { openMemory } from "../backend/memory.ts";
import { Reactor } from "../net/reactor.ts";
import { FEATURE, OPCODE } from "./protocol.ts";
import { FuseServer, type FuseServerOptions } from "./server.ts";

openLibc();

const SIZE = 1 << 20;
const FILE = 2;

/** A server whose kernel is this test, at the other end of a socket. */
class FakeKernel implements AsyncDisposable {
  readonly #backend = openMemory({ size: SIZE });
  readonly #wake = new EventFd();
  readonly #reactor = new Reactor(this.#wake, { blocking: false });
  readonly #running = this.#reactor.run();
  readonly #buffer = new Uint8Array(64 << 10);
  readonly #table = new Iovec(1);
  readonly #server: FuseServer;
  readonly #fd: number;
  readonly ended = Promise.withResolvers<Error | undefined>();

  constructor(options: Partial<FuseServerOptions> = {}) {
    const [ours, theirs] = socketpair();
    this.#fd = ours;
    this.#server = new FuseServer(this.#reactor, theirs, this.#backend, {
      fileName: "region",
      onDetached: this.ended.resolve,
      ...options,
    });
  }

  /** Sends a request with a header of its own making. */
  send(opcode: number, node: number, body: number[], length = 40 + body.length): void {
    const view = new DataView(this.#buffer.buffer);
    this.#buffer.fill(0, 0, 40);
    view.setUint32(0, length, true);
    view.setUint32(4, opcode, true);
    view.setUint32(8, 77, true);
    view.setUint32(16, node, true);
    this.#buffer.set(body, 40);
    this.#table.set(0, addressOf(this.#buffer), 40 + body.length);
    assertEquals(writev(this.#fd, this.#table, 1), 40 + body.length);
  }

  /** The next reply: its error and body. */
  async receive(): Promise<{ error: number; body: DataView<ArrayBuffer> }> {
    this.#table.set(0, addressOf(this.#buffer), this.#buffer.length);
    for (;;) {
      const length = readv(this.#fd, this.#table, 1);
      if (length < 0) {
        assertEquals(errno(), ERRNO.EAGAIN);
        await new Promise((resolve) => setTimeout(resolve, 0));
        continue;
      }
      const view = new DataView(this.#buffer.slice(0, length).buffer);
      assertEquals(view.getUint32(0, true), length);
      assertEquals(view.getUint32(8, true), 77);
      return { error: 0 - view.getInt32(4, true), body: new DataView(view.buffer, 16) };
    }
  }

  async call(opcode: number, node: number, body: number[]) {
    this.send(opcode, node, body);
    return await this.receive();
  }

  /** Waits until the server has read what was sent: a socket joins messages, /dev/fuse does not. */
  async taken(): Promise<void> {
    // The turn that is under way may have looked before; the next one looks again.
    for (let turn = 0; turn < 2; turn++) {
      await new Promise<void>((resolve) => {
        this.#reactor.addDeadline(0, resolve);
        this.#wake.signal();
      });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    close(this.#fd);
    this.#reactor.stop();
    await this.#running;
    this.#reactor[Symbol.dispose]();
    this.#wake[Symbol.dispose]();
    this.#backend.close();
  }
}

function u32s(...values: number[]): number[] {
  return [...new Uint8Array(new Uint32Array(values).buffer)];
}

Deno.test("INIT takes the features both sides have", async () => {
  await using kernel = new FakeKernel();
  const offered = FEATURE.ASYNC_READ | FEATURE.MAX_PAGES | 1 << 3;
  const { error, body } = await kernel.call(OPCODE.INIT, 0, u32s(7, 45, 1 << 17, offered));
  assertEquals(error, 0);
  assertEquals([body.getUint32(0, true), body.getUint32(4, true)], [7, 31]);
  assertEquals(body.getUint32(12, true), FEATURE.ASYNC_READ | FEATURE.MAX_PAGES);
  assertEquals(body.getUint32(20, true), 1 << 20);
});

Deno.test("INIT refuses older kernels and tells newer ones what is spoken", async () => {
  await using kernel = new FakeKernel();
  assertEquals((await kernel.call(OPCODE.INIT, 0, u32s(7, 30, 0, 0))).error, ERRNO.EPROTO);
  const { error, body } = await kernel.call(OPCODE.INIT, 0, u32s(8, 0, 0, 0));
  assertEquals([error, body.getUint32(0, true)], [0, 7]);
});

Deno.test("requests that are too short or mean nothing are refused, and others still served", async () => {
  await using kernel = new FakeKernel();
  assertEquals((await kernel.call(OPCODE.READ, FILE, u32s(0, 0))).error, ERRNO.EINVAL);
  assertEquals((await kernel.call(OPCODE.WRITE, FILE, u32s(0))).error, ERRNO.EINVAL);
  assertEquals((await kernel.call(9999, FILE, [])).error, ERRNO.ENOSYS);
  assertEquals((await kernel.call(OPCODE.GETATTR, 99, [])).error, ERRNO.ENOENT);
  assertEquals((await kernel.call(OPCODE.GETATTR, FILE, [])).error, 0);
});

Deno.test("transfers whose lengths lie are refused", async () => {
  await using kernel = new FakeKernel();
  const transfer = (offset: number, length: number) => u32s(0, 0, offset, 0, length, 0, 0, 0, 0, 0);
  const read = (offset: number, length: number) =>
    kernel.call(OPCODE.READ, FILE, transfer(offset, length));
  assertEquals((await read(0, 0xffff_ffff)).error, ERRNO.EINVAL);
  assertEquals((await read(SIZE - 10, 4096)).body.byteLength, 10);
  assertEquals((await read(SIZE, 4096)).body.byteLength, 0);
  const far = u32s(0, 0, 0xffff_ffff, 0xffff_ffff, 4096, 0, 0, 0, 0, 0);
  assertEquals((await kernel.call(OPCODE.READ, FILE, far)).body.byteLength, 0);
  const write = (length: number, ...data: number[]) =>
    kernel.call(OPCODE.WRITE, FILE, [...transfer(5, length), ...data]);
  assertEquals((await write(100, 1, 2, 3)).error, ERRNO.EINVAL);
  assertEquals((await write(2, 1, 2, 3)).error, ERRNO.EINVAL);
  assertEquals((await write(3, 1, 2, 3)).body.getUint32(0, true), 3);
  assertEquals((await read(4, 5)).body.getUint32(0, true), 0x030201_00);
});

Deno.test("a read-only server takes no write, whatever was opened", async () => {
  await using kernel = new FakeKernel({ readOnly: true });
  const O_RDWR = 2;
  assertEquals((await kernel.call(OPCODE.OPEN, FILE, u32s(O_RDWR, 0))).error, ERRNO.EROFS);
  assertEquals((await kernel.call(OPCODE.OPEN, FILE, u32s(0, 0))).error, 0);
  const write = [...u32s(0, 0, 0, 0, 1, 0, 0, 0, 0, 0), 7];
  assertEquals((await kernel.call(OPCODE.WRITE, FILE, write)).error, ERRNO.EROFS);
  const punch = u32s(0, 0, 0, 0, 10, 0, 3, 0);
  assertEquals((await kernel.call(OPCODE.FALLOCATE, FILE, punch)).error, ERRNO.EROFS);
});

Deno.test("FORGET and INTERRUPT get no reply", async () => {
  await using kernel = new FakeKernel();
  for (const opcode of [OPCODE.FORGET, OPCODE.BATCH_FORGET, OPCODE.INTERRUPT]) {
    kernel.send(opcode, FILE, u32s(1, 0));
    await kernel.taken();
  }
  // The first reply is that to the next request, and has its body.
  assertEquals((await kernel.call(OPCODE.GETATTR, FILE, [])).body.byteLength, 104);
});

Deno.test("DESTROY is answered and ends the server", async () => {
  await using kernel = new FakeKernel();
  assertEquals((await kernel.call(OPCODE.DESTROY, 0, [])).error, 0);
  assertEquals(await kernel.ended.promise, undefined);
});

Deno.test("a request whose length is not its own ends the server with an error", async () => {
  await using kernel = new FakeKernel();
  kernel.send(OPCODE.GETATTR, FILE, [], 41);
  const error = await kernel.ended.promise;
  assert(error?.message.includes("FUSE request of 40 bytes"));
});
