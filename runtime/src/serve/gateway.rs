//! The gateway's process: from its file to sockets that answer, through reloads, to its end.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use images::Image;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc::UnboundedReceiver, watch},
    task::{JoinSet, spawn_blocking},
    time::{interval, timeout},
};

use super::{
    access_log::AccessLog,
    admin,
    config::{Admin, Config, Pull},
    containers::Containers,
    front::{self, Door, Seats},
    function::Function,
    launcher::{self, Launcher},
    plan::{FindImage, Plan},
    signals::{self, Wish},
    site::Site,
    sockets::{self, Opened},
    source::Source,
    tls::Tls,
    traces::Traces,
    versions::Versions,
    watch as newer,
};
use crate::{
    output::{self, errors},
    records::host::Host,
};

/// Threads for what blocks, as many as are wanted at once: starts and stops of containers, and files of functions within the process.
const BLOCKING_THREADS: usize = 512;
/// How often it is looked what has no request.
const TICK: Duration = Duration::from_millis(250);
/// For containers to end after the last request.
const STOPS_WITHIN: Duration = Duration::from_secs(60);
/// For what is still at work then.
const CUT_OFF_WITHIN: Duration = Duration::from_secs(1);

/// How often those who develop a function are served its newest image.
const DEVELOPERS_LOOK: Duration = Duration::from_secs(1);

/// Is told where clients come.
pub(crate) type WhenServing = Box<dyn FnOnce(&[SocketAddr]) + Send>;

/// What a gateway is started with.
pub(crate) struct Options {
    pub(crate) source: Source,
    pub(crate) find: FindImage,
    /// Clients are told what went wrong, and images of this machine are served as soon as they change.
    pub(crate) dev: bool,
    /// Called as soon as clients are served.
    pub(crate) when_serving: Option<WhenServing>,
}

/// What all requests share.
pub(super) struct Gateway {
    site: RwLock<Arc<Site>>,
    /// What is served no more, and still has requests or containers.
    retired: Mutex<Vec<Arc<Function>>>,
    containers: Arc<Containers>,
    tls: Option<Arc<Tls>>,
    access_log: Arc<AccessLog>,
    traces: Option<Arc<Traces>>,
    source: Source,
    /// What was said first.
    at_start: Config,
    find: FindImage,
    pub(super) dev: bool,
    versions: Versions,
    /// Held by whoever is about to serve something else.
    changing: Mutex<()>,
    started: Instant,
    is_stopping: AtomicBool,
    /// Why the last reload was refused.
    reload_error: Mutex<Option<String>>,
    names: RandomState,
    requests: AtomicU64,
}

impl Gateway {
    pub(super) fn site(&self) -> Arc<Site> {
        Arc::clone(&self.site.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn access_log(&self) -> Arc<AccessLog> {
        Arc::clone(&self.access_log)
    }

    pub(super) fn traces(&self) -> Option<&Arc<Traces>> {
        self.traces.as_ref()
    }

    pub(super) fn name(&self) -> &str {
        self.at_start.name.as_str()
    }

    pub(super) fn up_for(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Relaxed)
    }

    pub(super) fn reload_error(&self) -> Option<String> {
        self.reload_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A request's name, that tells nothing of how many there are.
    pub(super) fn new_request_id(&self) -> String {
        format!("{:016x}", self.names.hash_one(self.requests.fetch_add(1, Relaxed)))
    }

    pub(super) fn host(&self) -> &Host {
        self.containers.host()
    }

    pub(super) fn versions(&self) -> &Versions {
        &self.versions
    }

    pub(super) fn find(&self, image: &str, platform: Option<&str>, pull: Pull) -> Result<Image> {
        (self.find)(self.host(), image, platform, pull)
    }

    /// How often it is looked whether a function's image has changed, if it is.
    pub(super) fn watch_interval(&self, function: &Function) -> Option<Duration> {
        function.plan.config.watch.interval().or_else(|| self.dev.then_some(DEVELOPERS_LOOK))
    }

    /// Another one with the figures of this one. Blocks.
    pub(super) fn another(&self, of: &Function, plan: Plan) -> Result<Arc<Function>> {
        Function::new(plan, Arc::clone(&of.figures), Arc::clone(&self.containers))
    }

    /// Lets one function serve instead of another; false: that one does not serve any more.
    pub(super) fn replace(&self, old: &Arc<Function>, new: &Arc<Function>, rolled_back: bool) -> bool {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.site();
        if !before.serves(old) || self.is_stopping() {
            return false;
        }
        self.versions.note(self.host(), &new.plan.name, &new.plan.digest, rolled_back);
        let after = Arc::new(before.with(old, new));
        // Held meanwhile, as by a reload.
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        *self.site.write().unwrap_or_else(PoisonError::into_inner) = after;
        old.retire();
        retired.push(Arc::clone(old));
        true
    }

    /// One that is not served.
    pub(super) fn retire(&self, function: &Arc<Function>) {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        function.retire();
        retired.push(Arc::clone(function));
    }

    /// Reads the file again. What has not changed goes on as it is; where the file cannot be used, all does.
    fn reload(&self) -> Result<()> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let config = self.source.read()?;
        match self.at_start.changes_for_a_start(&config).as_slice() {
            [] => {}
            [key] => bail!(
                "{key}: it has changed, and a gateway takes it when it starts; put it back, or start the gateway again"
            ),
            keys => bail!(
                "{}: they have changed, and a gateway takes them when it starts; put them back, or start the gateway again",
                keys.join(", ")
            ),
        }
        let before = self.site();
        let after = Site::new(&self.containers, &config, &before.functions, &self.versions, self.find)?;
        if let (Some(tls), Some(config)) = (&self.tls, &config.tls) {
            tls.replace(&config.certificates)?;
        }
        let is_kept = |function: &Arc<Function>| after.functions.values().any(|kept| Arc::ptr_eq(kept, function));
        let gone: Vec<Arc<Function>> =
            before.functions.values().filter(|function| !is_kept(function)).cloned().collect();
        let served = after.functions.values().map(|function| (&*function.plan.name, &*function.plan.digest));
        self.versions.note_all(self.host(), served);
        // Held meanwhile: there is no moment in which a function is neither served nor retired.
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut site = self.site.write().unwrap_or_else(PoisonError::into_inner);
            if self.is_stopping() {
                bail!("the gateway stops");
            }
            *site = Arc::new(after);
        }
        gone.iter().for_each(|function| function.retire());
        retired.extend(gone);
        Ok(())
    }

    /// For the operator, now and later.
    fn note_reload(&self, reloaded: Result<()>) {
        let error = reloaded.err().map(|error| errors::sentence(&error));
        output::note(&match &error {
            None => format!("amphora serve: {} was read again", self.source),
            Some(error) => format!("amphora serve: nothing has changed, as the file cannot be used: {error}"),
        });
        *self.reload_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    fn tick(&self) {
        self.tls.iter().for_each(|tls| tls.refresh());
        self.site().functions.values().for_each(|function| {
            function.tick();
            function.figures.look();
        });
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.iter().for_each(|function| function.tick());
        retired.retain(|function| !function.is_over());
    }

    fn all_functions(&self) -> Vec<Arc<Function>> {
        let retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        self.site().functions.values().chain(retired.iter()).cloned().collect()
    }

    /// Ends all containers.
    async fn end(&self) {
        let functions = self.all_functions();
        functions.iter().for_each(|function| function.stop_all());
        for function in &functions {
            function.over().await;
        }
    }
}

/// Serves until it is told to stop.
///
/// # Errors
/// Nothing was served.
pub(crate) fn run(host: Host, options: Options) -> Result<u8> {
    let seen = options.source.version();
    let config = options.source.read()?;
    let (wisher, mut wishes) = signals::listen()?;
    options.source.watch(seen, wisher)?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let builder = builder.enable_io().enable_time().max_blocking_threads(BLOCKING_THREADS).thread_name("serve");
    let runtime = builder.build().context("cannot start the event loop")?;
    let prepared = runtime.block_on(prepare(move || Prepared::new(host, config, options), &mut wishes));
    let Ok(Some(prepared)) = prepared else {
        // Not dropped, which waits for every thread that blocks.
        runtime.shutdown_background();
        return prepared.map(|_| 0);
    };
    let access_log = prepared.gateway.access_log();
    let served = runtime.block_on(serve(prepared, wishes));
    // What is cut off by this has its lines, too.
    runtime.shutdown_timeout(CUT_OFF_WITHIN);
    access_log.end();
    served.map(|()| 0)
}

/// Images may be pulled and containers of an earlier gateway stopped: who does not want to wait for that need not. None: it was told to
/// stop before it served anything.
async fn prepare(
    prepare: impl FnOnce() -> Result<Prepared> + Send + 'static,
    wishes: &mut UnboundedReceiver<Wish>,
) -> Result<Option<Prepared>> {
    let mut preparing = spawn_blocking(prepare);
    let mut is_to_reload = false;
    loop {
        tokio::select! {
            prepared = &mut preparing => return prepared?.map(|prepared| Some(Prepared { is_to_reload, ..prepared })),
            wish = wishes.recv() => match wish {
                Some(Wish::Reload) => is_to_reload = true,
                Some(Wish::Stop) | None => return Ok(None),
            },
        }
    }
}

/// A gateway that is about to serve.
struct Prepared {
    gateway: Arc<Gateway>,
    sockets: Vec<Opened>,
    admin_path: Option<PathBuf>,
    when_serving: Option<WhenServing>,
    /// Somebody wants the file to be read again.
    is_to_reload: bool,
}

impl Prepared {
    fn new(host: Host, config: Config, options: Options) -> Result<Self> {
        let Options { source, find, dev, when_serving } = options;
        let tls = config.tls.as_ref().map(|tls| Tls::new(&tls.certificates)).transpose()?.map(Arc::new);
        let sockets = sockets::open(&config)?;
        let admin_path = config.admin_path(launcher::folder(&host).join(format!("{}.sock", config.name)));
        let folder = launcher::folder(&host);
        let launcher = Launcher::new(host, config.name.as_str(), sockets::take_descriptors()?)?;
        let removed = launcher.remove_leftovers()?;
        if removed > 0 {
            output::note(&format!("amphora serve: removed {removed} containers that an earlier gateway left behind"));
        }
        let containers = Containers::new(launcher);
        let versions = Versions::open(&folder, config.name.as_str())?;
        let site = Site::new(&containers, &config, &BTreeMap::new(), &versions, find)?;
        let served = site.functions.values().map(|function| (&*function.plan.name, &*function.plan.digest));
        versions.note_all(containers.host(), served);
        let gateway = Arc::new(Gateway {
            site: RwLock::new(Arc::new(site)),
            retired: Mutex::default(),
            containers,
            tls,
            access_log: Arc::new(AccessLog::open(&config.access_log)?),
            traces: config.traces.as_ref().map(Traces::begin).transpose()?.map(Arc::new),
            source,
            at_start: config,
            find,
            dev,
            versions,
            changing: Mutex::default(),
            started: Instant::now(),
            is_stopping: AtomicBool::new(false),
            reload_error: Mutex::default(),
            names: RandomState::new(),
            requests: AtomicU64::new(0),
        });
        Ok(Self { gateway, sockets, admin_path, when_serving, is_to_reload: false })
    }
}

async fn serve(prepared: Prepared, mut wishes: UnboundedReceiver<Wish>) -> Result<()> {
    let Prepared { gateway, sockets, admin_path, when_serving, is_to_reload } = prepared;
    let (stop, stopping) = watch::channel(false);
    let connections = sockets::connections(&gateway.site().limits);
    let room = Arc::new(Semaphore::new((connections as usize).min(Semaphore::MAX_PERMITS)));
    let door = Door {
        gateway: Arc::clone(&gateway),
        room: Arc::clone(&room),
        seats: Arc::new(Seats::default()),
        tls: None,
        stopping,
    };
    let operators = admin_path.map(|path| admin::listen(Arc::clone(&gateway), path)).transpose()?;
    if let Admin::Address(address) = gateway.at_start.admin {
        admin::listen_at(Arc::clone(&gateway), address, gateway.at_start.admin_token.as_deref())?;
    }
    gateway.tick();
    let mut addresses = Vec::new();
    for Opened { socket, is_encrypted } in sockets {
        let address = socket.local_addr().context("cannot ask a socket for its address")?;
        addresses.push(address);
        let listener = TcpListener::from_std(socket).context("cannot serve a socket")?;
        let tls = gateway.tls.clone().filter(|_| is_encrypted);
        tokio::spawn(front::accept(Door { tls, ..door.clone() }, listener));
        let scheme = if is_encrypted { "https" } else { "http" };
        output::note(&format!("amphora serve: listening at {scheme}://{address}"));
    }
    when_serving.into_iter().for_each(|tell| tell(&addresses));
    let looking = tokio::spawn(newer::watch(Arc::clone(&gateway)));
    until_stop(&gateway, is_to_reload, &mut wishes).await;
    looking.abort();
    gateway.is_stopping.store(true, Relaxed);
    stop.send_replace(true);
    // Until the last connection is closed, or somebody is not so patient.
    let last = timeout(gateway.at_start.drain.duration(), room.acquire_many(connections));
    tokio::select! {
        _ = last => {}
        () = another_stop(&mut wishes) => {}
    }
    let ended = timeout(STOPS_WITHIN, gateway.end()).await;
    if let Some(traces) = gateway.traces() {
        traces.end().await;
    }
    drop(operators);
    ended.map_err(|_| anyhow!("not all containers ended within {} s: amphora ps shows them", STOPS_WITHIN.as_secs()))
}

/// Reloads as often as that is wanted, one after another. It may take as long as a pull, and all else goes on beside it.
async fn until_stop(gateway: &Arc<Gateway>, mut is_to_reload: bool, wishes: &mut UnboundedReceiver<Wish>) {
    let mut ticks = interval(TICK);
    let mut reloading = JoinSet::new();
    loop {
        if is_to_reload && reloading.is_empty() {
            is_to_reload = false;
            let gateway = Arc::clone(gateway);
            reloading.spawn_blocking(move || gateway.reload());
        }
        tokio::select! {
            wish = wishes.recv() => match wish {
                // The file may have changed since the one before read it.
                Some(Wish::Reload) => is_to_reload = true,
                Some(Wish::Stop) | None => return,
            },
            Some(reloaded) = reloading.join_next() => {
                gateway.note_reload(reloaded.unwrap_or_else(|error| Err(error.into())));
                gateway.tick();
            }
            _ = ticks.tick() => gateway.tick(),
        }
    }
}

async fn another_stop(wishes: &mut UnboundedReceiver<Wish>) {
    while wishes.recv().await.is_some_and(|wish| wish != Wish::Stop) {}
}
