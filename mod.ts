/**
 * telemap: mount, synchronise and migrate memory regions over a network.
 *
 * A region is a flat range of bytes in some store. Open one by URL, serve it, and mount it on any
 * host as a block device, a file or a byte slice:
 *
 * ```ts
 * import { mountDirect, serve } from "./mod.ts";
 *
 * // On one host
 * await using server = await serve("memory:16MiB", "telemap://127.0.0.1:0");
 *
 * // On another
 * await using mount = await mountDirect({ backend: server.url, as: "slice" });
 * mount.bytes[0] = 42;
 * await mount.sync();
 * ```
 *
 * @module
 */
export { SystemError, type SystemErrorOptions } from "./ffi/errno.ts";
export type {
  Awaitable,
  Backend,
  Extent,
  SharedBackend,
  Traffic,
  ZeroOptions,
} from "./lib/backend/backend.ts";
export {
  ChangedError,
  ClosedError,
  ConnectionError,
  DeadlineError,
  FencedError,
  IntegrityError,
  ProtocolError,
  ReadOnlyError,
  RemoteError,
  TelemapError,
  type TelemapErrorOptions,
  UnsupportedError,
  UsageError,
} from "./lib/backend/errors.ts";
export { Pattern } from "./lib/backend/pattern.ts";
export { type ByteRange, RangeList } from "./lib/backend/range_list.ts";
export { formatSize, parseSize } from "./lib/backend/size.ts";
export type { ProfileCounts } from "./lib/chunk/access_recorder.ts";
export {
  LeechedGroup,
  type LeechedPart,
  leechGroup,
  type LeechGroupOptions,
} from "./lib/group/leech_group.ts";
export {
  SeededGroup,
  type SeededPart,
  seedGroup,
  type SeedGroupOptions,
} from "./lib/group/seed_group.ts";
export {
  type MigratedInstance,
  migrateInstance,
  type MigrateInstanceOptions,
} from "./lib/instance/migrate_instance.ts";
export {
  SeededInstance,
  seedInstance,
  type SeedInstanceOptions,
} from "./lib/instance/seed_instance.ts";
export { alignBackend } from "./lib/chunk/align.ts";
export { delayBackend, type DelayOptions } from "./lib/chunk/delay.ts";
export { guardBackend, type GuardOptions } from "./lib/chunk/guard.ts";
export type { CutOptions } from "./lib/chunk/link.ts";
export {
  lockBackend,
  type LockedBackend,
  type LockedCalls,
  type LockOptions,
} from "./lib/chunk/lock.ts";
export { trackBackend, type TrackedBackend, type TrackOptions } from "./lib/chunk/track.ts";
export type { MemoryChoice } from "./lib/device/attach.ts";
export type { DeviceChoice, DeviceKind, Probe } from "./lib/device/device.ts";
export type { PagingOptions } from "./lib/device/paging.ts";
export { probeHost, sweepStale } from "./lib/device/probe.ts";
export type { UserfaultOptions } from "./lib/device/userfault.ts";
export { compareBackends, type CompareOptions } from "./lib/host/compare.ts";
export {
  copyBackend,
  type CopyOptions,
  type CopyProgress,
  type CopyResult,
} from "./lib/host/copy.ts";
export type { Durability } from "./lib/chunk/cache.ts";
export type { CacheProgress, ManagedOptions } from "./lib/host/managed_backend.ts";
export type { MemoryStatistics } from "./lib/host/memory_statistics.ts";
export { openBackend, type OpenOptions } from "./lib/host/open_backend.ts";
export { serve, type ServedExport, type ServeOptions, type Server } from "./lib/host/serve.ts";
export {
  serveUserfault,
  type ServeUserfaultOptions,
  type UserfaultHandler,
} from "./lib/host/serve_userfault.ts";
export type {
  BackendModule,
  BackendSource,
  DialledSource,
  OpenBackend,
} from "./lib/host/source.ts";
export { type DirectMountOptions, mountDirect } from "./lib/mount/direct.ts";
export {
  type ManagedHooks,
  type ManagedMount,
  type ManagedMountOptions,
  mountManaged,
} from "./lib/mount/managed.ts";
export {
  type ChainOptions,
  type FinalizeRegionOptions,
  type FollowOptions,
  Leecher,
  type LeecherOptions,
  Leeching,
  type LeechingOptions,
} from "./lib/mount/leecher.ts";
export { Migrator, type MigratorOptions } from "./lib/mount/migrator.ts";
export type { Mount, MountForm, MountOptions } from "./lib/mount/mount.ts";
export { Seeder, type SeederOptions } from "./lib/mount/seeder.ts";
export { type SeederHooks, Seeding, type SeedingOptions } from "./lib/mount/seeding.ts";
export type { Confirm, Strategy } from "./lib/migration/convergence.ts";
export type { Compared } from "./lib/migration/leeched_region.ts";
export type {
  FaultLatency,
  LeecherState,
  MigrationMetrics,
} from "./lib/migration/migration_metrics.ts";
export type { Missing } from "./lib/migration/leecher_core.ts";
export type { SeederStage } from "./lib/migration/seeder_core.ts";
export {
  type PagedInMemory,
  pageInMemory,
  type PageInMemoryOptions,
} from "./lib/mount/wasm_memory.ts";
export type { HandlerLoss } from "./lib/userfault/handler_link.ts";
export type { UserfaultClientEvent } from "./lib/userfault/listener.ts";
export {
  type RegionState,
  type RegisteredRegion,
  registerRegion,
  type RegisterRegionOptions,
} from "./lib/userfault/register_region.ts";
export type { UserfaultLoss } from "./lib/userfault/server.ts";
export type { UserfaultStatistics } from "./lib/userfault/statistics.ts";
export {
  type MemoryTracker,
  trackMemory,
  type TrackMemoryOptions,
} from "./lib/tracking/tracked_memory.ts";
export type { TrackingMethod } from "./lib/tracking/write_tracker.ts";
