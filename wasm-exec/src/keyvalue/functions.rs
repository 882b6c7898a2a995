//! What a component calls, in the two drafts of `wasi:keyvalue` that tools emit: they differ in the types of cursors and numbers,
//! and the second has compare-and-swap.

use super::{After, Bucket, Failure, KeyPage, Swap};
use crate::state::State;
use wasmtime::{
    Result, StoreContextMut,
    component::{ComponentType, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType},
};
use wasmtime_wasi::WasiView;

const DRAFT: &str = "0.2.0-draft";
const DRAFT_2: &str = "0.2.0-draft2";

/// `wasi:keyvalue/store.error`.
#[derive(Debug, ComponentType, Lift, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Other(failure.to_string())
    }
}

/// `wasi:keyvalue/atomics.cas-error`.
#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum SwapError {
    #[component(name = "store-error")]
    Store(Error),
    #[component(name = "cas-failed")]
    Failed(Resource<Swap>),
}

/// `wasi:keyvalue/store.key-response` of the first draft.
#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct CountedKeys {
    #[component(name = "keys")]
    keys: Vec<String>,
    #[component(name = "cursor")]
    cursor: Option<u64>,
}

/// The same of the second.
#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct NamedKeys {
    #[component(name = "keys")]
    keys: Vec<String>,
    #[component(name = "cursor")]
    cursor: Option<String>,
}

type Call<'a> = StoreContextMut<'a, State>;
type Entries = Vec<(String, Vec<u8>)>;

/// Whether it is one of those that are here.
pub(crate) fn is_interface(name: &str) -> bool {
    let named = name.strip_prefix("wasi:keyvalue/").and_then(|name| name.split_once('@'));
    named.is_some_and(|(interface, version)| {
        matches!(interface, "store" | "batch" | "atomics") && [DRAFT, DRAFT_2].contains(&version)
    })
}

/// Adds both drafts to a linker.
pub(crate) fn add(linker: &mut Linker<State>) -> Result<()> {
    for version in [DRAFT, DRAFT_2] {
        let store = &mut linker.instance(&format!("wasi:keyvalue/store@{version}"))?;
        add_store(store)?;
        let is_first = version == DRAFT;
        let add_keys = if is_first { add_counted_keys } else { add_named_keys };
        add_keys(store)?;
        add_batch(&mut linker.instance(&format!("wasi:keyvalue/batch@{version}"))?)?;
        let atomics = &mut linker.instance(&format!("wasi:keyvalue/atomics@{version}"))?;
        let add_atomics = if is_first { add_unsigned } else { add_signed };
        add_atomics(atomics)?;
    }
    Ok(())
}

fn add_store(store: &mut LinkerInstance<'_, State>) -> Result<()> {
    store
        .resource("bucket", ResourceType::host::<Bucket>(), |mut call, rep| drop_resource::<Bucket>(&mut call, rep))?;
    store.func_wrap("open", |mut call: Call<'_>, (name,): (String,)| {
        let Some(bucket) = call.data().stores.find(&name) else { return Ok((Err(Error::NoSuchStore),)) };
        Ok((Ok(call.data_mut().ctx().table.push(bucket)?),))
    })?;
    store.func_wrap("[method]bucket.get", |mut call: Call<'_>, (bucket, key): (Resource<Bucket>, String)| {
        let found = of(&mut call, &bucket)?.get(&key);
        Ok((found.map_err(Error::from),))
    })?;
    store.func_wrap(
        "[method]bucket.set",
        |mut call: Call<'_>, (bucket, key, value): (Resource<Bucket>, String, Vec<u8>)| {
            let done = of(&mut call, &bucket)?.change(&[(key, Some(value))]);
            Ok((done.map_err(Error::from),))
        },
    )?;
    store.func_wrap("[method]bucket.delete", |mut call: Call<'_>, (bucket, key): (Resource<Bucket>, String)| {
        let done = of(&mut call, &bucket)?.change(&[(key, None)]);
        Ok((done.map_err(Error::from),))
    })?;
    store.func_wrap("[method]bucket.exists", |mut call: Call<'_>, (bucket, key): (Resource<Bucket>, String)| {
        let found = of(&mut call, &bucket)?.get(&key);
        Ok((found.map(|value| value.is_some()).map_err(Error::from),))
    })
}

fn add_counted_keys(store: &mut LinkerInstance<'_, State>) -> Result<()> {
    store.func_wrap(
        "[method]bucket.list-keys",
        |mut call: Call<'_>, (bucket, cursor): (Resource<Bucket>, Option<u64>)| {
            let begin = cursor.unwrap_or(0);
            let page = of(&mut call, &bucket)?.keys(&After::Count(begin));
            let counted = |KeyPage { keys, more }| {
                let cursor = more.then_some(begin.saturating_add(keys.len() as u64));
                CountedKeys { keys, cursor }
            };
            Ok((page.map(counted).map_err(Error::from),))
        },
    )
}

fn add_named_keys(store: &mut LinkerInstance<'_, State>) -> Result<()> {
    store.func_wrap(
        "[method]bucket.list-keys",
        |mut call: Call<'_>, (bucket, cursor): (Resource<Bucket>, Option<String>)| {
            let page = of(&mut call, &bucket)?.keys(&cursor.map_or(After::Count(0), After::Key));
            let named = |KeyPage { keys, more }| {
                let cursor = keys.last().filter(|_| more).cloned();
                NamedKeys { keys, cursor }
            };
            Ok((page.map(named).map_err(Error::from),))
        },
    )
}

fn add_batch(batch: &mut LinkerInstance<'_, State>) -> Result<()> {
    batch.func_wrap("get-many", |mut call: Call<'_>, (bucket, keys): (Resource<Bucket>, Vec<String>)| {
        let found = of(&mut call, &bucket)?.get_many(keys);
        Ok((found.map_err(Error::from),))
    })?;
    batch.func_wrap("set-many", |mut call: Call<'_>, (bucket, entries): (Resource<Bucket>, Entries)| {
        let entries: Vec<_> = entries.into_iter().map(|(key, value)| (key, Some(value))).collect();
        Ok((of(&mut call, &bucket)?.change(&entries).map_err(Error::from),))
    })?;
    batch.func_wrap("delete-many", |mut call: Call<'_>, (bucket, keys): (Resource<Bucket>, Vec<String>)| {
        let entries: Vec<_> = keys.into_iter().map(|key| (key, None)).collect();
        Ok((of(&mut call, &bucket)?.change(&entries).map_err(Error::from),))
    })
}

fn add_unsigned(atomics: &mut LinkerInstance<'_, State>) -> Result<()> {
    atomics.func_wrap("increment", |mut call: Call<'_>, (bucket, key, delta): (Resource<Bucket>, String, u64)| {
        let sum = of(&mut call, &bucket)?.increment(&key, delta.into(), 0, u64::MAX.into());
        let sum = sum.map(|sum| u64::try_from(sum).unwrap_or(u64::MAX));
        Ok((sum.map_err(Error::from),))
    })
}

fn add_signed(atomics: &mut LinkerInstance<'_, State>) -> Result<()> {
    atomics.func_wrap("increment", |mut call: Call<'_>, (bucket, key, delta): (Resource<Bucket>, String, i64)| {
        let sum = of(&mut call, &bucket)?.increment(&key, delta.into(), i64::MIN.into(), i64::MAX.into());
        let sum = sum.map(|sum| i64::try_from(sum).unwrap_or(i64::MAX));
        Ok((sum.map_err(Error::from),))
    })?;
    atomics.resource("cas", ResourceType::host::<Swap>(), |mut call, rep| drop_resource::<Swap>(&mut call, rep))?;
    atomics.func_wrap("[static]cas.new", |mut call: Call<'_>, (bucket, key): (Resource<Bucket>, String)| {
        let begun = of(&mut call, &bucket)?.begin_swap(key);
        Ok((match begun {
            Ok(swap) => Ok(call.data_mut().ctx().table.push(swap)?),
            Err(failure) => Err(Error::from(failure)),
        },))
    })?;
    atomics.func_wrap("[method]cas.current", |mut call: Call<'_>, (swap,): (Resource<Swap>,)| {
        let swap = call.data_mut().ctx().table.get(&swap)?;
        Ok((swap.bucket.get(&swap.key).map_err(Error::from),))
    })?;
    atomics.func_wrap("swap", |mut call: Call<'_>, (swap, value): (Resource<Swap>, Vec<u8>)| {
        let table = call.data_mut().ctx().table;
        Ok((match table.delete(swap)?.finish(value) {
            Ok(None) => Ok(()),
            Ok(Some(again)) => Err(SwapError::Failed(table.push(again)?)),
            Err(failure) => Err(SwapError::Store(failure.into())),
        },))
    })
}

/// The bucket of a handle; it is a store's name, no more, so that the table is not held meanwhile.
fn of(call: &mut Call<'_>, bucket: &Resource<Bucket>) -> Result<Bucket> {
    Ok(call.data_mut().ctx().table.get(bucket)?.clone())
}

fn drop_resource<T: Send + 'static>(call: &mut Call<'_>, rep: u32) -> Result<()> {
    call.data_mut().ctx().table.delete(Resource::<T>::new_own(rep))?;
    Ok(())
}
