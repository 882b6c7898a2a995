//! How a pull is shown: bars on a terminal, plain lines off it.

use std::{collections::HashMap, io::IsTerminal, sync::Mutex};

use images::registry::Progress;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::output;

/// One line or bar for each layer.
pub(crate) struct PullProgress {
    bars: Option<MultiProgress>,
    layers: Mutex<HashMap<String, ProgressBar>>,
}

impl PullProgress {
    /// Bars if standard error is a terminal.
    pub(crate) fn new() -> Self {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        Self { bars, layers: Mutex::new(HashMap::new()) }
    }

    fn on_layer(&self, id: &str, action: impl FnOnce(&ProgressBar)) {
        // A thread that panicked while it held the lock leaves the bars as they were.
        let layers = self.layers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(bar) = layers.get(id) {
            action(bar);
        }
    }
}

impl Progress for PullProgress {
    fn layer(&self, id: &str, total: u64, exists: bool) {
        let Some(bars) = &self.bars else {
            output::note(&format!("{id}: {}", if exists { "Already exists" } else { "Pulling" }));
            return;
        };
        let bar = bars.add(ProgressBar::new(total));
        let template = "{prefix}: {msg:14} [{bar:40}] {bytes}/{total_bytes}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(id.to_owned());
        if exists {
            bar.finish_with_message("Already exists");
        } else {
            bar.set_message("Pulling");
        }
        self.layers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(id.to_owned(), bar);
    }

    fn advance(&self, id: &str, bytes: u64) {
        self.on_layer(id, |bar| bar.inc(bytes));
    }

    fn done(&self, id: &str) {
        if self.bars.is_none() {
            output::note(&format!("{id}: Pull complete"));
        }
        self.on_layer(id, |bar| bar.finish_with_message("Pull complete"));
    }
}

/// `--quiet`.
pub(crate) struct Silent;

impl Progress for Silent {
    fn layer(&self, _id: &str, _total: u64, _exists: bool) {}
    fn advance(&self, _id: &str, _bytes: u64) {}
    fn done(&self, _id: &str) {}
}
