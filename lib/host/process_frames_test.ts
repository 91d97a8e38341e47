import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { decodeFrames, encodeFrame } from "./process_frames.ts";

const VALUES = [
  { id: 1, command: "fill", options: { first: Float64Array.of(1, 2.5, 2 ** 53 - 1) } },
  "text",
  { event: "detached", fd: 7, error: undefined },
  new Uint8Array([1, 2, 3]),
];

async function decodeAll(pieces: Uint8Array<ArrayBuffer>[]): Promise<unknown[]> {
  const values: unknown[] = [];
  for await (const value of decodeFrames(ReadableStream.from(pieces))) values.push(value);
  return values;
}

Deno.test("values come out of a stream however it is cut", async () => {
  const stream = new Uint8Array(VALUES.flatMap((value) => [...encodeFrame(value)]));
  const cuts = fc.array(fc.nat(stream.length), { maxLength: 20 });
  await fc.assert(fc.asyncProperty(cuts, async (cuts) => {
    const bounds = [0, ...cuts.toSorted((a, b) => a - b), stream.length];
    const pieces = bounds.slice(1).map((end, index) => stream.slice(bounds[index], end));
    assertEquals(await decodeAll(pieces), VALUES);
  }));
});

Deno.test("what is cut off at the end of a stream is left out", async () => {
  const stream = encodeFrame(VALUES[0]);
  assertEquals(await decodeAll([stream, stream.slice(0, -1)]), [VALUES[0]]);
});
