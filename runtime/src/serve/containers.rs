//! The launcher, for who must not block: each call is a task on a thread of its own.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    process::Child,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::unix::AsyncFd,
    task::spawn_blocking,
    time::{sleep, timeout},
};

use wasm_exec::{Stores, http::Pools};

use super::{
    cgi,
    instance::{Instance, SendError},
    launcher::{Launched, Launcher},
    plan::Plan,
};
use crate::{
    output::{self, errors},
    records::host::Host,
    spec::wasm::StoreSpec,
};

/// Between two looks whether a program listens: often at first, as most are quick.
const FIRST_LOOK: Duration = Duration::from_micros(500);
const LAST_LOOK: Duration = Duration::from_millis(20);
/// For a supervisor to write down an end that it has seen.
const SETTLES_WITHIN: Duration = Duration::from_secs(10);

/// Containers of all functions.
pub(super) struct Containers {
    launcher: Launcher,
    /// For functions within this process.
    pools: Pools,
    /// Of functions within this process, by name.
    stores: Mutex<HashMap<String, Weak<KeptStores>>>,
    /// It was said once that the freezer is missing.
    said_unfreezable: AtomicBool,
}

/// Stores of a function, which outlive a reload that leaves them as they are.
pub(super) struct KeptStores {
    specs: Vec<StoreSpec>,
    stores: Stores,
}

/// A container that listens.
pub(super) struct Started {
    pub(super) instance: Arc<Instance>,
    ended: AsyncFd<OwnedFd>,
    supervisor: Child,
}

/// Why a container does not come to serve.
enum NotListening {
    Ended,
    Late(Duration),
    Failed(SendError),
}

impl Containers {
    pub(super) fn new(launcher: Launcher) -> Arc<Self> {
        let said_unfreezable = AtomicBool::new(false);
        Arc::new(Self { launcher, pools: Pools::default(), stores: Mutex::default(), said_unfreezable })
    }

    pub(super) fn host(&self) -> &Host {
        &self.launcher.host
    }

    pub(super) fn launcher(&self) -> &Launcher {
        &self.launcher
    }

    pub(super) fn pools(&self) -> &Pools {
        &self.pools
    }

    /// Those that the function of this name has already, if they are these.
    pub(super) fn stores_of(&self, function: &str, specs: &[StoreSpec]) -> Option<Stores> {
        let stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = stores.get(function)?.upgrade()?;
        (kept.specs == specs).then(|| kept.stores.clone())
    }

    /// As long as somebody has what this gives.
    pub(super) fn keep_stores(&self, function: &str, specs: &[StoreSpec], stores: Stores) -> Arc<KeptStores> {
        let kept = Arc::new(KeptStores { specs: specs.to_vec(), stores });
        let mut all = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, kept| kept.strong_count() > 0);
        all.insert(function.to_owned(), Arc::downgrade(&kept));
        kept
    }

    /// Starts one, and waits until it listens.
    pub(super) async fn start(self: &Arc<Self>, plan: &Arc<Plan>) -> Result<Started, String> {
        let wanted = Arc::clone(plan);
        let launched = self.blocking(move |launcher| launcher.launch(&wanted)).await?;
        let Launched { id, name, process, supervisor, namespace, port } = launched;
        let instance = Arc::new(Instance::new(id, name, namespace, port));
        #[expect(deprecated, reason = "for other types it is unsound: an OwnedFd owns its descriptor, and keeps it")]
        let watched = process.pidfd().and_then(AsyncFd::new);
        let ended = match watched {
            Ok(ended) => ended,
            Err(error) => {
                self.discard(&instance).await;
                self.reap(supervisor).await;
                return Err(format!("container {} cannot be watched: {error}", instance.name));
            }
        };
        let started = Started { instance, ended, supervisor };
        match self.until_listening(&started, plan).await {
            Ok(()) => Ok(started),
            Err(why) => Err(self.give_up(started, why).await),
        }
    }

    /// Starts a command, whose streams are the caller's.
    pub(super) async fn run_command(
        self: &Arc<Self>,
        plan: &Arc<Plan>,
        environment: Vec<String>,
    ) -> Result<cgi::Launched, String> {
        let plan = Arc::clone(plan);
        self.blocking(move |launcher| launcher.launch_command(&plan, environment)).await
    }

    async fn until_listening(&self, started: &Started, plan: &Plan) -> Result<(), NotListening> {
        let listening = timeout(plan.start_timeout(), first_connection(&started.instance));
        tokio::select! {
            biased;
            listening = listening => match listening {
                Ok(connected) => connected.map_err(NotListening::Failed),
                Err(_) => Err(NotListening::Late(plan.start_timeout())),
            },
            _ = started.ended.readable() => Err(NotListening::Ended),
        }
    }

    /// Removes a container that does not listen; a sentence for why.
    async fn give_up(self: &Arc<Self>, started: Started, why: NotListening) -> String {
        let Started { instance, supervisor, .. } = started;
        let (name, port) = (&instance.name, instance.port());
        match why {
            NotListening::Ended => {
                // It writes down how.
                self.reap(supervisor).await;
                let how = self.how_it_ended(&instance).await;
                self.discard(&instance).await;
                format!("container {name} ended before it listened: {how}")
            }
            NotListening::Late(patience) => {
                let how = self.how_it_ended(&instance).await;
                self.discard(&instance).await;
                self.reap(supervisor).await;
                format!("container {name} did not listen at port {port} within {} s; {how}", patience.as_secs_f64())
            }
            NotListening::Failed(error) => {
                self.discard(&instance).await;
                self.reap(supervisor).await;
                format!("container {name}: {error}")
            }
        }
    }

    /// Waits for its end; a sentence for it.
    pub(super) async fn until_ended(self: &Arc<Self>, started: Started) -> String {
        let Started { instance, ended, supervisor } = started;
        // It cannot fail: the descriptor is open as long as this waits.
        _ = ended.readable().await;
        self.reap(supervisor).await;
        self.how_it_ended(&instance).await
    }

    /// A process that ended stays in the table of processes until its parent asks.
    async fn reap(&self, mut supervisor: Child) {
        let reaped = spawn_blocking(move || _ = supervisor.wait());
        _ = timeout(SETTLES_WITHIN, reaped).await;
    }

    async fn how_it_ended(self: &Arc<Self>, instance: &Instance) -> String {
        let id = instance.id.clone();
        self.blocking(move |launcher| Ok(launcher.how_it_ended(&id))).await.unwrap_or_else(|error| error)
    }

    /// Ends a container; [`Self::until_ended`] sees it.
    pub(super) fn stop(self: &Arc<Self>, instance: Arc<Instance>, stop_timeout_ms: u64) {
        let containers = Arc::clone(self);
        spawn_blocking(move || containers.launcher.end(&instance.id, stop_timeout_ms));
    }

    /// The same of one that nobody connects to.
    pub(super) fn end(self: &Arc<Self>, id: String, stop_timeout_ms: u64) {
        let containers = Arc::clone(self);
        spawn_blocking(move || containers.launcher.end(&id, stop_timeout_ms));
    }

    /// Blocks.
    pub(super) fn discard_now(&self, id: &str) {
        self.launcher.discard(id);
    }

    pub(super) async fn discard(self: &Arc<Self>, instance: &Instance) {
        let id = instance.id.clone();
        let discard = move |launcher: &Launcher| {
            launcher.discard(&id);
            Ok(())
        };
        _ = self.blocking(discard).await;
    }

    pub(super) async fn freeze(self: &Arc<Self>, instance: &Instance) -> Result<(), String> {
        let id = instance.id.clone();
        self.blocking(move |launcher| launcher.freeze(&id)).await
    }

    pub(super) async fn thaw(self: &Arc<Self>, instance: &Instance) -> Result<(), String> {
        let id = instance.id.clone();
        self.blocking(move |launcher| launcher.thaw(&id)).await
    }

    /// What the launcher does, on a thread of its own.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Launcher) -> anyhow::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        let containers = Arc::clone(self);
        let done = spawn_blocking(move || work(&containers.launcher)).await;
        done.map_err(|error| error.to_string())?.map_err(|error| errors::sentence(&error))
    }

    /// For the operator.
    pub(super) fn complain(&self, function: &str, error: &str) {
        output::note(&format!("amphora serve: function {function}: {error}"));
    }

    /// Once: it is the machine's lack, and the same for all.
    pub(super) fn note_unfreezable(&self, function: &str, error: &str) {
        if !self.said_unfreezable.swap(true, Relaxed) {
            output::note(&format!("amphora serve: function {function}: it runs on where it would be frozen: {error}"));
        }
    }
}

/// Waits until somebody listens; the connection is the first request's.
async fn first_connection(instance: &Arc<Instance>) -> Result<(), SendError> {
    let mut pause = FIRST_LOOK;
    let began = Instant::now();
    loop {
        match instance.connect().await {
            Ok(sender) => {
                instance.keep(sender).await;
                return Ok(());
            }
            Err(error) if error.is_refused() => {}
            Err(error) => return Err(error),
        }
        sleep(pause).await;
        // A tenth of what it has taken so far is not felt.
        pause = (began.elapsed() / 10).clamp(FIRST_LOOK, LAST_LOOK);
    }
}
