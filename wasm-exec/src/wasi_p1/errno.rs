//! Numbers of WASI p1's `errno` (its witx/typenames.witx).

pub(super) const SUCCESS: i32 = 0;
pub(super) const AGAIN: i32 = 6;
pub(super) const BADF: i32 = 8;
pub(super) const CONNABORTED: i32 = 13;
pub(super) const CONNRESET: i32 = 15;
pub(super) const DQUOT: i32 = 19;
pub(super) const FAULT: i32 = 21;
pub(super) const INVAL: i32 = 28;
pub(super) const IO: i32 = 29;
pub(super) const MFILE: i32 = 33;
pub(super) const NFILE: i32 = 41;
pub(super) const NOENT: i32 = 44;
pub(super) const NOMEM: i32 = 48;
pub(super) const NOTCONN: i32 = 53;
pub(super) const NOTDIR: i32 = 54;
pub(super) const OVERFLOW: i32 = 61;
pub(super) const PERM: i32 = 63;
pub(super) const PIPE: i32 = 64;
pub(super) const ROFS: i32 = 69;
pub(super) const SPIPE: i32 = 70;
pub(super) const TIMEDOUT: i32 = 73;
pub(super) const XDEV: i32 = 75;
