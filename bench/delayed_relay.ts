/**
 * A relay of TCP connections that holds every byte up for half a round-trip time each way, without a
 * limit on the rate: `delayed_relay.ts HOST:PORT RTT_MS`. It prints the port where it listens.
 *
 * @module
 */
const [target = "", rtt = "0"] = Deno.args;
const [hostname = "", port = ""] = target.split(":");
const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
console.log(listener.addr.port);
for await (const near of listener) {
  const far = await Deno.connect({ hostname, port: Number(port) });
  for (const conn of [near, far]) conn.setNoDelay(true);
  // One whose other end is gone has nothing more to do.
  for (const [from, to] of [[near, far], [far, near]] as const) relay(from, to).catch(() => {});
}

/** Copies until one end closes, then closes both. */
async function relay(from: Deno.Conn, to: Deno.Conn): Promise<void> {
  const queue: { due: number; bytes: Uint8Array }[] = [];
  let wake = Promise.withResolvers<void>(), ended = false;
  const writing = (async () => {
    for (;;) {
      const first = queue.shift();
      if (first === undefined) {
        if (ended) return;
        await wake.promise;
        wake = Promise.withResolvers();
        continue;
      }
      const wait = first.due - performance.now();
      if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
      for (let at = 0; at < first.bytes.length;) at += await to.write(first.bytes.subarray(at));
    }
  })();
  try {
    for (;;) {
      const bytes = new Uint8Array(256 << 10), count = await from.read(bytes);
      if (count === null) break;
      queue.push({ due: performance.now() + Number(rtt) / 2, bytes: bytes.subarray(0, count) });
      wake.resolve();
    }
  } catch {
    // The connection broke: so does the other one.
  }
  ended = true;
  wake.resolve();
  await writing.catch(() => {});
  for (const conn of [from, to]) {
    try {
      conn.close();
    } catch {
      // The relay of the other direction closed it.
    }
  }
}
