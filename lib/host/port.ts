/**
 * A backend over a MessagePort: one isolate has the object, another calls it. Buffers are
 * transferred, not copied.
 *
 * @module
 */
import { type Backend, checkRange, type Extent, extentsOf } from "../backend/backend.ts";
import { ClosedError, UnsupportedError } from "../backend/errors.ts";
import { packError, type PortableError, unpackError } from "./remote_error.ts";

interface Hello {
  size: number;
  blockSize: number;
  durable: boolean;
  readOnly: boolean;
  zero: boolean;
  discard: boolean;
}

interface Call {
  id: number;
  operation: "read" | "write" | "flush" | "zero" | "discard" | "extents";
  offset: number;
  length: number;
  allocate?: boolean | undefined;
  bytes?: Uint8Array<ArrayBuffer> | undefined;
}

interface Answer {
  id: number;
  error?: PortableError;
  bytes?: Uint8Array<ArrayBuffer>;
  extents?: Extent[];
}

/** Answers calls that arrive on `port` from `backend`, until the port is closed. */
export function exposeBackend(backend: Backend, port: MessagePort): void {
  port.onmessage = async ({ data: call }: MessageEvent<Call>) => {
    const answer: Answer = { id: call.id };
    try {
      await perform(backend, call, answer);
    } catch (error) {
      answer.error = packError(error);
      delete answer.bytes;
    }
    port.postMessage(answer, answer.bytes === undefined ? [] : [answer.bytes.buffer]);
  };
  const { size, blockSize, durable, readOnly } = backend;
  const zero = backend.zero !== undefined, discard = backend.discard !== undefined;
  port.postMessage({ size, blockSize, durable, readOnly, zero, discard } satisfies Hello);
}

async function perform(backend: Backend, call: Call, answer: Answer): Promise<void> {
  const { offset, length, allocate = false } = call;
  switch (call.operation) {
    case "read":
      answer.bytes = new Uint8Array(length);
      return await backend.readAt(answer.bytes, offset);
    case "write":
      return await backend.writeAt(call.bytes!, offset);
    case "flush":
      return await backend.flush();
    case "zero":
      return await backend.zero!(offset, length, { allocate });
    case "discard":
      return await backend.discard!(offset, length);
    case "extents":
      answer.extents = await extentsOf(backend, offset, length);
  }
}

/** The calling side. It closes the port; the backend itself belongs to the other isolate. */
export class PortBackend implements Backend {
  readonly size: number;
  readonly blockSize: number;
  readonly durable: boolean;
  readonly readOnly: boolean;
  readonly #port: MessagePort;
  readonly #hello: Hello;
  readonly #pending = new Map<number, PromiseWithResolvers<Answer>>();
  #nextId = 1;
  #closed = false;

  /** Waits for the other side's first message. */
  static async connect(port: MessagePort): Promise<PortBackend> {
    const hello = await new Promise<Hello>((resolve) => {
      port.onmessage = (event: MessageEvent<Hello>) => resolve(event.data);
    });
    return new PortBackend(port, hello);
  }

  private constructor(port: MessagePort, hello: Hello) {
    this.#port = port;
    this.#hello = hello;
    this.size = hello.size;
    this.blockSize = hello.blockSize;
    this.durable = hello.durable;
    this.readOnly = hello.readOnly;
    port.onmessage = ({ data: answer }: MessageEvent<Answer>) => {
      const call = this.#pending.get(answer.id);
      this.#pending.delete(answer.id);
      if (answer.error !== undefined) call?.reject(unpackError(answer.error));
      else call?.resolve(answer);
    };
  }

  async readAt(buffer: Uint8Array, offset: number): Promise<void> {
    this.#check(offset, buffer.length);
    const answer = await this.#call({ operation: "read", offset, length: buffer.length });
    buffer.set(answer.bytes!);
  }

  async writeAt(buffer: Uint8Array, offset: number): Promise<void> {
    this.#check(offset, buffer.length);
    const bytes = new Uint8Array(buffer);
    await this.#call({ operation: "write", offset, length: bytes.length, bytes });
  }

  async flush(): Promise<void> {
    await this.#call({ operation: "flush", offset: 0, length: 0 });
  }

  async zero(
    offset: number,
    length: number,
    options: { allocate?: boolean } = {},
  ): Promise<void> {
    this.#check(offset, length);
    if (!this.#hello.zero) throw new UnsupportedError("Cannot zero quickly");
    await this.#call({ operation: "zero", offset, length, allocate: options.allocate });
  }

  async discard(offset: number, length: number): Promise<void> {
    this.#check(offset, length);
    if (this.#hello.discard) await this.#call({ operation: "discard", offset, length });
  }

  async extents(offset: number, length: number): Promise<Extent[]> {
    this.#check(offset, length);
    return (await this.#call({ operation: "extents", offset, length })).extents!;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#port.close();
    const error = new ClosedError("Cannot go on as the backend is closed");
    for (const call of this.#pending.values()) call.reject(error);
    this.#pending.clear();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  #check(offset: number, length: number): void {
    if (this.#closed) throw new ClosedError("Cannot use a backend that is closed");
    checkRange(this.size, offset, length);
  }

  #call(call: Omit<Call, "id">): Promise<Answer> {
    if (this.#closed) throw new ClosedError("Cannot use a backend that is closed");
    const id = this.#nextId++;
    const pending = Promise.withResolvers<Answer>();
    this.#pending.set(id, pending);
    this.#port.postMessage({ ...call, id }, call.bytes === undefined ? [] : [call.bytes.buffer]);
    return pending.promise;
  }
}
