//! Numbers of WASI p1's `errno` (its witx/typenames.witx).

pub(super) const SUCCESS: i32 = 0;
pub(super) const BADF: i32 = 8;
pub(super) const DQUOT: i32 = 19;
pub(super) const FAULT: i32 = 21;
pub(super) const IO: i32 = 29;
pub(super) const MFILE: i32 = 33;
pub(super) const NFILE: i32 = 41;
pub(super) const NOENT: i32 = 44;
pub(super) const NOMEM: i32 = 48;
pub(super) const OVERFLOW: i32 = 61;
pub(super) const PERM: i32 = 63;
pub(super) const ROFS: i32 = 69;
pub(super) const XDEV: i32 = 75;
