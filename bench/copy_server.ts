/**
 * The floor of the native wire: bytes through Deno's own TCP, from a process that writes one
 * buffer over and over to one that reads into one buffer.
 *
 * @module
 */

/** A process that sends for as long as somebody reads. */
export interface CopyServer extends AsyncDisposable {
  /** Reads for so many seconds and answers MB/s. */
  read(seconds: number): Promise<number>;
}

/** Starts the sender, which writes `size` bytes at a time. */
export async function copyServer(size: number): Promise<CopyServer> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", import.meta.url, `${size}`],
    stdin: "null",
    stdout: "piped",
  }).spawn();
  const reader = child.stdout.getReader();
  const { value } = await reader.read();
  const port = Number(new TextDecoder().decode(value));
  return {
    read: (seconds) => readFor(port, size, seconds),
    async [Symbol.asyncDispose]() {
      child.kill("SIGTERM");
      await reader.cancel();
      await child.status;
    },
  };
}

async function readFor(port: number, size: number, seconds: number): Promise<number> {
  using conn = await Deno.connect({ port });
  const buffer = new Uint8Array(size);
  const start = performance.now();
  let bytes = 0;
  while (performance.now() - start < seconds * 1000) bytes += await conn.read(buffer) ?? 0;
  return bytes / 1000 / (performance.now() - start);
}

async function send(size: number): Promise<never> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  console.log(listener.addr.port);
  const buffer = new Uint8Array(size).fill(0x5a);
  while (true) {
    using conn = await listener.accept();
    try {
      while (true) await conn.write(buffer);
    } catch {
      // The reader has had enough.
    }
  }
}

if (import.meta.main) await send(Number(Deno.args[0]));
