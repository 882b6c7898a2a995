//! `wasi:sockets/ip-name-lookup`, in the place of wasmtime-wasi's, which asks the C library of this process.

use super::{LookupError, Network, Refusal};
use crate::state::State;
use std::{
    future::poll_fn,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll, Waker},
    vec,
};
use wasmtime::{
    Result, StoreContextMut,
    component::{Linker, Resource, ResourceType},
};
use wasmtime_wasi::{
    WasiView, async_trait,
    p2::{self, DynPollable, Pollable, bindings::sockets::network as p2_network},
    p3::bindings::sockets::{ip_name_lookup as p3_lookup, types as p3_types},
    runtime::{AbortOnDropJoinHandle, spawn},
};

/// As wasmtime-wasi has them, whose functions these stand for.
const P2: &str = "wasi:sockets/ip-name-lookup@0.2.12";
const P3: &str = "wasi:sockets/ip-name-lookup@0.3.0";

type Call<'a> = StoreContextMut<'a, State>;

/// A question of WASI 0.2, and then its answers, one after the other.
struct Question {
    asking: Option<AbortOnDropJoinHandle<std::result::Result<Vec<IpAddr>, Refusal>>>,
    answers: std::result::Result<vec::IntoIter<IpAddr>, p2_network::ErrorCode>,
}

impl Question {
    fn new(network: Network, name: String) -> Self {
        let asking = spawn(async move { network.look_up(&name).await });
        Self { asking: Some(asking), answers: Ok(Vec::new().into_iter()) }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(asking) = &mut self.asking {
            let Poll::Ready(found) = Pin::new(asking).poll(cx) else { return Poll::Pending };
            self.asking = None;
            self.answers = found.map(Vec::into_iter).map_err(|refusal| p2_error(&refusal));
        }
        Poll::Ready(())
    }

    fn next(&mut self) -> std::result::Result<Option<IpAddr>, p2_network::ErrorCode> {
        if self.poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            return Err(p2_network::ErrorCode::WouldBlock);
        }
        self.answers.as_mut().map(Iterator::next).map_err(|error| *error)
    }
}

#[async_trait]
impl Pollable for Question {
    async fn ready(&mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }
}

/// Puts that of 0.2 in its place, in a linker that allows that.
pub(crate) fn add_p2(linker: &mut Linker<State>) -> Result<()> {
    let mut lookup = linker.instance(P2)?;
    lookup.resource("resolve-address-stream", ResourceType::host::<Question>(), |mut call, rep| {
        call.data_mut().ctx().table.delete(Resource::<Question>::new_own(rep))?;
        Ok(())
    })?;
    lookup.func_wrap("resolve-addresses", |mut call: Call<'_>, (network, name): (Resource<p2::Network>, String)| {
        // That the program has one is what allows it to ask.
        call.data_mut().ctx().table.get(&network)?;
        if !is_name(&name) {
            return Ok((Err(p2_network::ErrorCode::InvalidArgument),));
        }
        let question = Question::new(call.data().network().clone(), name);
        Ok((Ok::<_, p2_network::ErrorCode>(call.data_mut().ctx().table.push(question)?),))
    })?;
    lookup.func_wrap(
        "[method]resolve-address-stream.resolve-next-address",
        |mut call: Call<'_>, (question,): (Resource<Question>,)| {
            let next = call.data_mut().ctx().table.get_mut(&question)?.next();
            Ok((next.map(|address| address.map(p2_network::IpAddress::from)),))
        },
    )?;
    lookup.func_wrap(
        "[method]resolve-address-stream.subscribe",
        |mut call: Call<'_>, (question,): (Resource<Question>,)| -> Result<(Resource<DynPollable>,)> {
            Ok((p2::subscribe(call.data_mut().ctx().table, question)?,))
        },
    )
}

/// Puts that of 0.3 in its place, in a linker that allows that.
pub(crate) fn add_p3(linker: &mut Linker<State>) -> Result<()> {
    linker.instance(P3)?.func_wrap_concurrent("resolve-addresses", |accessor, (name,): (String,)| {
        Box::pin(async move {
            if !is_name(&name) {
                return Ok((Err(p3_lookup::ErrorCode::InvalidArgument),));
            }
            let network = accessor.with(|mut call| call.get().network().clone());
            let found = network.look_up(&name).await;
            Ok((found
                .map(|addresses| addresses.into_iter().map(p3_types::IpAddress::from).collect::<Vec<_>>())
                .map_err(|refusal| p3_error(&refusal)),))
        })
    })
}

/// Whether it can be looked up at all.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    super::literal(text).is_some()
        || text.len() <= 254 && text.strip_suffix('.').unwrap_or(text).split('.').all(is_label)
}

fn p2_error(refusal: &Refusal) -> p2_network::ErrorCode {
    match refusal {
        Refusal::Denied | Refusal::Misled => p2_network::ErrorCode::AccessDenied,
        Refusal::Lookup(LookupError::NoSuchName) => p2_network::ErrorCode::NameUnresolvable,
        Refusal::Lookup(_) | Refusal::TimedOut | Refusal::TooMany | Refusal::Io(_) => {
            p2_network::ErrorCode::TemporaryResolverFailure
        }
    }
}

fn p3_error(refusal: &Refusal) -> p3_lookup::ErrorCode {
    match refusal {
        Refusal::Denied | Refusal::Misled => p3_lookup::ErrorCode::AccessDenied,
        Refusal::Lookup(LookupError::NoSuchName) => p3_lookup::ErrorCode::NameUnresolvable,
        Refusal::Lookup(_) | Refusal::TimedOut | Refusal::TooMany | Refusal::Io(_) => {
            p3_lookup::ErrorCode::TemporaryResolverFailure
        }
    }
}
