//! `wasi:filesystem` 0.3: what changes directories fails with the system's own errors, as in 0.2.

use crate::{
    cause::{Cause, Said},
    files::{self, Place},
    state::State,
};
use wasmtime::AsContextMut;
use wasmtime::component::{Linker, LinkerInstance, Resource};
use wasmtime_wasi::{
    filesystem::{Descriptor, WasiFilesystem, WasiFilesystemView},
    p3::{
        bindings::filesystem::types::{DescriptorFlags, ErrorCode, HostDescriptorWithStore, OpenFlags, PathFlags},
        filesystem::FilesystemError,
    },
};

/// As wasmtime-wasi has it, whose functions these stand for.
const INTERFACE: &str = "wasi:filesystem/types@0.3.0";

macro_rules! functions {
    ($($wit:literal $name:ident($($arg:ident: $ty:ty),*) [$($descriptor:ident $path:ident),*] $result:ty;)*) => {
        fn add_all(types: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
            $(types.func_wrap_concurrent($wit, |accessor, ($($arg,)*): ($($ty,)*)| {
                Box::pin(async move {
                    let places = [$(Place::new(&$descriptor, &$path)),*];
                    let files = accessor.with_getter::<WasiFilesystem>(State::filesystem);
                    let result: Result<$result, _> =
                        <WasiFilesystem as HostDescriptorWithStore<State>>::$name(&files, $($arg),*).await;
                    Ok((accessor.with(|mut store| told(store.as_context_mut().data_mut(), result, &places))?,))
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

fn told<T>(
    state: &mut State,
    result: Result<T, FilesystemError>,
    places: &[Place],
) -> wasmtime::Result<Result<T, ErrorCode>> {
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
        Some(Cause::TooManyFiles) => ErrorCode::Other(Some("too many open files".into())),
        Some(Cause::TooManyFilesOfAll) => ErrorCode::Other(Some("too many open files in the system".into())),
        None => code,
    }))
}
