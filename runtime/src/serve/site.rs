//! What is served until the next reload: functions and the routes to them.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, Result};

use super::{
    config::{ClientLimits, Config, RouteConfig},
    containers::Containers,
    function::Function,
    metrics::FunctionFigures,
    plan::{FindImage, Plan},
    routes::{Route, Table},
    versions::Versions,
    weights::Weighted,
};

/// What is served.
pub(super) struct Site {
    pub(super) table: Table<Arc<Function>>,
    pub(super) functions: BTreeMap<String, Arc<Function>>,
    pub(super) limits: ClientLimits,
    pub(super) trust_forwarded: bool,
}

impl Site {
    /// What a file says, with the functions that are served already and stay the same.
    pub(super) fn new(
        containers: &Arc<Containers>,
        config: &Config,
        before: &BTreeMap<String, Arc<Function>>,
        versions: &Versions,
        find: FindImage,
    ) -> Result<Self> {
        let mut functions = BTreeMap::new();
        for (name, of_function) in &config.functions {
            let name = name.as_str();
            let host = containers.host();
            let newest = Plan::new(host, name, of_function, find).with_context(|| format!("function `{name}`"))?;
            let plan = versions.chosen(host, newest, find);
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
        let routes = config.routes.iter().map(|route| {
            let route = route.get_ref();
            Ok(Route::new(route, targets(route, &functions)?))
        });
        let table = Table::new(routes.collect::<Result<_>>()?);
        Ok(Self { table, functions, limits: config.limits.clone(), trust_forwarded: config.trust_forwarded })
    }

    /// The same with another function in the place of one.
    pub(super) fn with(&self, old: &Arc<Function>, new: &Arc<Function>) -> Self {
        let change = |function: &Arc<Function>| Arc::clone(if Arc::ptr_eq(function, old) { new } else { function });
        let functions = self.functions.iter().map(|(name, function)| (name.clone(), change(function)));
        Self {
            table: self.table.map(change),
            functions: functions.collect(),
            limits: self.limits.clone(),
            trust_forwarded: self.trust_forwarded,
        }
    }

    /// Whether this very function is served.
    pub(super) fn serves(&self, function: &Arc<Function>) -> bool {
        self.functions.get(&function.plan.name).is_some_and(|served| Arc::ptr_eq(served, function))
    }
}

fn targets(route: &RouteConfig, functions: &BTreeMap<String, Arc<Function>>) -> Result<Weighted<Arc<Function>>> {
    let of = |name: &str| functions.get(name).cloned().with_context(|| format!("there is no function `{name}`"));
    let shares = route.shares();
    let weighted = shares.into_iter().map(|(name, weight)| Ok((u64::from(weight), of(name)?)));
    Ok(Weighted::new(weighted.collect::<Result<_>>()?))
}
