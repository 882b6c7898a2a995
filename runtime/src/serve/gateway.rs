//! The gateway's process: from its file to sockets that answer, through reloads, to its end.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc::UnboundedReceiver, watch},
    task::{JoinSet, spawn_blocking},
    time::{interval, timeout},
};

use super::{
    access_log::AccessLog,
    admin,
    config::{ClientLimits, Config},
    containers::Containers,
    front::{self, Door, Seats},
    function::Function,
    launcher::{self, Launcher},
    metrics::FunctionFigures,
    plan::{FindImage, Plan},
    routes::{Route, Table},
    signals::{self, Wish},
    sockets::{self, Opened},
    tls::Tls,
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

/// What is served, until the next reload.
pub(super) struct Site {
    pub(super) table: Table<Arc<Function>>,
    pub(super) functions: BTreeMap<String, Arc<Function>>,
    pub(super) limits: ClientLimits,
    pub(super) trust_forwarded: bool,
}

/// What all requests share.
pub(super) struct Gateway {
    site: RwLock<Arc<Site>>,
    /// What is served no more, and still has requests or containers.
    retired: Mutex<Vec<Arc<Function>>>,
    containers: Arc<Containers>,
    tls: Option<Arc<Tls>>,
    access_log: Arc<AccessLog>,
    file: PathBuf,
    /// What the file said first.
    at_start: Config,
    find: FindImage,
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

    /// Reads the file again. What has not changed goes on as it is; where the file cannot be used, all does.
    fn reload(&self) -> Result<()> {
        let config = super::read(&self.file)?;
        if let Some(key) = self.at_start.change_for_a_start(&config) {
            bail!(
                "{key}: it has changed, and a gateway takes it when it starts; put it back, or start the gateway again"
            );
        }
        let before = self.site();
        let after = site(&self.containers, &config, &before.functions, self.find)?;
        if let (Some(tls), Some(config)) = (&self.tls, &config.tls) {
            tls.replace(&config.certificates)?;
        }
        let is_kept = |function: &Arc<Function>| after.functions.values().any(|kept| Arc::ptr_eq(kept, function));
        let gone: Vec<Arc<Function>> =
            before.functions.values().filter(|function| !is_kept(function)).cloned().collect();
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
            None => format!("amphora serve: {} was read again", self.file.display()),
            Some(error) => format!("amphora serve: nothing has changed, as the file cannot be used: {error}"),
        });
        *self.reload_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    fn tick(&self) {
        self.tls.iter().for_each(|tls| tls.refresh());
        self.site().functions.values().for_each(|function| function.tick());
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

/// What a file says, with the functions that are served already and stay the same.
fn site(
    containers: &Arc<Containers>,
    config: &Config,
    before: &BTreeMap<String, Arc<Function>>,
    find: FindImage,
) -> Result<Site> {
    let mut functions = BTreeMap::new();
    for (name, of_function) in &config.functions {
        let name = name.as_str();
        let plan =
            Plan::new(containers.host(), name, of_function, find).with_context(|| format!("function `{name}`"))?;
        let new = |plan, figures| {
            let function = Function::new(plan, figures, Arc::clone(containers));
            function.with_context(|| format!("function `{name}`"))
        };
        let function = match before.get(name) {
            Some(same) if same.plan.is_same(&plan) => Arc::clone(same),
            // Its figures go on.
            Some(other) => new(plan, Arc::clone(&other.figures))?,
            None => new(plan, Arc::new(FunctionFigures::default()))?,
        };
        functions.insert(name.to_owned(), function);
    }
    let mut routes = Vec::new();
    for route in &config.routes {
        let route = route.get_ref();
        let target = functions.get(route.function.get_ref());
        let target = target.with_context(|| format!("there is no function `{}`", route.function.get_ref()))?;
        routes.push(Route::new(route, Arc::clone(target)));
    }
    let (limits, trust_forwarded) = (config.limits.clone(), config.trust_forwarded);
    Ok(Site { table: Table::new(routes), functions, limits, trust_forwarded })
}

/// Serves until it is told to stop.
///
/// # Errors
/// Nothing was served.
pub(crate) fn run(host: Host, file: &Path, find: FindImage) -> Result<u8> {
    let config = super::read(file)?;
    let mut wishes = signals::listen()?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let builder = builder.enable_io().enable_time().max_blocking_threads(BLOCKING_THREADS).thread_name("serve");
    let runtime = builder.build().context("cannot start the event loop")?;
    let file = file.to_owned();
    let prepared = runtime.block_on(prepare(move || Prepared::new(host, config, file, find), &mut wishes));
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
    /// Somebody wants the file to be read again.
    is_to_reload: bool,
}

impl Prepared {
    fn new(host: Host, config: Config, file: PathBuf, find: FindImage) -> Result<Self> {
        let tls = config.tls.as_ref().map(|tls| Tls::new(&tls.certificates)).transpose()?.map(Arc::new);
        let sockets = sockets::open(&config)?;
        let admin_path = config.admin_path(launcher::folder(&host).join(format!("{}.sock", config.name)));
        let launcher = Launcher::new(host, config.name.as_str(), sockets::take_descriptors()?)?;
        let removed = launcher.remove_leftovers()?;
        if removed > 0 {
            output::note(&format!("amphora serve: removed {removed} containers that an earlier gateway left behind"));
        }
        let containers = Containers::new(launcher);
        let site = site(&containers, &config, &BTreeMap::new(), find)?;
        let gateway = Arc::new(Gateway {
            site: RwLock::new(Arc::new(site)),
            retired: Mutex::default(),
            containers,
            tls,
            access_log: Arc::new(AccessLog::open(&config.access_log)?),
            file,
            at_start: config,
            find,
            started: Instant::now(),
            is_stopping: AtomicBool::new(false),
            reload_error: Mutex::default(),
            names: RandomState::new(),
            requests: AtomicU64::new(0),
        });
        Ok(Self { gateway, sockets, admin_path, is_to_reload: false })
    }
}

async fn serve(prepared: Prepared, mut wishes: UnboundedReceiver<Wish>) -> Result<()> {
    let Prepared { gateway, sockets, admin_path, is_to_reload } = prepared;
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
    gateway.tick();
    for Opened { socket, is_encrypted } in sockets {
        let address = socket.local_addr().context("cannot ask a socket for its address")?;
        let listener = TcpListener::from_std(socket).context("cannot serve a socket")?;
        let tls = gateway.tls.clone().filter(|_| is_encrypted);
        tokio::spawn(front::accept(Door { tls, ..door.clone() }, listener));
        let scheme = if is_encrypted { "https" } else { "http" };
        output::note(&format!("amphora serve: listening at {scheme}://{address}"));
    }
    until_stop(&gateway, is_to_reload, &mut wishes).await;
    gateway.is_stopping.store(true, Relaxed);
    stop.send_replace(true);
    // Until the last connection is closed, or somebody is not so patient.
    let last = timeout(gateway.at_start.drain.duration(), room.acquire_many(connections));
    tokio::select! {
        _ = last => {}
        () = another_stop(&mut wishes) => {}
    }
    let ended = timeout(STOPS_WITHIN, gateway.end()).await;
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
