/**
 * The URL of a file, for whoever opens it in another isolate or process.
 *
 * @module
 */

/** The URL that `parseLocalUrl` reads as a file at an absolute path. */
export function fileUrl(file: { path: string; size: number; readOnly: boolean }): string {
  const path = file.path.split("/").map(encodeURIComponent).join("/");
  return `file://${path}?size=${file.size}${file.readOnly ? "&readonly" : ""}`;
}
