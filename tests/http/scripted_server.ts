/**
 * An HTTP/1.1 server that sends what a test tells it, byte by byte, right or wrong.
 *
 * @module
 */

/** A request as it came. */
export interface RawRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: Headers;
  /** How many requests came before it, of its method. */
  readonly index: number;
}

/** What is sent, and what becomes of the connection then. */
export interface RawReply {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: Uint8Array;
  /** Sent in place of status, headers and body. */
  readonly raw?: Uint8Array;
  /** It serves the next request, is closed, or stays as it is; the first unless told. */
  readonly then?: "serve" | "cut" | "hang";
}

/** See the module. */
export class ScriptedServer implements AsyncDisposable {
  /** All requests that came. */
  readonly requests: RawRequest[] = [];
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #conns = new Set<Deno.Conn>();
  readonly #reply: (request: RawRequest) => RawReply;
  readonly #serving: Promise<unknown>;

  /** Answers with what `reply` says. */
  constructor(reply: (request: RawRequest) => RawReply) {
    this.#reply = reply;
    this.#serving = this.#accept();
  }

  /** The URL of the only object. */
  get url(): string {
    return `http://127.0.0.1:${(this.#listener.addr as Deno.NetAddr).port}/object`;
  }

  /** The ranges that were asked for. */
  get ranges(): string[] {
    return this.requests.flatMap(({ headers }) => headers.get("range") ?? []);
  }

  /** Cuts all connections. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const conn of this.#conns) close(conn);
    await this.#serving;
  }

  async #accept(): Promise<void> {
    const serving: Promise<void>[] = [];
    try {
      for (;;) {
        const conn = await this.#listener.accept();
        this.#conns.add(conn);
        serving.push(this.#serve(conn));
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.BadResource)) throw error;
    }
    await Promise.all(serving);
  }

  async #serve(conn: Deno.Conn): Promise<void> {
    try {
      for (;;) {
        const head = await readHead(conn);
        if (head === undefined) break;
        const reply = this.#reply(this.#seen(head));
        await writeAll(conn, reply.raw ?? encode(reply));
        if (reply.then === "hang") await readHead(conn);
        if (reply.then === "cut") break;
      }
    } catch {
      // The client went away, as it may.
    }
    close(conn);
  }

  #seen(head: string): RawRequest {
    const [first = "", ...lines] = head.split("\r\n");
    const [method = "", path = ""] = first.split(" ");
    const headers = new Headers(lines.map((line): [string, string] => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon), line.slice(colon + 1)];
    }));
    const index = this.requests.filter((request) => request.method === method).length;
    const request = { method, path, headers, index };
    this.requests.push(request);
    return request;
  }
}

/** A response as bytes; it has a Content-Length unless the headers have one or another framing. */
export function encode({ status, headers, body }: RawReply): Uint8Array {
  const all: Record<string, string> = { "content-length": `${body.length}`, ...headers };
  if ("transfer-encoding" in headers) delete all["content-length"];
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  const head = new TextEncoder().encode(`HTTP/1.1 ${status} Status\r\n${lines.join("")}\r\n`);
  return new Uint8Array([...head, ...body]);
}

/** A body in chunked framing: all of it as one chunk, and the end. */
export function chunked(body: Uint8Array): Uint8Array {
  const text = (line: string) => new TextEncoder().encode(line);
  const size = text(`${body.length.toString(16)}\r\n`);
  return new Uint8Array([...size, ...body, ...text("\r\n0\r\n\r\n")]);
}

async function readHead(conn: Deno.Conn): Promise<string | undefined> {
  let head = "";
  const buffer = new Uint8Array(4096);
  while (!head.endsWith("\r\n\r\n")) {
    const count = await conn.read(buffer);
    if (count === null) return undefined;
    head += new TextDecoder().decode(buffer.subarray(0, count));
  }
  return head.trimEnd();
}

async function writeAll(conn: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length;) done += await conn.write(bytes.subarray(done));
}

function close(conn: Deno.Conn): void {
  try {
    conn.close();
  } catch (error) {
    if (!(error instanceof Deno.errors.BadResource)) throw error;
  }
}
