//! A browser for the pages that amphora makes.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

/// Width and height, and what a page is looked at as: media and colour scheme.
pub(crate) type View = (u32, u32, &'static str, &'static str);

/// A browser that is told what to do by a pipe (Chrome DevTools protocol).
pub(crate) struct Browser {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    count: u64,
    session: Option<String>,
    /// What it told without being asked.
    events: Vec<Value>,
}

impl Browser {
    /// None, and said so, where there is none.
    pub(crate) fn start(folder: &Path) -> Option<Self> {
        let script = "exec chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
                      --remote-debugging-pipe --user-data-dir=\"$1\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";
        if !Path::new("/usr/bin/chromium").exists() {
            println!("skipped: chromium is not installed");
            return None;
        }
        let mut shell = Command::new("sh");
        // As an ordinary user it has no home of its own.
        shell.args(["-c", script, "sh"]).arg(folder).env("HOME", folder);
        let mut process = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell");
        let (requests, answers) = (process.stdin.take().expect("a pipe"), process.stdout.take().expect("a pipe"));
        let mut browser =
            Self { process, requests, answers: BufReader::new(answers), count: 0, session: None, events: Vec::new() };
        let target = browser.ask("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        browser.session = browser.ask("Target.attachToTarget", &attach)["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.ask(&format!("{domain}.enable"), &json!({}));
        }
        Some(browser)
    }

    pub(crate) fn ask(&mut self, method: &str, parameters: &Value) -> Value {
        self.count += 1;
        let mut request = json!({ "id": self.count, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            request["sessionId"] = session.as_str().into();
        }
        write!(self.requests, "{request}\0").expect("a browser that listens");
        loop {
            let message = self.message();
            if message["id"] == self.count {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    fn message(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.answers.read_until(0, &mut bytes).expect("a browser that answers");
        assert_eq!(bytes.pop(), Some(0), "the browser ended");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    /// Goes there, and waits until it is loaded.
    pub(crate) fn open(&mut self, url: &str) {
        self.ask("Page.navigate", &json!({ "url": url }));
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let message = self.message();
            self.events.push(message);
        }
    }

    /// Shows the page in one view.
    pub(crate) fn show(&mut self, (width, height, media, scheme): View) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.ask("Emulation.setDeviceMetricsOverride", &metrics);
        let scheme = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.ask("Emulation.setEmulatedMedia", &json!({ "media": media, "features": scheme }));
    }

    /// What a script comes to there.
    pub(crate) fn evaluate(&mut self, script: &str) -> Value {
        let found = self.ask("Runtime.evaluate", &json!({ "expression": script, "returnByValue": true }));
        assert!(found["exceptionDetails"].is_null(), "{found}");
        found["result"]["value"].clone()
    }

    /// What a script finds wrong with the page as it is shown: a list of sentences.
    pub(crate) fn look(&mut self, script: &str) -> Vec<String> {
        let found = self.evaluate(script);
        let problems = found.as_array().unwrap_or_else(|| panic!("{found}")).iter();
        problems.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// Where somebody wants to see it (`AMPHORA_TEST_SCREENSHOTS`), the page as it is shown.
    pub(crate) fn picture(&mut self, name: &str) {
        let taken = self.ask("Page.captureScreenshot", &json!({ "format": "png" }));
        let picture = BASE64_STANDARD.decode(taken["data"].as_str().expect("a picture")).expect("Base64");
        assert!(picture.starts_with(b"\x89PNG"), "no picture");
        if let Some(folder) = std::env::var_os("AMPHORA_TEST_SCREENSHOTS") {
            fs::write(Path::new(&folder).join(name), picture).expect("a folder for pictures");
        }
    }

    /// What it complained of, and what it wanted from elsewhere than these pages.
    pub(crate) fn complaints(&self, pages: &[&str]) -> Vec<&Value> {
        let is_complaint = |event: &&Value| match event["method"].as_str().unwrap_or_default() {
            "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded" => true,
            "Network.requestWillBeSent" => !pages.iter().any(|page| event["params"]["request"]["url"] == *page),
            _ => false,
        };
        self.events.iter().filter(is_complaint).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its other processes end with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
