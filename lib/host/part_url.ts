/**
 * The URLs of parts of a group: `part:URL#NAME`. What stands between the scheme and the last `#` is the
 * URL of the region in which the group lies, as `leechGroup` leaves it; the name may be
 * percent-encoded.
 *
 * @module
 */
import { unusableUrl } from "../backend/url_parameters.ts";

/** The parts of such a URL. */
export interface PartUrl {
  /** The URL of the whole group. */
  readonly inner: string;
  /** The name of the part. */
  readonly name: string;
}

/**
 * Takes a URL apart; undefined where it is not that of a part. Throws `UsageError` where it names none.
 */
export function splitPartUrl(url: string): PartUrl | undefined {
  if (!/^part:/i.test(url)) return undefined;
  const [, inner, encoded] = /^part:(.+)#([^#]+)$/is.exec(url) ?? [];
  if (inner === undefined || encoded === undefined) {
    throw unusableUrl(url, "it names no part of a group", "write part:URL#NAME");
  }
  try {
    return { inner, name: decodeURIComponent(encoded) };
  } catch {
    throw unusableUrl(url, "its name is not well-formed", "write % as %25");
  }
}
