//! `amphora demo`: one program as a Linux image and as a Wasm image, side by side.
//!
//! Needs no network, and leaves nothing behind: its store is a temporary folder. Each step is a command that a user
//! could type, run as such and shown before its output.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    lifecycle::built_in::IMAGES,
    output,
    records::own_process::{OwnProcess, THIS_PROGRAM},
};

/// Runs of each kind in the last step.
const RUNS: usize = 40;

/// `amphora demo`.
pub(crate) fn demo() -> Result<u8> {
    let stage = Stage::set()?;
    let shown = stage.play();
    let cleared = stage.clear();
    shown.and(cleared).map(|()| 0)
}

/// A store of its own.
pub(super) struct Stage {
    folder: PathBuf,
}

impl Stage {
    pub(super) fn set() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("amphora-demo-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// Through amphora itself: as an ordinary user, the files of a container belong to ids that only it may touch.
    pub(super) fn clear(&self) -> Result<()> {
        let left = self.amphora(&["system", "prune", "-a", "-f"]).output().context("cannot clean up")?;
        if !left.status.success() {
            bail!("cannot clean up {}: {}", self.folder.display(), String::from_utf8_lossy(&left.stderr));
        }
        fs::remove_dir_all(&self.folder).with_context(|| format!("cannot remove {}", self.folder.display()))
    }

    fn amphora(&self, args: &[&str]) -> Command {
        let mut command = Command::new(THIS_PROGRAM);
        command.arg("--root").arg(self.root()).arg("--runroot").arg(self.runroot());
        // A bridge would stay on the machine.
        command.args(args).stdin(Stdio::null()).env("AMPHORA_NETWORK", "none");
        command
    }

    fn play(&self) -> Result<()> {
        self.say_who()?;
        self.import()?;
        self.explain()?;
        self.side_by_side()?;
        self.limits()?;
        self.measure()
    }

    fn say_who(&self) -> Result<()> {
        let ids = self.text(&["info", "--format", "{{.Ids}}"])?;
        let cgroups = self.text(&["info", "--format", "{{.CgroupMode}}"])?;
        match ids.trim() {
            "root" => output::say(&format!("You are root. cgroups: {}", cgroups.trim())),
            ids => {
                let cgroups = cgroups.trim();
                output::say(&format!("You are an ordinary user; containers run in a {ids}. cgroups: {cgroups}"))
            }
        }
    }

    fn import(&self) -> Result<()> {
        title("Two images of one program: a static Linux executable, and a Wasm module")?;
        self.import_built_in("programs")?;
        self.show(&["images"])
    }

    /// The images that amphora brings along: `programs` or `functions`.
    pub(super) fn import_built_in(&self, which: &str) -> Result<()> {
        let imported = OwnProcess::ImportDemo
            .command(THIS_PROGRAM.as_ref())
            .args([self.root(), self.runroot(), which.into()])
            .output()
            .context("cannot import the built-in images")?;
        if !imported.status.success() {
            bail!("{}", String::from_utf8_lossy(&imported.stderr).trim());
        }
        Ok(())
    }

    pub(super) fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    pub(super) fn runroot(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// Writes a file of the demo's.
    pub(super) fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn explain(&self) -> Result<()> {
        title("What each of them is, and by which rule")?;
        IMAGES.iter().try_for_each(|image| self.show(&["image", "explain", image]))
    }

    fn side_by_side(&self) -> Result<()> {
        title("The same flags run both")?;
        for image in IMAGES {
            self.show(&["run", "--rm", "-m", "64m", "--timeout", "10s", image])
                .or_else(|_| self.show(&["run", "--rm", "--timeout", "10s", image]))?;
        }
        Ok(())
    }

    fn limits(&self) -> Result<()> {
        title("The same limits stop both: memory, then time")?;
        for image in IMAGES {
            self.stopped(&["-m", "64m", "--timeout", "20s"], image, "hog")?;
        }
        for image in IMAGES {
            self.stopped(&["--timeout", "300ms"], image, "spin")?;
        }
        Ok(())
    }

    /// Runs a container that is not to end well, and shows what `inspect` says of it.
    fn stopped(&self, flags: &[&str], image: &str, what: &str) -> Result<()> {
        let name = format!("{what}-{}", image.rsplit(':').next().unwrap_or(image));
        let args = [&["run", "--name", &name], flags, &[image, what]].concat();
        let output = self.run(&args)?;
        print_last_line(&output.stderr)?;
        output::say(&format!("exit code {}", output.status.code().unwrap_or(-1)))?;
        let format = "stopped by: {{.State.LimitHit}}   OOMKilled: {{.State.OOMKilled}}";
        self.show(&["inspect", "--format", format, &name])
    }

    fn measure(&self) -> Result<()> {
        title(&format!("Start to end, {RUNS} runs each, in turn, without a network (AMPHORA_NETWORK=none)"))?;
        let mut times = [Vec::new(), Vec::new()];
        for run in 0..=RUNS {
            for (image, times) in IMAGES.iter().zip(&mut times) {
                let begin = Instant::now();
                let status = self.amphora(&["run", "--rm", image]).stdout(Stdio::null()).status()?;
                if !status.success() {
                    bail!("{image} ended with {status}");
                }
                // The first run warms the caches.
                if run > 0 {
                    times.push(begin.elapsed());
                }
            }
        }
        output::say(&format!("{:<14}{:>10}{:>10}{:>10}{:>12}", "IMAGE", "MIN", "MEDIAN", "P99", "SIZE"))?;
        for (image, times) in IMAGES.iter().zip(&mut times) {
            times.sort_unstable();
            let size = self.text(&["inspect", "--type", "image", "--format", "{{.Size}}", image])?;
            let size = output::size(size.trim().parse().context("an image's size is a number")?);
            let [min, median, p99] = [0.0, 0.5, 0.99].map(|share| milliseconds(quantile(times, share)));
            output::say(&format!("{image:<14}{min:>10}{median:>10}{p99:>10}{size:>12}"))?;
        }
        Ok(())
    }

    fn run(&self, args: &[&str]) -> Result<Output> {
        output::say(&format!("$ amphora {}", args.join(" ")))?;
        self.amphora(args).output().context("cannot run amphora")
    }

    fn text(&self, args: &[&str]) -> Result<String> {
        let output = self.amphora(args).output().context("cannot run amphora")?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim().trim_start_matches("amphora: "));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Shows the command and all that it says; an error if it fails.
    fn show(&self, args: &[&str]) -> Result<()> {
        let Output { status, stdout, stderr } = self.run(args)?;
        output::say(&format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))?;
        if status.success() { Ok(()) } else { bail!("amphora {} ended with {status}", args.join(" ")) }
    }
}

pub(super) fn title(text: &str) -> Result<()> {
    output::say(&format!("\n== {text} ==\n"))
}

/// Of a trap's message and backtrace, the message.
fn print_last_line(stderr: &[u8]) -> Result<()> {
    match String::from_utf8_lossy(stderr).lines().find(|line| line.starts_with("amphora: ")) {
        Some(line) => output::say(line),
        None => Ok(()),
    }
}

/// Of sorted times; the nearest rank.
pub(super) fn quantile(sorted: &[Duration], share: f64) -> Duration {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index into a short list")]
    let index = ((sorted.len() - 1) as f64 * share).round() as usize;
    sorted[index]
}

pub(super) fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}
