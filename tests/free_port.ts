/**
 * Ports for servers whose address has to be known before they listen.
 *
 * @module
 */

/** A port at which nobody listens on this host. */
export function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}
