/**
 * Whole hellos over a connection that nothing else is said on yet.
 *
 * @module
 */
import { ConnectionError } from "../backend/errors.ts";
import type { ByteConn } from "../net/reactor_conn.ts";
import { HELLO_PREFIX_BYTES } from "./hello_prefix.ts";

/** Says a hello. */
export async function writeHello(conn: ByteConn, hello: Uint8Array): Promise<void> {
  for (let done = 0; done < hello.length;) done += await conn.write(hello.subarray(done));
}

/**
 * Hears a hello; `lengthOf` says how long it is by its beginning, and throws for what is none.
 *
 * @throws {ConnectionError} The peer closes the connection instead.
 */
export async function readHello(
  conn: ByteConn,
  lengthOf: (view: DataView, at: number) => number,
): Promise<Uint8Array<ArrayBuffer>> {
  const prefix = new Uint8Array(HELLO_PREFIX_BYTES);
  await readFully(conn, prefix);
  const hello = new Uint8Array(lengthOf(new DataView(prefix.buffer), 0));
  hello.set(prefix);
  await readFully(conn, hello.subarray(HELLO_PREFIX_BYTES));
  return hello;
}

async function readFully(conn: ByteConn, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const count = await conn.read(bytes.subarray(done));
    if (count === null) throw new ConnectionError("The other side closed the connection");
    done += count;
  }
}
