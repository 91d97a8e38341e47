/**
 * The floor of paging memory in: the least loop that does it, with a fault for each page.
 *
 * @module
 */
import { checked } from "../ffi/errno.ts";
import { libc } from "../ffi/libc.ts";
import { MADV, Mapping, pageSize } from "../ffi/mman.ts";
import { openUserfault } from "../ffi/userfault_open.ts";
import { UFFD_REGISTER, Userfault } from "../ffi/userfaultfd.ts";
import type { BareTask } from "./bare_handler.ts";
import { filledMapping } from "./filled_memory.ts";
import { readEveryPage } from "./first_touches.ts";

const symbols = libc({
  // int fcntl(int fd, int cmd, int arg)
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
});

/** Memory that comes from other memory, or from a file, page by page. */
export interface BareMemory extends Disposable {
  /** Its bytes. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Maps so many bytes and starts the Worker that pages them in, from the start of a file if told. */
export async function bareMemory(size: number, file?: string): Promise<BareMemory> {
  const content = file === undefined ? filledMapping(size) : undefined;
  const mapping = Mapping.map({ length: size });
  mapping.advise(MADV.NOHUGEPAGE);
  const { fd } = openUserfault();
  letReadsWait(fd);
  const userfault = new Userfault(fd);
  userfault.register(mapping.address, size, UFFD_REGISTER.MISSING);
  const { address } = mapping, page = pageSize();
  const source = content?.address ?? file!;
  await startHandler({ fd, address, source, page, pages: size / page });
  return {
    bytes: mapping.bytes,
    [Symbol.dispose]() {
      // The Worker ends by itself with the last fault.
      readEveryPage(mapping.bytes);
      mapping.unmap();
      userfault[Symbol.dispose]();
      content?.unmap();
    },
  };
}

async function startHandler(task: BareTask): Promise<void> {
  const handler = new Worker(new URL("./bare_handler.ts", import.meta.url), { type: "module" });
  const ready = Promise.withResolvers<unknown>();
  handler.onmessage = ready.resolve;
  handler.postMessage(task);
  await ready.promise;
}

function letReadsWait(fd: number): void {
  const F_SETFL = 4;
  checked(symbols().fcntl(fd, F_SETFL, 0), "fcntl", `descriptor ${fd}`);
}
