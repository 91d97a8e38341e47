/**
 * A Worker that stays on the core that it is told, and answers with the id of its thread.
 *
 * @module
 */
import { allowCores, oneCore } from "../ffi/affinity.ts";
import { openLibc } from "../ffi/libc.ts";
import { threadId } from "../ffi/process.ts";

const scope = self as unknown as {
  onmessage: (event: MessageEvent<number>) => void;
  postMessage(thread: number): void;
};

scope.onmessage = ({ data: core }) => {
  openLibc();
  allowCores(oneCore(core));
  scope.postMessage(threadId());
};
