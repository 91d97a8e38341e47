/**
 * Makes of a source what can be sent to the Worker that opens it.
 *
 * @module
 */
import type { Backend } from "../backend/backend.ts";
import type { HostLink } from "./host_link.ts";
import { exposeBackend } from "./port.ts";
import {
  type HostSource,
  isBackend,
  isDialled,
  isGroup,
  portable,
  portableRemote,
  type PortableSource,
} from "./source.ts";

/**
 * The source as it crosses, and what is transferred with it. A Backend object that does not share its
 * bytes stays in this isolate, and answers there for as long as the link is.
 */
export function movable(
  source: HostSource,
  token: string | undefined,
  link: HostLink,
): [PortableSource, Transferable[]] {
  if (isDialled(source)) return [portableRemote(source, token), []];
  if (isGroup(source)) {
    const moved = source.parts.map(({ backend }) => movable(backend, token, link));
    const parts = moved.map(([there], index) => ({
      name: source.parts[index]!.name,
      source: there,
    }));
    return [{ kind: "group", parts }, moved.flatMap(([, transfer]) => transfer)];
  }
  if (!isBackend(source)) return [portable(source, token), []];
  const shared = (source as Backend).share?.();
  if (shared !== undefined) return [{ kind: "shared", shared }, []];
  const { port1, port2 } = new MessageChannel();
  exposeBackend(source, port1);
  link.exposed.push(port1);
  return [{ kind: "port", port: port2 }, [port2]];
}
