//! What statfs(2) calls file systems (`f_type`, linux/magic.h).

/// procfs.
pub(crate) const PROC: i64 = 0x9fa0;
/// sysfs.
pub(crate) const SYSFS: i64 = 0x6265_6572;
/// devpts.
pub(crate) const DEVPTS: i64 = 0x1cd1;
/// tmpfs.
pub(crate) const TMPFS: i64 = 0x0102_1994;
/// cgroup v2.
pub(crate) const CGROUP2: i64 = 0x6367_7270;

/// What the kernel fills: procfs, sysfs, cgroup v1 and v2, debugfs, tracefs.
pub(crate) const KERNELS_OWN: [i64; 6] = [PROC, SYSFS, 0x0027_e0eb, CGROUP2, 0x6462_6720, 0x7472_6163];
