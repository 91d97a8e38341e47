/**
 * Opens a backend by its URL, whatever store or protocol it names.
 *
 * @module
 */
import type { Backend, SharedBackend } from "../backend/backend.ts";
import { FencedError, UsageError } from "../backend/errors.ts";
import { openSharedMemory } from "../backend/memory.ts";
import { HandoverFile } from "../backend/handover_file.ts";
import { type HandoverBook, HandoverGroup } from "../backend/handover_group.ts";
import { openLocal, type OpenLocalOptions } from "../backend/open_local.ts";
import { alignBackend } from "../chunk/align.ts";
import { delayBackend } from "../chunk/delay.ts";
import { parseDelayOptions, splitDelayUrl } from "../chunk/delay_url.ts";
import type { Reactor } from "../net/reactor.ts";
import type { NamedBackend } from "./group_backend.ts";
import { type HandoverPlace, handoverPlace, lockBefore } from "./handover_place.ts";
import { splitPartUrl } from "./part_url.ts";
import { PortBackend } from "./port.ts";
import { regionId } from "./region_id.ts";
import type { RemoteBackend } from "../rpc/client.ts";
import type { OpenBackend, PortableSource, RemoteSource } from "./source.ts";

/** How {@linkcode openBackend} reaches a store that is not on this host. */
export interface OpenOptions {
  /** What a server of the native wire wants to see. */
  token?: string | undefined;
}

const FORMS = "known forms are memory:1GiB, pattern:1GiB?seed=7, file:/path?size=1GiB, " +
  "dir:/path?size=1GiB&chunk=1MiB, https://host/path, nbd://host/export, " +
  "nbd+unix:///export?socket=/path, telemap://host, telemap+unix:///?socket=/path, " +
  "part:URL#NAME, delay:URL#rtt=25ms&rate=1GB/s";

/**
 * Opens the backend that a URL names, in this isolate.
 *
 * ```ts
 * await using region = await openBackend("memory:16MiB");
 * await region.writeAt(new TextEncoder().encode("hello"), 4096);
 * await region.flush();
 * ```
 *
 * @throws {UsageError} where the URL is not one of those known.
 */
export async function openBackend(url: string | URL, options: OpenOptions = {}): Promise<Backend> {
  return await openUrl(url instanceof URL ? url.href : url, options);
}

/** The same, also where another host owns the region: for those who hand it over. */
export async function openUnfenced(url: string): Promise<Backend> {
  return await openUrl(url, { unfenced: true });
}

/** The same, with connections that depend on `reactor` instead of the runtime's event loop. */
async function openUrl(
  text: string,
  options: OpenOptions & OpenLocalOptions,
  reactor?: Reactor,
): Promise<Backend> {
  const { token } = options;
  const delayed = splitDelayUrl(text);
  if (delayed !== undefined) {
    const delay = parseDelayOptions(text, delayed);
    const backend = await openUrl(delayed.inner, options, reactor);
    try {
      return delayBackend(backend, delay);
    } catch (error) {
      await backend.close();
      throw error;
    }
  }
  const part = splitPartUrl(text);
  if (part !== undefined) {
    const { partOf } = await import("./group_backend.ts");
    const group = await openUrl(part.inner, options, reactor);
    try {
      return await partOf(group, part.name);
    } catch (error) {
      await group.close();
      throw error;
    }
  }
  const local = openLocal(text, { unfenced: options.unfenced });
  if (local !== undefined) return local;
  const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(text)?.[1]?.toLowerCase() ?? "";
  if (/^nbds?(\+unix)?$/.test(scheme)) {
    const { connectNbd } = await import("../nbd/client.ts");
    return await connectNbd(text, { onLoss: "wait", reactor });
  }
  if (/^telemaps?(\+unix)?$/.test(scheme)) {
    const { connectTelemap } = await import("../rpc/client.ts");
    return await connectTelemap(text, { token, reactor });
  }
  if (/^https?$/.test(scheme)) {
    const { openHttps } = await import("../backend/https.ts");
    return await openHttps(text);
  }
  throw new UsageError(`Cannot open ${text} as a backend`, { hint: FORMS });
}

/**
 * Opens a source that came from another isolate. `onLocal` is told of bytes `[from, to)` that came to
 * the cache of a managed one.
 */
export async function openPortable(
  source: PortableSource,
  reactor: Reactor,
  onLocal: (from: number, to: number) => void = () => {},
): Promise<Backend> {
  switch (source.kind) {
    case "managed":
      return await openBehindCache(source, reactor, onLocal);
    case "group":
      throw new UsageError("Cannot open a group but to seed it");
    case "seeded":
      return await openOwned(source, reactor);
    case "leeched": {
      const { openLeeched } = await import("./migrating_backend.ts");
      const remote = await openRemote(source.remote, reactor);
      try {
        return await openLeeched(remote, source.cache, source.options);
      } catch (error) {
        await remote.close();
        throw error;
      }
    }
    case "url":
      return await openUrl(source.url, { token: source.token }, reactor);
    case "dialled":
      return await openRemote(source, reactor);
    case "shared":
      return openAgain(source.shared);
    case "port":
      return await PortBackend.connect(source.port);
    case "module": {
      const module = await import(source.module) as { default?: unknown };
      if (typeof module.default !== "function") {
        throw new UsageError(`Cannot open ${source.module} as a backend`, {
          hint: "its default export must be a function that makes a Backend",
        });
      }
      return await (module.default as OpenBackend)(source.options);
    }
  }
}

async function openBehindCache(
  { remote: source, cache, options }: Extract<PortableSource, { kind: "managed" }>,
  reactor: Reactor,
  onLocal: (from: number, to: number) => void,
): Promise<Backend> {
  const remote = alignBackend(await openPortable(source, reactor));
  try {
    const { openManaged } = await import("./managed_backend.ts");
    const id = remote.regionId ?? regionId(source, remote.version);
    return await openManaged(remote, id, cache, options, onLocal);
  } catch (error) {
    await remote.close();
    throw error;
  }
}

/** A region or a group to be seeded. */
async function openOwned(
  { source, options }: Extract<PortableSource, { kind: "seeded" }>,
  reactor: Reactor,
): Promise<Backend> {
  const { openSeeded } = await import("./migrating_backend.ts");
  const isGroup = source.kind === "group";
  const { backend, handover } = isGroup
    ? await openParts(source, options.chunkSize, reactor)
    : await openRecorded(source, reactor);
  try {
    return await openSeeded(backend, handover, isGroup ? { ...options, group: true } : options);
  } catch (error) {
    await backend.close();
    handover?.close();
    throw error;
  }
}

/** A region, and the record of who owns it, which is locked before anything is made of it. */
async function openRecorded(
  source: PortableSource,
  reactor: Reactor,
): Promise<{ backend: Backend; handover: HandoverFile | undefined }> {
  // Who else has the group would not know that it was given away.
  if (source.kind === "url" && splitPartUrl(source.url) !== undefined) {
    throw new UsageError(`Cannot seed ${source.url} by itself`, {
      hint: "seed all of its group: telemap seed URL --group NAME",
    });
  }
  const place = placeOf(source);
  let handover = place && lockBefore(place);
  let backend: Backend | undefined;
  try {
    backend = handover && openGiven(source, handover) || await openPortable(source, reactor);
    if (handover === undefined && place !== undefined) {
      handover = HandoverFile.lock(place.path);
      if (handover.record.state !== "owner") {
        throw new FencedError(`Cannot seed ${place.region} as it was given away meanwhile`);
      }
    }
    return { backend: alignBackend(backend), handover };
  } catch (error) {
    await backend?.close();
    handover?.close();
    throw error;
  }
}

/** The parts of a group as one region, and their records as one. */
async function openParts(
  { parts }: Extract<PortableSource, { kind: "group" }>,
  alignment: number,
  reactor: Reactor,
): Promise<{ backend: Backend; handover: HandoverBook | undefined }> {
  const { groupBackends } = await import("./group_backend.ts");
  const opened: (NamedBackend & { handover: HandoverFile | undefined })[] = [];
  try {
    for (const { name, source } of parts) {
      opened.push({ name, ...await openRecorded(source, reactor) });
    }
    const [first, ...others] = opened.flatMap(({ handover }) => handover ?? []);
    const handover = first && new HandoverGroup(first, others);
    return { backend: groupBackends(opened, alignment), handover };
  } catch (error) {
    for (const { backend, handover } of opened) {
      await backend.close();
      handover?.close();
    }
    throw error;
  }
}

/** Where the record of who owns a region lies, where it has one. */
function placeOf(source: PortableSource): HandoverPlace | undefined {
  const url = source.kind === "url"
    ? source.url
    : source.kind === "shared" && source.shared.kind === "file"
    ? source.shared.url
    : undefined;
  return url === undefined ? undefined : handoverPlace(url);
}

/** What is left of a region that was given away, which its new owner may still want to read. */
function openGiven(source: PortableSource, handover: HandoverFile): Backend | undefined {
  const { state } = handover.record;
  if (state !== "given" && state !== "released") return undefined;
  const url = source.kind === "url" ? source.url : undefined;
  return url === undefined ? undefined : openLocal(url, { unfenced: true });
}

/** A region at a server of the native wire. */
async function openRemote(source: RemoteSource, reactor: Reactor): Promise<RemoteBackend> {
  const { connectTelemap } = await import("../rpc/client.ts");
  if (source.kind === "url") {
    return await connectTelemap(source.url, { token: source.token, reactor });
  }
  const { acceptDialled } = await import("./accept_dialled.ts");
  const { listen, guard } = source;
  const servers = acceptDialled(listen, { ...guard, reactor });
  const { url } = servers;
  try {
    console.warn(`Waiting for a server to dial ${url}`);
    await servers.arrived();
    const { dial } = servers.dialler();
    const dialler = { dial, close: () => servers.close() };
    return await connectTelemap(url, { token: guard.token, reactor, dialler });
  } catch (error) {
    await servers.close();
    throw error;
  }
}

function openAgain(shared: SharedBackend): Backend {
  return shared.kind === "memory" ? openSharedMemory(shared) : openLocal(shared.url)!;
}
