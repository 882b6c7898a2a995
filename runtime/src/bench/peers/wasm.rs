//! Those who are given a Wasm program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{Contender, Job, Table, Way, strings};
use crate::bench::{results::Temperature, stage};

impl Table<'_> {
    fn program(&self) -> Result<&Path> {
        self.material.wasm.as_deref().context("the subject has no Wasm program")
    }

    pub(super) fn wasmtime(&self, path: &str) -> Result<Vec<Contender>> {
        let module = self.program()?.display().to_string();
        let compiled = self.material.folder.join("program.cwasm").display().to_string();
        stage::run(Command::new(path).args(["compile", &module, "-o", &compiled]))?;
        if let Job::Serve(door) = self.job {
            let serve = ["serve", "--addr", &door.address(), "-S", "cli"].map(str::to_owned).to_vec();
            let at = |flags: &[&str]| [strings(&[path]), serve.clone(), strings(flags)].concat();
            let fallback =
                Way { words: at(&[&module]), note: Some("compiled at each start, as it refuses its own code") };
            let ways = vec![Way::usual(at(&["--allow-precompiled", &compiled])), fallback];
            return Ok(vec![self.warm("wasmtime", ways)]);
        }
        let run = |flags: &[&str]| {
            let mut words = strings(&[&[path, "run"], flags].concat());
            for variable in &self.material.env {
                words.extend(["--env".to_owned(), variable.clone()]);
            }
            words
        };
        let finished = |mut words: Vec<String>, program: &str| {
            words.push(program.to_owned());
            words.extend(self.material.program.iter().cloned());
            vec![Way::usual(words)]
        };
        let warm = self.warm("wasmtime", finished(run(&["--allow-precompiled"]), &compiled));
        let cold = Contender {
            temperature: Temperature::Cold,
            evicted: vec![PathBuf::from(&module)],
            ..self.warm("wasmtime", finished(run(&["-C", "cache=n"]), &module))
        };
        Ok(vec![warm, cold])
    }

    /// Only warm: it keeps compiled code in a cache of the user's, which is not ours to empty.
    pub(super) fn wasmer(&self, path: &str) -> Result<Vec<Contender>> {
        let mut words = strings(&[path, "run"]);
        for variable in &self.material.env {
            words.extend(["--env".to_owned(), variable.clone()]);
        }
        words.push(self.program()?.display().to_string());
        if !self.material.program.is_empty() {
            words.push("--".to_owned());
            words.extend(self.material.program.iter().cloned());
        }
        Ok(vec![self.warm("wasmer", vec![Way::usual(words)])])
    }

    /// It takes applications: one is made of the function.
    pub(super) fn spin(&self, path: &str) -> Result<Vec<Contender>> {
        let Job::Serve(door) = self.job else { return Ok(Vec::new()) };
        let manifest = self.material.folder.join("spin.toml");
        let program = toml_string(&self.program()?.display().to_string());
        let text = format!(
            "spin_manifest_version = 2\n[application]\nname = \"bench\"\n[[trigger.http]]\nroute = \"/...\"\n\
             component = \"bench\"\n[component.bench]\nsource = {program}\n"
        );
        fs::write(&manifest, text).with_context(|| format!("cannot write {}", manifest.display()))?;
        let (address, manifest) = (door.address(), manifest.display().to_string());
        let words = strings(&[path, "up", "--quiet", "--from", &manifest, "--listen", &address]);
        Ok(vec![self.warm("spin", vec![Way::usual(words)])])
    }
}

/// A basic string of TOML, whose escapes are those of JSON.
fn toml_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
