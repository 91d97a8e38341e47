/**
 * A real HTTP server with one object, of which it sends ranges: the pattern of a seed, so that it
 * may have any size.
 *
 * @module
 */
import { Pattern } from "../../lib/backend/pattern.ts";

/** How an {@linkcode ObjectServer} is. */
export interface ObjectServerOptions {
  /** Bytes of the object. */
  size: number;
  /** Certificate and key in PEM; plain HTTP unless told. */
  tls?: { cert: string; key: string };
}

/** A request as it came. */
export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: Headers;
}

/** Called with each request; what it answers is sent in place of the object. */
export type Intercept = (
  request: SeenRequest,
) => Response | undefined | Promise<Response | undefined>;

/** See the module. The object is at every path that {@linkcode ObjectServer.intercept} lets pass. */
export class ObjectServer implements AsyncDisposable {
  readonly size: number;
  /** All requests that came. */
  readonly requests: SeenRequest[] = [];
  /** What the object is at present; {@linkcode ObjectServer.replace} changes it. */
  pattern = new Pattern(1);
  /** Its ETag, if it has one. */
  etag: string | undefined = '"1"';
  /** When it changed last, if that is told. */
  modified: Date | undefined;
  intercept: Intercept = () => undefined;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  readonly #scheme: string;
  readonly #stop = new AbortController();

  /** Listens at a free port of this host. */
  constructor({ size, tls }: ObjectServerOptions) {
    this.size = size;
    this.#scheme = tls === undefined ? "http" : "https";
    const { signal } = this.#stop;
    this.#server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, signal, onListen() {}, ...tls },
      (request) => this.#answer(request),
    );
  }

  /** The URL of the object. */
  get url(): string {
    return this.urlOf("/object");
  }

  /** The URL of any path. */
  urlOf(path: string): string {
    return `${this.#scheme}://127.0.0.1:${this.#server.addr.port}${path}`;
  }

  /** The requests that asked for ranges. */
  get ranges(): string[] {
    return this.requests.flatMap(({ headers }) => headers.get("range") ?? []);
  }

  /** Puts another object in the place of the present one, with an ETag of its own. */
  replace(seed: number): void {
    this.pattern = new Pattern(seed);
    this.etag = `"${seed}"`;
  }

  /** Cuts all connections. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#server.finished;
  }

  async #answer({ method, url, headers }: Request): Promise<Response> {
    const request = { method, path: new URL(url).pathname, headers };
    this.requests.push(request);
    return await this.intercept(request) ?? this.#send(method, headers);
  }

  #send(method: string, asked: Headers): Response {
    const headers = new Headers({ "accept-ranges": "bytes" });
    if (this.etag !== undefined) headers.set("etag", this.etag);
    if (this.modified !== undefined) headers.set("last-modified", this.modified.toUTCString());
    if (!this.#matches(asked)) return new Response(null, { status: 412 });
    if (method === "HEAD") {
      headers.set("content-length", `${this.size}`);
      return new Response(null, { headers });
    }
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(asked.get("range") ?? "") ?? [];
    const start = Number(first), end = Math.min(Number(last) + 1, this.size);
    if (!(start < end)) {
      headers.set("content-range", `bytes */${this.size}`);
      return new Response(null, { status: 416, headers });
    }
    const body = new Uint8Array(end - start);
    this.pattern.fill(body, start);
    headers.set("content-range", `bytes ${start}-${end - 1}/${this.size}`);
    return new Response(body, { status: 206, headers });
  }

  #matches(asked: Headers): boolean {
    const match = asked.get("if-match"), since = asked.get("if-unmodified-since");
    if (match !== null) return match === this.etag;
    if (since === null || this.modified === undefined) return true;
    return Math.floor(this.modified.getTime() / 1000) <= Date.parse(since) / 1000;
  }
}
