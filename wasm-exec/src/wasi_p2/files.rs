//! `wasi:filesystem` 0.2: what changes directories fails with the system's own errors.
//!
//! Each function calls wasmtime-wasi's of that name; only what that fails with is looked at.

use crate::{
    cause::{Cause, Said},
    files::{self, Place},
    state::State,
};
use wasmtime::{
    StoreContextMut,
    component::{Linker, LinkerInstance, Resource},
};
use wasmtime_wasi::{
    filesystem::{Descriptor, WasiFilesystemView},
    p2::{
        FsError,
        bindings::filesystem::types::{DescriptorFlags, ErrorCode, HostDescriptor, OpenFlags, PathFlags},
    },
};

/// As wasmtime-wasi has it, whose functions these stand for.
const INTERFACE: &str = "wasi:filesystem/types@0.2.12";

macro_rules! functions {
    ($($wit:literal $name:ident($($arg:ident: $ty:ty),*) [$($descriptor:ident $path:ident),*] $result:ty;)*) => {
        fn add_all(types: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
            $(types.func_wrap_async($wit, |mut store: StoreContextMut<'_, State>, ($($arg,)*): ($($ty,)*)| {
                Box::new(async move {
                    let places = [$(Place::new(&$descriptor, &$path)),*];
                    let result = HostDescriptor::$name(&mut store.data_mut().filesystem(), $($arg),*).await;
                    Ok((told(store.data_mut(), result, &places)?,))
                })
            })?;)*
            Ok(())
        }
    };
}

files::changing!(functions);

/// Puts them in the place of wasmtime-wasi's, in a linker that allows that.
pub(super) fn add(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    add_all(&mut linker.instance(INTERFACE)?)
}

fn told<T>(state: &mut State, result: Result<T, FsError>, places: &[Place]) -> wasmtime::Result<Result<T, ErrorCode>> {
    let code = match result {
        Ok(done) => return Ok(Ok(done)),
        Err(error) => error.downcast()?,
    };
    let said = match code {
        ErrorCode::Io => Said::Io,
        ErrorCode::NotPermitted => Said::NotPermitted,
        _ => return Ok(Err(code)),
    };
    let cause = files::cause(state, said, places);
    Ok(Err(match cause {
        Some(Cause::CrossDevice) => ErrorCode::CrossDevice,
        Some(Cause::ReadOnly) => ErrorCode::ReadOnly,
        Some(Cause::Quota) => ErrorCode::Quota,
        // It has no words for these.
        Some(Cause::TooManyFiles | Cause::TooManyFilesOfAll) | None => code,
    }))
}
