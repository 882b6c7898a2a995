//! A function's image changes while it is served: a newer one is started beside the one that serves, gets the requests when it listens, and
//! the one before is let finish what it has.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{MissedTickBehavior, interval},
};

use super::{config::Pull, function::Function, gateway::Gateway, plan::Plan};
use crate::output::{self, errors};

/// How often it is asked whose turn it is.
const TICK: Duration = Duration::from_millis(250);

/// Looks for newer images of the functions that want that, until it is aborted. A registry that does not answer holds up its own function only.
pub(super) async fn watch(gateway: Arc<Gateway>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut looked, mut busy) = (BTreeMap::<String, Instant>::new(), BTreeSet::new());
    // What went wrong is told once.
    let mut told = BTreeMap::new();
    let mut looks = JoinSet::<(String, Result<()>)>::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Some(look) = looks.join_next() => {
                let Ok((name, outcome)) = look else { continue };
                busy.remove(&name);
                looked.insert(name.clone(), Instant::now());
                match outcome {
                    Ok(()) => _ = told.remove(&name),
                    Err(error) => {
                        let error = errors::sentence(&error);
                        if told.insert(name.clone(), error.clone()).is_none_or(|before| before != error) {
                            note(&gateway, &name, &error);
                        }
                    }
                }
            }
        }
        for function in gateway.site().functions.values() {
            let name = &function.plan.name;
            let Some(interval) = gateway.watch_interval(function) else { continue };
            let since = *looked.entry(name.clone()).or_insert_with(Instant::now);
            if since.elapsed() >= interval && busy.insert(name.clone()) {
                let (gateway, function) = (Arc::clone(&gateway), Arc::clone(function));
                looks.spawn(async move { (function.plan.name.clone(), look(&gateway, &function).await) });
            }
        }
    }
}

fn note(gateway: &Gateway, name: &str, error: &str) {
    gateway.site().functions.get(name).into_iter().for_each(|function| function.figures.note_error(error));
    output::note(&format!("amphora serve: function {name}: {error}"));
}

/// Looks once.
async fn look(gateway: &Arc<Gateway>, function: &Arc<Function>) -> Result<()> {
    match newer(gateway, function).await? {
        Some(plan) => switch(gateway, function, plan, false).await,
        None => Ok(()),
    }
}

/// What its name leads to by now, if that is to be served instead.
async fn newer(gateway: &Arc<Gateway>, function: &Arc<Function>) -> Result<Option<Plan>> {
    let (gateway, function) = (Arc::clone(gateway), Arc::clone(function));
    let look = move || -> Result<Option<Plan>> {
        let Plan { name, config, digest, .. } = &*function.plan;
        let host = gateway.host();
        let pull = if config.watch.interval().is_some() { Pull::Newer } else { Pull::Never };
        let image = gateway.find(&config.image, config.platform.as_deref(), pull)?;
        if gateway.versions().choice(name, config, image.digest.as_ref()) == *digest {
            return Ok(None);
        }
        Plan::of_image(host, name, config, &image).map(Some)
    };
    spawn_blocking(look).await?.context("it goes on with its image, as it cannot be looked for a newer one")
}

/// Goes back to the image before; a sentence for what is served now.
pub(super) async fn roll_back(gateway: &Arc<Gateway>, name: &str) -> Result<String> {
    let site = gateway.site();
    let Some(function) = site.functions.get(name) else {
        let names: Vec<&str> = site.functions.keys().map(String::as_str).collect();
        bail!("there is no function `{name}`; there are {}", names.join(", "));
    };
    let Some(digest) = gateway.versions().previous(name) else {
        bail!("function `{name}` has had no other image since it was first served");
    };
    let (of_blocking, served, wanted) = (Arc::clone(gateway), Arc::clone(function), digest.clone());
    let plan = move || {
        let image = of_blocking.find(&wanted, None, Pull::Never)?;
        Plan::of_image(of_blocking.host(), &served.plan.name, &served.plan.config, &image)
    };
    let plan = spawn_blocking(plan).await??;
    let before = function.plan.digest.clone();
    switch(gateway, function, plan, true).await?;
    Ok(format!("function {name}: {digest} is served, and {before} is not until its name leads elsewhere"))
}

/// Starts the new one, and lets it serve instead of the old one as soon as it listens.
async fn switch(gateway: &Arc<Gateway>, old: &Arc<Function>, plan: Plan, rolled_back: bool) -> Result<()> {
    let (name, digest, config) = (plan.name.clone(), plan.digest.clone(), plan.config.clone());
    let (of_blocking, of) = (Arc::clone(gateway), Arc::clone(old));
    let made = spawn_blocking(move || of_blocking.another(&of, plan)).await?;
    let new = made.inspect_err(|_| gateway.versions().note_failure(&name, &digest, &config))?;
    // Until it listens.
    if let Err(unavailable) = new.warm().await {
        gateway.versions().note_failure(&name, &digest, &config);
        gateway.retire(&new);
        return Err(anyhow!("{digest} is not served: {unavailable}"));
    }
    let (of_blocking, old, kept) = (Arc::clone(gateway), Arc::clone(old), Arc::clone(&new));
    let is_served = spawn_blocking(move || of_blocking.replace(&old, &kept, rolled_back)).await?;
    if !is_served {
        gateway.retire(&new);
        bail!("{digest} is not served, as the file was read again meanwhile");
    }
    output::note(&format!("amphora serve: function {name}: {digest} is served"));
    Ok(())
}
