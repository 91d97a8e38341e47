import { assert, assertEquals } from "@std/assert";
import type { Channel, Protocol } from "./channel.ts";
import { StreamChannel } from "./stream_channel.ts";

/** Answers each byte by what `answer` does, and notes how it ended. */
class Echo implements Protocol {
  end: string | undefined;

  constructor(readonly channel: Channel, readonly answer: (byte: number) => void) {}

  receive(): void {
    const { channel } = this;
    while (channel.start < channel.end && channel.hasRoom()) {
      const byte = channel.input[channel.start]!;
      channel.consume(1);
      this.answer(byte);
    }
  }

  drained(): void {
    this.receive();
  }

  closed(error?: Error): void {
    this.end = error?.message ?? "closed";
  }
}

/** Two byte streams in memory, end to end. */
function pair() {
  const up = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>();
  const down = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>();
  return {
    here: { readable: up.readable, writable: down.writable },
    there: { readable: down.readable, writable: up.writable },
  };
}

function bytes(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}

async function readAll(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<Uint8Array> {
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

Deno.test("StreamChannel answers, and ends with its peer", async () => {
  const { here, there } = pair();
  const channel = new StreamChannel(here);
  const echo = new Echo(channel, (byte) => {
    const at = channel.reserve(1);
    channel.outputView.setUint8(at, byte);
  });
  const running = channel.run(echo);
  const writer = there.writable.getWriter();
  const text = bytes("hello".repeat(10_000));
  const answer = readAll(there.readable);
  await writer.write(text);
  await writer.close();
  assertEquals(await answer, text);
  await running;
  assertEquals(echo.end, "closed");
});

Deno.test("StreamChannel ends with an error of its stream", async () => {
  const { here, there } = pair();
  const channel = new StreamChannel(here);
  const echo = new Echo(channel, () => {});
  const running = channel.run(echo);
  await there.writable.abort(new Error("cut"));
  await there.readable.cancel();
  await running;
  assertEquals(echo.end, "cut");
});

Deno.test("StreamChannel ends with an error of its protocol", async () => {
  for (const failsWhenDrained of [false, true]) {
    const { here, there } = pair();
    const channel = new StreamChannel(here);
    let answers = 0;
    const echo = new Echo(channel, () => {
      if (!failsWhenDrained || ++answers > 10) throw new RangeError("No such byte");
      channel.queueCopy(new Uint8Array(1 << 20));
    });
    const running = channel.run(echo);
    const writer = there.writable.getWriter();
    const write = writer.write(bytes("x".repeat(100))).catch(() => {});
    const answer = readAll(there.readable).catch(() => {});
    await running;
    assertEquals(echo.end, "No such byte");
    await Promise.all([write, answer]);
  }
});

Deno.test("StreamChannel waits for a peer that reads nothing no longer than its time", async () => {
  const { here, there } = pair();
  const channel = new StreamChannel(here, 30);
  const echo = new Echo(channel, () => channel.queueCopy(new Uint8Array(1 << 20)));
  const running = channel.run(echo);
  const writer = there.writable.getWriter();
  await writer.write(bytes("abc"));
  const began = performance.now();
  channel.close();
  await running;
  assert(performance.now() - began >= 29);
  assert(echo.end !== undefined);
});

Deno.test("StreamChannel reads nothing while it is paused", async () => {
  const { here, there } = pair();
  const channel = new StreamChannel(here);
  let seen = 0;
  const echo = new Echo(channel, () => {
    seen++;
    channel.pause();
  });
  const running = channel.run(echo);
  const writer = there.writable.getWriter();
  const writes = [writer.write(bytes("a")), writer.write(bytes("b")), writer.write(bytes("c"))];
  await writes[0];
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(seen, 1);
  channel.resume();
  await writes[1];
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(seen, 2);
  channel.close();
  await running;
  await Promise.allSettled(writes);
  await there.readable.cancel();
});
