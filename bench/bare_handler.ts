/**
 * The Worker of `bare_memory.ts`: waits in read(2) for one fault after the other and answers each
 * with one UFFDIO_COPY of a page; where the content is in a file, it is read first.
 *
 * @module
 */
import { addressOf } from "../ffi/libc.ts";
import { O, open, pread } from "../ffi/file.ts";
import { UserfaultMessages } from "../ffi/userfault_messages.ts";
import { Userfault } from "../ffi/userfaultfd.ts";

/** What it resolves. */
export interface BareTask {
  /** The userfaultfd, whose reads wait. */
  fd: number;
  /** Where the memory lies. */
  address: number;
  /** Where its content lies: the address of memory, or the path of a file. */
  source: number | string;
  /** Bytes of a page. */
  page: number;
  /** Pages, after which it ends. */
  pages: number;
}

const scope = self as unknown as {
  onmessage: (event: MessageEvent<BareTask>) => void;
  postMessage(message: "ready"): void;
  close(): void;
};

scope.onmessage = ({ data: { fd, address, source, page, pages } }) => {
  const userfault = new Userfault(fd), messages = new UserfaultMessages(1);
  const sourceOf = typeof source === "string" ? readingFile(source, page) : inMemory(source);
  scope.postMessage("ready");
  for (let done = 0; done < pages;) {
    if (messages.read(fd) === 0) continue;
    const at = messages.address(0);
    if (userfault.copy(at, sourceOf(at - address), page) !== page) throw new Error("No copy");
    done++;
  }
  scope.close();
};

function inMemory(address: number): (offset: number) => number {
  return (offset) => address + offset;
}

/** Reads the page at an offset; answers the address of what was read. */
function readingFile(path: string, page: number): (offset: number) => number {
  const file = open(path, O.RDONLY), buffer = new Uint8Array(page), address = addressOf(buffer);
  return (offset) => {
    if (pread(file, buffer, offset) !== page) throw new Error("No page");
    return address;
  };
}
