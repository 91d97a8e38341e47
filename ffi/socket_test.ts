import { assert, assertEquals, assertThrows } from "@std/assert";
import { EPOLL, Epoll } from "./epoll.ts";
import { ERRNO, errno, SystemError } from "./errno.ts";
import { close, Iovec } from "./file.ts";
import { addressOf, openLibc } from "./libc.ts";
import * as net from "./socket.ts";

openLibc();

/** A table of one entry over `bytes`. */
function over(bytes: Uint8Array): Iovec {
  const iovec = new Iovec(1);
  iovec.set(0, addressOf(bytes), bytes.length);
  return iovec;
}

function assertErrno(code: keyof typeof ERRNO, run: () => unknown): void {
  assertEquals(assertThrows(run, SystemError).code, code);
}

Deno.test("bytes of several buffers cross a socket pair in one call each way", () => {
  const [left, right] = net.socketpair();
  const parts = [new Uint8Array(100).fill(1), new Uint8Array(200).fill(2)];
  const gather = new Iovec(2);
  parts.forEach((part, index) => gather.set(index, addressOf(part), part.length));
  assertEquals(net.writev(left, gather, 2), 300);
  const received = new Uint8Array(400);
  assertEquals(net.readv(right, over(received), 1), 300);
  assertEquals(received, new Uint8Array([...parts[0]!, ...parts[1]!, ...new Uint8Array(100)]));
  close(left);
  close(right);
});

Deno.test("what the peer has still to read is told, and where the kernel cannot, it is 0", () => {
  const [left, right] = net.socketpair();
  assertEquals(net.unread(left), 0);
  net.writev(left, over(new Uint8Array(100)), 1);
  const one = net.unread(left);
  assert(one >= 100 && one < 4096, `${one}`);
  net.writev(left, over(new Uint8Array(100)), 1);
  assertEquals(net.unread(left), 2 * one);
  net.readv(right, over(new Uint8Array(200)), 1);
  assertEquals(net.unread(left), 0);
  close(left);
  close(right);
  assertEquals(net.unread(left), 0);
});

Deno.test("an empty, a full and a closed socket answer EAGAIN, EAGAIN and 0 or EPIPE", () => {
  const [left, right] = net.socketpair();
  const bytes = new Uint8Array(65536);
  const table = over(bytes);
  assertEquals([net.readv(left, table, 1), errno()], [-1, ERRNO.EAGAIN]);
  let sent = 0;
  let count = 0;
  while ((count = net.writev(left, table, 1)) > 0) sent += count;
  assertEquals(errno(), ERRNO.EAGAIN);
  assert(sent >= 65536);
  close(right);
  assertEquals([net.writev(left, table, 1), errno()], [-1, ERRNO.EPIPE]);
  close(left);
});

Deno.test("shutdown ends both directions, and again does nothing", () => {
  const [left, right] = net.socketpair();
  net.shutdown(left);
  net.shutdown(left);
  assertEquals(net.readv(right, over(new Uint8Array(100)), 1), 0);
  close(left);
  close(right);
});

for (
  const [host, name] of [["localhost", "127.0.0.1"], ["127.0.0.1", "127.0.0.1"], [
    "::1",
    "[::1]",
  ]] as const
) {
  Deno.test(`TCP on ${host}: the port is told, connections carry bytes and names`, () => {
    const listener = net.listenTcp(host, 0);
    assertEquals(net.socketName(listener.fd), `${name}:${listener.port}`);
    assertEquals([net.accept(listener.fd), errno()], [-1, ERRNO.EAGAIN]);
    using epoll = new Epoll();
    const client = net.connectTcp(host, listener.port);
    epoll.add(client, EPOLL.OUT);
    assertEquals(epoll.wait(5000), 1);
    assertEquals(net.takeError(client), 0);
    const server = net.accept(listener.fd);
    assert(server >= 0);
    net.setNoDelay(client);
    assertEquals(net.getOption(client, net.SOL.TCP, 1), 1);
    assertEquals(net.peerName(client), `${name}:${listener.port}`);
    assertEquals(net.peerName(server), net.socketName(client));
    assertEquals(net.writev(client, over(new Uint8Array(100).fill(7)), 1), 100);
    epoll.add(server, EPOLL.IN);
    epoll.remove(client);
    assertEquals(epoll.wait(5000), 1);
    const received = new Uint8Array(100);
    assertEquals(net.readv(server, over(received), 1), 100);
    assertEquals(received, new Uint8Array(100).fill(7));
    assertErrno("EADDRINUSE", () => net.listenTcp(host, listener.port));
    for (const fd of [listener.fd, client, server]) close(fd);
  });
}

Deno.test("a refused TCP connection tells so in the socket's error", () => {
  const listener = net.listenTcp("127.0.0.1", 0);
  close(listener.fd);
  using epoll = new Epoll();
  let client: number;
  try {
    client = net.connectTcp("127.0.0.1", listener.port);
  } catch (error) {
    assert(error instanceof SystemError && error.code === "ECONNREFUSED");
    return;
  }
  epoll.add(client, EPOLL.OUT);
  epoll.wait(5000);
  assertEquals(net.takeError(client), ERRNO.ECONNREFUSED);
  close(client);
});

Deno.test("host names and bad ports are refused with what to do", () => {
  const error = assertThrows(() => net.listenTcp("nowhere.invalid", 0), SystemError);
  assertEquals(error.code, "EADDRNOTAVAIL");
  assert(error.message.includes("numeric"));
  for (const port of [-1, 65536, 1.5, NaN]) {
    assertThrows(() => net.listenTcp("127.0.0.1", port), RangeError);
  }
});

Deno.test("a Unix listener: private by default, taken paths refused, peers known", async () => {
  const directory = await Deno.makeTempDir();
  const path = `${directory}/s.sock`;
  const listener = net.listenUnix(path);
  assertEquals((await Deno.stat(path)).mode! & 0o777, 0o600);
  assertErrno("EADDRINUSE", () => net.listenUnix(path));
  const client = net.connectUnix(path);
  const server = net.accept(listener);
  assert(server >= 0);
  assertEquals(net.socketName(server), path);
  assertEquals(net.peerName(client), path);
  assertEquals(net.peerName(server), "");
  assertEquals(net.peerCredentials(server), {
    pid: Deno.pid,
    uid: Deno.uid()!,
    gid: Deno.gid()!,
  });
  net.setNoDelay(client);
  close(listener);
  assertErrno("ECONNREFUSED", () => net.connectUnix(path));
  assertErrno("ENOENT", () => net.connectUnix(`${path}.other`));
  close(client);
  close(server);
  await Deno.remove(directory, { recursive: true });
});

Deno.test("a name in the abstract namespace works without a file", () => {
  const name = `@telemap-test-${crypto.randomUUID()}`;
  const listener = net.listenUnix(name);
  const client = net.connectUnix(name);
  assertEquals(net.socketName(listener), name);
  close(listener);
  close(client);
});

Deno.test("socket paths of 107 bytes work, of 108 and 0 are refused", async () => {
  const directory = await Deno.makeTempDir();
  const longest = `${directory}/${"x".repeat(106 - directory.length)}`;
  close(net.listenUnix(longest));
  assertErrno("ENAMETOOLONG", () => net.listenUnix(longest + "x"));
  assertErrno("ENOENT", () => net.listenUnix(""));
  await Deno.remove(directory, { recursive: true });
});

Deno.test("the send buffer grows as asked", () => {
  const [left, right] = net.socketpair();
  const before = net.getOption(left, net.SOL.SOCKET, net.SO.SNDBUF);
  assert(net.setSendBuffer(left, before) >= before);
  close(left);
  close(right);
});
