//! One function: what answers its requests, and how it comes to its end.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use tokio::{sync::Notify, time::timeout};

use super::{
    cgi::Cgi,
    config::Isolation,
    containers::Containers,
    fleet::Fleet,
    metrics::{FunctionFigures, Now},
    plan::Plan,
    within::Within,
};

/// How often it is looked whether the last of it is gone, if nobody says so.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One function.
pub(super) struct Function {
    pub(super) plan: Arc<Plan>,
    pub(super) figures: Arc<FunctionFigures>,
    pub(super) backing: Backing,
    /// Something of it is gone.
    gone: Arc<Notify>,
}

/// What answers.
pub(super) enum Backing {
    /// Processes of their own.
    Containers(Arc<Fleet>),
    /// Instances within this process.
    Within(Box<Within>),
    /// A process of its own for each request.
    Commands(Box<Cgi>),
}

/// Why nothing answers a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unavailable {
    #[error("too many requests wait already")]
    Full,
    #[error("nothing had room in time")]
    Late,
    #[error("no container could be started: {0}")]
    Failed(String),
    #[error("it is served no more")]
    Retired,
}

impl Function {
    /// One that begins to serve; called on the gateway's event loop, and may block.
    ///
    /// # Errors
    /// It cannot be run within this process, as it is to be.
    pub(super) fn new(plan: Plan, figures: Arc<FunctionFigures>, containers: Arc<Containers>) -> Result<Arc<Self>> {
        let (plan, gone) = (Arc::new(plan), Arc::new(Notify::new()));
        let backing = match plan.isolation {
            Isolation::Process if plan.config.cgi => {
                Backing::Commands(Box::new(Cgi::new(Arc::clone(&plan), containers, Arc::clone(&figures))))
            }
            Isolation::Process => {
                let (plan, figures, gone) = (Arc::clone(&plan), Arc::clone(&figures), Arc::clone(&gone));
                Backing::Containers(Fleet::new(plan, figures, containers, gone))
            }
            Isolation::Engine => Backing::Within(Box::new(Within::new(&plan, Arc::clone(&figures), &containers)?)),
        };
        Ok(Arc::new(Self { plan, figures, backing, gone }))
    }

    /// Waits until it can serve.
    pub(super) async fn warm(&self) -> Result<(), Unavailable> {
        match &self.backing {
            Backing::Containers(fleet) => fleet.acquire().await.map(drop),
            Backing::Within(_) | Backing::Commands(_) => Ok(()),
        }
    }

    /// Of containers that run or stand still.
    pub(super) fn container_ids(&self) -> Vec<String> {
        match &self.backing {
            Backing::Containers(fleet) => fleet.container_ids(),
            Backing::Within(_) => Vec::new(),
            Backing::Commands(cgi) => cgi.running(),
        }
    }

    /// What it does without a request.
    pub(super) fn tick(&self) {
        match &self.backing {
            Backing::Containers(fleet) => fleet.tick(),
            Backing::Within(within) => within.tick(),
            Backing::Commands(cgi) => cgi.tick(),
        }
    }

    /// Serves those who wait, and nobody more.
    pub(super) fn retire(&self) {
        match &self.backing {
            Backing::Containers(fleet) => fleet.retire(),
            Backing::Within(within) => within.retire(),
            // Nothing runs without a request.
            Backing::Commands(_) => {}
        }
    }

    /// Ends what can be ended, whatever it does.
    pub(super) fn stop_all(&self) {
        match &self.backing {
            Backing::Containers(fleet) => fleet.stop_all(),
            Backing::Within(within) => within.stop_all(),
            Backing::Commands(cgi) => cgi.stop_all(),
        }
    }

    /// Whether nothing of it runs any more.
    pub(super) fn is_over(&self) -> bool {
        match &self.backing {
            Backing::Containers(fleet) => fleet.is_over(),
            Backing::Within(within) => within.is_over(),
            Backing::Commands(cgi) => cgi.running().is_empty(),
        }
    }

    /// Waits for that.
    pub(super) async fn over(&self) {
        loop {
            let gone = self.gone.notified();
            if self.is_over() {
                return;
            }
            _ = timeout(LOOK_EVERY, gone).await;
            self.tick();
        }
    }

    pub(super) fn now(&self) -> Now {
        match &self.backing {
            Backing::Containers(fleet) => fleet.now(),
            Backing::Within(within) => within.now(),
            Backing::Commands(cgi) => cgi.now(),
        }
    }
}
