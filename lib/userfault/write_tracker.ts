/**
 * How writes to memory are noticed.
 *
 * @module
 */
import { UFFD_FEATURE } from "../../ffi/userfault_open.ts";

/**
 * `async-wp`: the kernel marks written pages by itself (Linux 6.7). `wp-faults`: a handler is told of
 * the first write to each page. `hash`: contents are compared.
 */
export type TrackingMethod = "async-wp" | "wp-faults" | "hash";

/** The best method that a userfaultfd with these features (`UFFD_FEATURE`) has. */
export function trackingMethod(features: number): TrackingMethod {
  if ((features & UFFD_FEATURE.WP_ASYNC) !== 0) return "async-wp";
  return (features & UFFD_FEATURE.PAGEFAULT_FLAG_WP) !== 0 ? "wp-faults" : "hash";
}
