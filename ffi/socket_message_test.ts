import { assertEquals, assertThrows } from "@std/assert";
import { SystemError } from "./errno.ts";
import { close, ftruncate, pread, pwrite } from "./file.ts";
import { openLibc } from "./libc.ts";
import { memfdCreate } from "./mman.ts";
import { socketpair } from "./socket.ts";
import { DESCRIPTORS_MAX, receiveDescriptors, sendDescriptors } from "./socket_message.ts";

openLibc();

/** A memory file that holds one text. */
function fileOf(text: string): number {
  const fd = memfdCreate("telemap-test");
  ftruncate(fd, 4096, "telemap-test");
  pwrite(fd, new TextEncoder().encode(text.padEnd(100)), 0);
  return fd;
}

function textOf(fd: number): string {
  const bytes = new Uint8Array(100);
  pread(fd, bytes, 0);
  return new TextDecoder().decode(bytes).trimEnd();
}

/** Open descriptors of this process. */
function openDescriptors(): number {
  return [...Deno.readDirSync("/proc/self/fd")].length;
}

Deno.test("descriptors arrive as copies, in order, with their bytes", () => {
  const [left, right] = socketpair();
  const files = [fileOf("one"), fileOf("two")];
  assertEquals(sendDescriptors(left, new Uint8Array([1, 2, 3]), files), 3);
  files.forEach(close);
  const buffer = new Uint8Array(10);
  const { length, descriptors } = receiveDescriptors(right, buffer, 2);
  assertEquals([...buffer.subarray(0, length)], [1, 2, 3]);
  assertEquals(descriptors.map(textOf), ["one", "two"]);
  [...descriptors, left, right].forEach(close);
});

Deno.test("bytes without descriptors, nothing, and the end are told apart", () => {
  const [left, right] = socketpair();
  const buffer = new Uint8Array(10);
  assertEquals(
    assertThrows(() => receiveDescriptors(right, buffer, 1), SystemError).code,
    "EAGAIN",
  );
  sendDescriptors(left, new Uint8Array([9]), []);
  assertEquals(receiveDescriptors(right, buffer, 1), { length: 1, descriptors: [] });
  close(left);
  assertEquals(receiveDescriptors(right, buffer, 1), { length: 0, descriptors: [] });
  close(right);
});

Deno.test("more descriptors than the limit are refused, and none stays open", () => {
  const [left, right] = socketpair();
  const file = fileOf("x");
  sendDescriptors(left, new Uint8Array(1), Array<number>(DESCRIPTORS_MAX).fill(file));
  const before = openDescriptors();
  const receive = () => receiveDescriptors(right, new Uint8Array(1), 1);
  assertEquals(assertThrows(receive, SystemError).code, "EMSGSIZE");
  assertEquals(openDescriptors(), before);
  [file, left, right].forEach(close);
});

Deno.test("as many descriptors as a message carries arrive; more, or no byte, are refused", () => {
  const [left, right] = socketpair();
  const file = fileOf("x");
  const all = Array<number>(DESCRIPTORS_MAX).fill(file);
  sendDescriptors(left, new Uint8Array(1), all);
  const { descriptors } = receiveDescriptors(right, new Uint8Array(1), DESCRIPTORS_MAX);
  assertEquals(new Set(descriptors).size, DESCRIPTORS_MAX);
  assertThrows(() => sendDescriptors(left, new Uint8Array(1), [...all, file]), RangeError);
  assertThrows(() => sendDescriptors(left, new Uint8Array(0), [file]), RangeError);
  [...descriptors, file, left, right].forEach(close);
});
