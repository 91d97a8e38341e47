/**
 * The Worker of `bare_memory.ts`: waits in read(2) for one fault after the other and answers each
 * with one UFFDIO_COPY of a page.
 *
 * @module
 */
import { UserfaultMessages } from "../ffi/userfault_messages.ts";
import { Userfault } from "../ffi/userfaultfd.ts";

/** What it resolves. */
export interface BareTask {
  /** The userfaultfd, whose reads wait. */
  fd: number;
  /** Where the memory lies. */
  address: number;
  /** Where its content lies. */
  source: number;
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
  scope.postMessage("ready");
  for (let done = 0; done < pages;) {
    if (messages.read(fd) === 0) continue;
    const at = messages.address(0);
    if (userfault.copy(at, source + (at - address), page) !== page) throw new Error("No copy");
    done++;
  }
  scope.close();
};
